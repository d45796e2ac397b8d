//! The simulated organisation: its state, and the platform's rules for changes, one file for each part of the API.
//!
//! These modules do not use HTTP, except for the errors of the rules. They do not know tokens, limits and faults.

pub(crate) mod cdn;
pub(crate) mod event_streams;
pub(crate) mod files;
pub(crate) mod integrations;
pub(crate) mod media;
pub(crate) mod network;
pub(crate) mod web_deployments;
pub(crate) mod web_messaging;

use serde_json::{Value, json};

/// The data of the organisation.
#[derive(Debug, Default)]
pub(crate) struct Organisation {
    /// Data for the purger.
    pub(crate) cdn: cdn::Cdn,
    /// Data for the stream-configurator.
    pub(crate) event_streams: event_streams::EventStreams,
    /// Data for the stream-configurator, of the public API.
    pub(crate) integrations: integrations::Integrations,
    /// Data for the channel-provisioner.
    pub(crate) web_messaging: web_messaging::WebMessaging,
    /// Data for the channel-provisioner, of the public API.
    pub(crate) web_deployments: web_deployments::WebDeployments,
    /// Data for the vni-provisioner.
    pub(crate) network: network::Network,
    /// Data for the scan-monitor.
    pub(crate) files: files::Files,
    /// The files that `media.scan` fetches and changes.
    pub(crate) media: media::Media,
}

impl Organisation {
    /// Returns the state for `/_sim/state` and `Simulator::state`.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "purged": self.cdn.purged,
            "purgeRequests": self.cdn.purge_requests,
            "eventStreams": self.event_streams.to_json(),
            "integrations": self.integrations.to_json(),
            "webMessaging": self.web_messaging.to_json(),
            "webDeployments": self.web_deployments.to_json(),
            "network": self.network.to_json(),
            "files": self.files.to_json(),
            "media": self.media.to_json(),
        })
    }

    /// Changes one part, for a test or a rehearsal. Fails with a message if the change is invalid.
    pub(crate) fn set(&mut self, part: &str, change: &Value) -> Result<(), String> {
        match part {
            "eventStreams" => self.event_streams.set(change),
            "integrations" => self.integrations.set(change),
            "webMessaging" => self.web_messaging.set(change),
            "webDeployments" => self.web_deployments.set(change),
            "network" => self.network.set(change),
            "files" => self.files.set(change),
            "media" => self.media.set(change),
            _ => Err(format!(
                "no part {part:?}; there are eventStreams, integrations, webMessaging, webDeployments, network, files and media"
            )),
        }
    }
}
