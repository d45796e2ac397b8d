//! The pretend organisation: plain state, and the platform's rules for changing it, one file per part of the API.
//!
//! Nothing here knows HTTP beyond the error a rule gives; tokens, limits and faults are outside of it.

pub(crate) mod cdn;
pub(crate) mod event_streams;
pub(crate) mod files;
pub(crate) mod media;
pub(crate) mod network;
pub(crate) mod web_messaging;

use serde_json::{Value, json};

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
    /// What `media.scan` fetches and changes.
    pub(crate) media: media::Media,
}

impl Organisation {
    /// What `/_sim/state` and `Simulator::state` show.
    pub(crate) fn shown(&self) -> Value {
        json!({
            "purged": self.cdn.purged,
            "purgeRequests": self.cdn.purge_requests,
            "eventStreams": self.event_streams.shown(),
            "webMessaging": self.web_messaging.shown(),
            "network": self.network.shown(),
            "files": self.files.shown(),
            "media": self.media.shown(),
        })
    }

    /// Changes one part as a test or a rehearsal wants it; says what is wrong with the change.
    pub(crate) fn set(&mut self, part: &str, change: &Value) -> Result<(), String> {
        match part {
            "eventStreams" => self.event_streams.set(change),
            "webMessaging" => self.web_messaging.set(change),
            "network" => self.network.set(change),
            "files" => self.files.set(change),
            "media" => self.media.set(change),
            _ => Err(format!("no part {part:?}; there are eventStreams, webMessaging, network, files and media")),
        }
    }
}
