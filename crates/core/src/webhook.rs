//! Where final events go beside the queue (SPEC 7): to the URLs that a process is told, and to the one that a job names.
//!
//! ```text
//! event ─ fan_out ─→ a webhook.deliver job for each receiver, durable with the event
//!                       └ delivery (a JobHandler like the others): hosts → signature → post, through the address_guard
//! ```
//!
//! [`Webhooks`] is what one process knows of it. Retries, dead letters and draining are the engine's; Genesys Cloud is
//! not asked for anything here, and hears of nothing.

use std::sync::Arc;

use tracing::warn;

use self::{
    address_guard::AddressList,
    delivery::Deliverer,
    failing::FailingReceivers,
    hosts::Hosts,
    options::{JobWebhooks, Route, WebhookOptions},
    post::Post,
    receiver::Receiver,
    rules::{Rules, Signing},
    signature::{Secrets, VARIABLE},
    signers::Signers,
};
use genfleet_job::{Kind, clock::SharedClock, options::ConfigError};

pub mod address_guard;
pub mod delivery;
pub mod failing;
pub mod fan_out;
pub mod hosts;
pub mod options;
pub mod post;
pub mod receiver;
pub mod rules;
pub mod signature;
pub mod signers;
#[cfg(test)]
mod stub;

/// What a process knows of webhooks. By default there are none.
#[derive(Clone, Debug, Default)]
pub struct Webhooks {
    routes: Arc<[Route]>,
    rules: Rules,
    delivering: Option<Delivering>,
}

/// What a process needs that delivers.
#[derive(Clone, Debug)]
struct Delivering {
    signers: Signers,
    post: Post,
    options: WebhookOptions,
}

impl Delivering {
    fn new(options: &WebhookOptions, addresses: &AddressList, signers: Signers) -> Result<Self, ConfigError> {
        Ok(Self {
            signers,
            post: Post::new(addresses.clone(), options.webhook_ca_file.as_deref())?,
            options: options.clone(),
        })
    }
}

impl Webhooks {
    /// What the settings and the secrets in the environment say. A TLS provider is installed before.
    pub fn new(options: &WebhookOptions) -> Result<Self, ConfigError> {
        let secrets = Secrets::from_environment()?;
        Self::with_secrets(options, secrets)
    }

    /// The same with the secrets that receivers share from elsewhere.
    pub fn with_secrets(options: &WebhookOptions, shared: Option<Secrets>) -> Result<Self, ConfigError> {
        let (routes, addresses) = (options.routes()?, options.addresses());
        let signers = Signers::new(shared, &options.webhook_secret)?;
        check(&routes, &addresses, &signers)?;
        warn_of(&routes, &addresses, &signers);
        let signing = Signing::with(&signers, options.job_webhooks == JobWebhooks::On);
        let delivers = signers.signed().is_some() && options.webhook_concurrency > 0;
        let delivering = delivers.then(|| Delivering::new(options, &addresses, signers)).transpose()?;
        Ok(Self { routes: routes.into(), rules: Rules::new(signing, addresses), delivering })
    }

    /// What a job's own webhook has to keep.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Who is told of the end of a job of `kind` (`unknown` where it could not be read) that names `own`; each once.
    pub fn receivers(&self, kind: &str, own: Option<&str>) -> Vec<Receiver> {
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

    /// What delivers in this process, and how many at once, and keeps `failing` true; `None` where others do.
    pub fn deliverer(&self, clock: &SharedClock, failing: &FailingReceivers) -> Option<Deliverer> {
        let delivering = self.delivering.clone()?;
        Some(Deliverer {
            signers: delivering.signers,
            post: delivering.post,
            hosts: Hosts::new(delivering.options.webhook_concurrency, delivering.options.webhook_retry_scale),
            failing: failing.clone(),
            retry_scale: delivering.options.webhook_retry_scale,
            clock: clock.clone(),
        })
    }

    /// The settings of that.
    pub fn delivering(&self) -> Option<&WebhookOptions> {
        self.delivering.as_ref().map(|delivering| &delivering.options)
    }
}

fn check(routes: &[Route], addresses: &AddressList, signers: &Signers) -> Result<(), ConfigError> {
    for Route { receiver, .. } in routes {
        if signers.of(receiver).is_none() {
            let remedy = signers::remedy();
            let told = format!("--webhook-url {receiver} is set, but deliveries could not be signed: {remedy}");
            return Err(ConfigError::new(told));
        }
        if addresses.denies(receiver) {
            return Err(ConfigError::new(format!(
                "--webhook-url {receiver}: --webhook-deny names it, so nothing would be delivered; take it out of one of them"
            )));
        }
        if !addresses.allows_scheme(receiver) {
            return Err(ConfigError::new(format!(
                "--webhook-url {receiver}: must begin with https://; for a receiver without TLS name its host in --webhook-allow, too"
            )));
        }
    }
    Ok(())
}

/// What is allowed but may be a mistake.
fn warn_of(routes: &[Route], addresses: &AddressList, signers: &Signers) {
    for Route { receiver, .. } in routes {
        if let Err(refused) = addresses.judge_literal(receiver) {
            warn!(%receiver, "deliveries to this --webhook-url will be refused: it {refused}");
        }
    }
    let short = signers.short();
    if short > 0 {
        warn!(short, "{VARIABLE}, --webhook-secret: secrets of less than 24 bytes are too easy to guess");
    }
}

#[cfg(test)]
mod tests;
