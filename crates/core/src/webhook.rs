//! Webhooks: the delivery of final events to URLs (SPEC 7), those of the settings and the one that a job names.
//!
//! ```text
//! event ─ fan_out ─→ one webhook.deliver job for each receiver, durable with the event
//!                      └ delivery (a JobHandler like the others): hosts → signature → post, through the address_guard
//! ```
//!
//! [`Webhooks`] holds the settings of one process. Retries, dead letters and draining are those of any other job. Genesys
//! Cloud takes no part in deliveries.

use std::sync::Arc;

use tracing::warn;

use self::{
    address_guard::AddressList, hosts::HostLimits, options::WebhookRoute, rules::SigningAbility, signers::Signers,
};
use genfleet_job::{Kind, clock::SharedClock, options::ConfigError};

pub(crate) mod address_guard;
mod delivery;
mod failing;
mod fan_out;
mod hosts;
mod options;
pub(crate) mod post;
mod receiver;
mod rules;
mod signature;
mod signers;
#[cfg(test)]
mod stub;

pub use self::{
    address_guard::AddressEntry,
    delivery::Deliverer,
    options::{JobWebhooks, WebhookOptions},
    post::{WebhookClient, WebhookSendError},
    receiver::Receiver,
    rules::WebhookRules,
    signature::{SECRET_VARIABLE, WebhookSecrets},
};
pub(crate) use self::{delivery::DeliveryOutcome, failing::FailingReceivers, fan_out::delivery_jobs};

/// The webhooks of a process. By default there are none.
#[derive(Clone, Debug, Default)]
pub struct Webhooks {
    routes: Arc<[WebhookRoute]>,
    rules: WebhookRules,
    delivering: Option<Delivering>,
}

/// The parts of a process that delivers.
#[derive(Clone, Debug)]
struct Delivering {
    signers: Signers,
    client: WebhookClient,
    options: WebhookOptions,
}

impl Webhooks {
    /// Reads the settings, and the secrets from the environment. A TLS provider must be installed before.
    pub fn new(options: &WebhookOptions) -> Result<Self, ConfigError> {
        Self::with_secrets(options, WebhookSecrets::from_environment()?)
    }

    /// Reads the settings; `shared` signs for all receivers without a secret of their own.
    pub fn with_secrets(options: &WebhookOptions, shared: Option<WebhookSecrets>) -> Result<Self, ConfigError> {
        let (routes, addresses) = (options.routes()?, options.addresses());
        let signers = Signers::new(shared, &options.webhook_secret)?;
        check_routes(&routes, &addresses, &signers)?;
        warn_of_mistakes(&routes, &addresses, &signers);
        let signing = SigningAbility::with(&signers, options.job_webhooks);
        let delivers = signers.signed_receivers().is_some() && options.webhook_concurrency > 0;
        let delivering = if delivers {
            let client = WebhookClient::new(options)?;
            Some(Delivering { signers, client, options: options.clone() })
        } else {
            None
        };
        Ok(Self { routes: routes.into(), rules: WebhookRules::new(signing, addresses), delivering })
    }

    /// The rules for the webhook that a job names.
    pub(crate) fn rules(&self) -> &WebhookRules {
        &self.rules
    }

    /// The receivers of the end of a job of `kind` (`unknown` if it could not be read) that names the webhook `own`;
    /// each once.
    pub(crate) fn receivers(&self, kind: &str, own: Option<&str>) -> Vec<Receiver> {
        if kind == Kind::WebhookDeliver.as_str() {
            return Vec::new();
        }
        let routes = self.routes.iter().filter(|route| route.kind.is_none_or(|only| only.as_str() == kind));
        let own = own.and_then(|url| self.rules.accept(url));
        let mut receivers: Vec<Receiver> = Vec::new();
        for receiver in routes.map(|route| route.receiver.clone()).chain(own) {
            if !receivers.contains(&receiver) {
                receivers.push(receiver);
            }
        }
        receivers
    }

    /// The handler of deliveries, which keeps `failing` up to date; `None` if other processes deliver.
    pub(crate) fn deliverer(&self, clock: &SharedClock, failing: &FailingReceivers) -> Option<Deliverer> {
        let Delivering { signers, client, options } = self.delivering.clone()?;
        Some(Deliverer {
            signers,
            client,
            hosts: HostLimits::new(options.webhook_concurrency, options.webhook_retry_scale),
            failing: failing.clone(),
            retry_scale: options.webhook_retry_scale,
            clock: clock.clone(),
        })
    }

    /// The settings of a process that delivers.
    pub fn delivering(&self) -> Option<&WebhookOptions> {
        self.delivering.as_ref().map(|delivering| &delivering.options)
    }
}

fn check_routes(routes: &[WebhookRoute], addresses: &AddressList, signers: &Signers) -> Result<(), ConfigError> {
    for WebhookRoute { receiver, .. } in routes {
        if signers.of(receiver).is_none() {
            let remedy = signers::remedy();
            return Err(ConfigError::new(format!(
                "--webhook-url {receiver} is set, but deliveries could not be signed: {remedy}"
            )));
        }
        if addresses.denies(receiver.url()) {
            return Err(ConfigError::new(format!(
                "--webhook-url {receiver}: --webhook-deny names it, so nothing would be delivered; remove it from one of them"
            )));
        }
        if !addresses.allows_scheme(receiver.url()) {
            return Err(ConfigError::new(format!(
                "--webhook-url {receiver}: must begin with https://; for a receiver without TLS name its host in --webhook-allow, too"
            )));
        }
    }
    Ok(())
}

/// Warns of settings that are allowed but may be a mistake.
fn warn_of_mistakes(routes: &[WebhookRoute], addresses: &AddressList, signers: &Signers) {
    for WebhookRoute { receiver, .. } in routes {
        if let Err(refused) = addresses.check_url(receiver.url()) {
            warn!(%receiver, "deliveries to this --webhook-url will be refused: it {refused}");
        }
    }
    let short = signers.short();
    if short > 0 {
        warn!(short, "{SECRET_VARIABLE}, --webhook-secret: secrets of less than 24 bytes are too easy to guess");
    }
}

#[cfg(test)]
mod tests;
