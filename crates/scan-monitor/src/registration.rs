//! Registers the URL of a security system for verdicts, if `--security-webhook-url` is set: once per process and
//! quarantine action. A failure is logged as a warning and never fails a job. The next job of the action tries again,
//! at most once a minute.
//!
//! A job starts the registration only after its own request was answered, and does not wait for it. So a registration
//! never uses the probe of a hold or of the circuit breaker, and never delays the record of an order. Only the platform
//! calls the URL; Genfleet never does.

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use genfleet_core::{
    error::ErrorClass,
    genesys::{ApiError, GenesysClient},
    handler::JobContext,
    options::ConfigError,
};
use tokio::{
    sync::{Mutex, OwnedMutexGuard},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info, warn};
use url::Url;

use crate::{api, payload::QUARANTINE_ACTIONS};

/// Wait after a failed registration.
const BETWEEN_TRIES: Duration = Duration::from_secs(60);

/// The URL to which verdicts are reported. Only scheme and host are shown, because the rest may be secret.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SecurityWebhookUrl(Url);

/// The progress of the registration for one action.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// The registration may be tried from this time.
    Due(Instant),
    /// The registration exists.
    Registered,
}

/// The registrations of a process.
#[derive(Debug)]
pub(crate) struct Registrations {
    client: GenesysClient,
    url: Option<SecurityWebhookUrl>,
    /// The stages in the order of [`QUARANTINE_ACTIONS`]. Locked while a registration is in progress.
    actions: [Arc<Mutex<Stage>>; QUARANTINE_ACTIONS.len()],
}

impl Registrations {
    /// Creates the registrations for `url`; without one nothing is registered.
    pub(crate) fn new(client: GenesysClient, url: Option<SecurityWebhookUrl>) -> Self {
        let now = Instant::now();
        Self { client, url, actions: std::array::from_fn(|_| Arc::new(Mutex::new(Stage::Due(now)))) }
    }

    /// Starts the registration for `action` if it is due. Does not wait.
    pub(crate) fn start_if_due(&self, action: &str, job: &JobContext) {
        let Some(url) = &self.url else { return };
        let Some(turn) = self.turn(action) else { return };
        let (client, url, stop) = (self.client.clone(), url.clone(), job.stop.clone());
        let action = action.to_owned();
        tokio::spawn(async move { register(&client, &url, &action, turn, &stop).await }.in_current_span());
    }

    /// Returns the right to register `action`, if it is due and not in progress.
    fn turn(&self, action: &str) -> Option<OwnedMutexGuard<Stage>> {
        let index = QUARANTINE_ACTIONS.iter().position(|known| *known == action)?;
        let stage = Arc::clone(&self.actions[index]).try_lock_owned().ok()?;
        match *stage {
            Stage::Due(at) if at <= Instant::now() => Some(stage),
            Stage::Due(_) | Stage::Registered => None,
        }
    }
}

async fn register(
    client: &GenesysClient,
    url: &SecurityWebhookUrl,
    action: &str,
    mut stage: OwnedMutexGuard<Stage>,
    stop: &CancellationToken,
) {
    match api::register(client, action, &url.0, stop).await {
        Ok(()) => {
            info!(action, %url, "the security webhook is registered");
            *stage = Stage::Registered;
        }
        // The process ends, or the job's time was over before the request was sent.
        Err(error) if error.class == ErrorClass::Interrupted => {}
        Err(error) => {
            tell_failure(action, url, &error);
            *stage = Stage::Due(Instant::now() + BETWEEN_TRIES);
        }
    }
}

fn tell_failure(action: &str, url: &SecurityWebhookUrl, error: &ApiError) {
    let message = error.message.replace(url.0.as_str(), &url.to_string());
    warn!(action, %url, code = error.code, status = error.status, error = message, "the security webhook is not registered");
}

impl FromStr for SecurityWebhookUrl {
    type Err = ConfigError;

    fn from_str(written: &str) -> Result<Self, ConfigError> {
        let url = Url::parse(written.trim()).map_err(|error| ConfigError::new(format!("no URL: {error}")))?;
        if url.scheme() != "https" {
            return Err(ConfigError::new("write an https:// URL, because verdicts must not be readable on the way"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(ConfigError::new("no user and password in it: it could be read by everybody on this machine"));
        }
        Ok(Self(url))
    }
}

impl fmt::Display for SecurityWebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.origin().ascii_serialization())
    }
}

impl fmt::Debug for SecurityWebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}/…")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_is_taken() {
        for wrong in
            ["http://siem.example/in", "siem.example", "ftp://siem.example", "https://", "https://u:p@siem.example"]
        {
            assert!(wrong.parse::<SecurityWebhookUrl>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_may_be_secret_of_a_url_is_not_shown() {
        let url: SecurityWebhookUrl = "https://siem.example:8443/in/hush?key=hush".parse().unwrap();
        assert_eq!(url.to_string(), "https://siem.example:8443");
        assert!(!format!("{url:?}").contains("hush"));
    }
}
