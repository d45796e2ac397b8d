//! The pretend organisation: plain state, and the platform's rules for changing it, one file per part of the API.
//!
//! Nothing here knows HTTP beyond the error a rule gives; tokens, limits and faults are outside of it.

pub(crate) mod cdn;
pub(crate) mod event_streams;
pub(crate) mod files;
pub(crate) mod network;
pub(crate) mod web_messaging;

/// What the organisation holds.
#[derive(Debug, Default)]
pub(crate) struct Organisation {
    /// What the purger changes.
    pub(crate) cdn: cdn::Cdn,
    /// What the stream-configurator changes.
    pub(crate) event_streams: event_streams::EventStreams,
    /// What the channel-provisioner reads and changes.
    pub(crate) web_messaging: web_messaging::WebMessaging,
    /// What the vni-provisioner reads and changes.
    pub(crate) network: network::Network,
    /// What the scan-monitor orders and follows.
    pub(crate) files: files::Files,
}
