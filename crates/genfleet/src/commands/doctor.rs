//! `genfleet doctor`: whether a worker with these settings could work here, and what to do where it could not.
//!
//! One module a subject; each gives [`Finding`]s. Looks at everything and changes nothing: nothing is declared that was
//! not there, no file is made, no job is taken. One token is asked for, as a worker would.

use std::{process::ExitCode, str::FromStr};

use genfleet_core::{
    audit::default_file,
    genesys::GenesysOptions,
    http::install_tls,
    job::Kind,
    options::{ConfigError, secret},
    telemetry::{self, LogFormat},
    webhook::WebhookOptions,
    worker::options::{QueueOptions, WorkerOptions},
};
use secrecy::SecretString;

use self::finding::{DoctorReport, Finding};
use super::{EXIT_FAILED, block_on};
use crate::{
    registry::{self, HandlerOptions},
    simulated::SimulateOptions,
};

mod admin_port;
mod audit_file;
mod bindings;
mod broker;
mod clock;
mod consumer_timeout;
mod delays;
mod disk;
mod exchanges;
mod feature_flags;
mod finding;
mod former;
mod genesys;
mod management;
mod memory;
mod nodes;
mod policies;
mod queues;
mod store;
mod token;
mod version;
mod webhook;

/// Whose settings are checked: those of a worker, by the same flags and variables.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Kinds of the worker that is checked [default: all]
    #[arg(value_name = "KIND")]
    kinds: Vec<Kind>,

    /// Tell it as JSON
    #[arg(long)]
    json: bool,

    /// The broker's management API, for what AMQP does not tell [default: port 15672 of the queue's host, with the same
    /// user]. With a password only by variable (GENFLEET_MANAGEMENT_URL) or file (GENFLEET_MANAGEMENT_URL_FILE)
    #[expect(clippy::doc_markdown, reason = "this is what --help shows")]
    #[arg(long, env = "GENFLEET_MANAGEMENT_URL", hide_env_values = true, value_name = "URL", help_heading = "Queue")]
    management_url: Option<ManagementUrl>,

    #[command(flatten)]
    queue: QueueOptions,
    #[command(flatten)]
    worker: WorkerOptions,
    #[command(flatten)]
    genesys: GenesysOptions,
    #[command(flatten)]
    webhooks: WebhookOptions,
    #[command(flatten)]
    handlers: HandlerOptions,
    #[command(flatten)]
    simulate: SimulateOptions,
}

/// The address of the management API. May hold a password, so it is never shown.
#[derive(Clone, Debug)]
struct ManagementUrl(SecretString);

impl FromStr for ManagementUrl {
    type Err = std::convert::Infallible;

    fn from_str(written: &str) -> Result<Self, Self::Err> {
        Ok(Self(written.to_owned().into()))
    }
}

/// Examples at the end of `--help`.
pub(crate) const EXAMPLES: &str = "Examples:
  genfleet doctor                    in a worker's environment: everything
  genfleet doctor cdn.purge          as the purger would be started
  genfleet doctor --json | jq '.findings[] | select(.level != \"ok\")'";

/// Checks everything and says it; exit 1 where a check failed.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    // The findings say it all, and better.
    telemetry::start_logs(LogFormat::Text, "off")?;
    install_tls();
    let kinds = registry::chosen(&options.kinds)?;
    let report = DoctorReport::new(block_on(async { Ok(examine(options, &kinds).await) })?);
    report.print(options.json)?;
    Ok(if report.is_well() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILED) })
}

async fn examine(options: &Options, kinds: &[Kind]) -> Vec<Finding> {
    let (mut findings, genesys) = tokio::join!(queue(options, kinds), genesys::check(options, kinds));
    findings.extend(genesys);
    findings.extend(audit_file::check(&options.worker.audit, &default_file(binary(kinds))));
    findings.extend(webhook::check(&options.webhooks).await);
    findings.push(admin_port::check(options.worker.admin_addr.as_ref()).await);
    findings
}

async fn queue(options: &Options, kinds: &[Kind]) -> Vec<Finding> {
    match options.queue.url() {
        Err(error) => vec![Finding::failed("queue.url", "the queue's address", error, "set it as it says")],
        Ok(url) => match url.sqlite_file() {
            Some(file) => store::check(&file).await,
            None => broker::check(options, kinds).await,
        },
    }
}

impl Options {
    /// What is given, by flag, variable or file.
    fn management(&self) -> Result<Option<SecretString>, ConfigError> {
        let from_outside = secret("GENFLEET_MANAGEMENT_URL")?;
        Ok(self.management_url.clone().map(|url| url.0).or(from_outside))
    }
}

/// Which of our binaries would be started for these kinds.
fn binary(kinds: &[Kind]) -> &'static str {
    match kinds {
        [only] => only.worker(),
        _ => "genfleet",
    }
}
