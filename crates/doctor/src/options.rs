//! The settings that are checked: the flags and variables of a worker.

use genfleet_core::{
    genesys::{GenesysOptions, Rights},
    job::Kind,
    options::{ConfigError, secret},
    webhook::WebhookOptions,
    worker::{QueueOptions, WorkerOptions},
};
use secrecy::SecretString;

/// A kind of the worker, and what it needs.
#[derive(Clone, Copy, Debug)]
pub struct KindNeeds {
    /// The kind.
    pub kind: Kind,
    /// Rights of the OAuth client.
    pub rights: Rights,
    /// Default number of jobs in flight.
    pub concurrency: usize,
    /// The kind calls Genesys Cloud with these settings.
    pub calls_genesys: bool,
}

/// The settings that are checked.
#[derive(Clone, Debug, clap::Args)]
pub struct DoctorOptions {
    /// The broker's management API, for what AMQP does not show [default: port 15672 of the queue's host, with the same
    /// user]. With a password only by variable (GENFLEET_MANAGEMENT_URL) or file (GENFLEET_MANAGEMENT_URL_FILE)
    #[expect(clippy::doc_markdown, reason = "this is what --help shows")]
    #[arg(long, env = "GENFLEET_MANAGEMENT_URL", hide_env_values = true, value_name = "URL", help_heading = "Queue")]
    pub(crate) management_url: Option<SecretString>,

    #[command(flatten)]
    pub(crate) queue: QueueOptions,
    /// The settings of the worker.
    #[command(flatten)]
    pub worker: WorkerOptions,
    #[command(flatten)]
    pub(crate) genesys: GenesysOptions,
    #[command(flatten)]
    pub(crate) webhooks: WebhookOptions,
}

impl DoctorOptions {
    /// The configured address, from the flag, the variable or the file.
    pub(crate) fn management(&self) -> Result<Option<SecretString>, ConfigError> {
        let from_outside = secret("GENFLEET_MANAGEMENT_URL")?;
        Ok(self.management_url.clone().or(from_outside))
    }
}
