//! `genfleet dead`: what was given up, and what is to become of it.

use genfleet_core::tell;
use std::process::ExitCode;

use genfleet_core::{
    http::install_tls,
    queue::{QueueError, QueueInspector, dead_letters::DeadLetterQueue},
    telemetry::{self, LogFormat},
};

mod act;
pub(crate) mod filter;
mod groups;
mod list;
mod pace;
pub(crate) mod show;
mod tally;
mod urls;

/// What is to be done with them.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Count them, grouped by what went wrong
    List(list::Options),
    /// Show them whole: error, attempts, headers, payload
    Show(show::Options),
    /// Run them again, one generation on
    Redrive(act::Redrive),
    /// Throw them away
    Discard(act::Discard),
}

/// Examples at the end of `--help`.
pub(crate) const EXAMPLES: &str = "Examples:
  genfleet dead list                                       what was given up, and why
  genfleet dead show 3f2a9c0d                              letters of a fingerprint, or of a job
  genfleet dead redrive --fingerprint 3f2a9c0d --limit 1   try one of them
  genfleet dead redrive --reason attempts_exhausted --rate 20
  genfleet dead discard --kind cdn.purge --older-than 30d --dry-run
  genfleet dead list --unrouted                            what matched no queue (RabbitMQ)";

/// Runs one of them.
pub(crate) fn run(command: &Command) -> anyhow::Result<ExitCode> {
    telemetry::start_logs(LogFormat::Text, "error")?;
    install_tls();
    match command {
        Command::List(options) => list::run(options),
        Command::Show(options) => show::run(options),
        Command::Redrive(options) => act::redrive(options),
        Command::Discard(options) => act::discard(options),
    }
}

/// Those of `wanted` that there are; what the broker should have and has not is told. An error where it has none.
pub(crate) async fn there(
    shelves: &QueueInspector,
    wanted: impl IntoIterator<Item = DeadLetterQueue>,
) -> Result<Vec<DeadLetterQueue>, QueueError> {
    let (mut there, mut missing) = (Vec::new(), Vec::new());
    for shelf in wanted.into_iter().filter(|shelf| shelves.has(*shelf)) {
        match shelves.count(shelf).await {
            Ok(_) => there.push(shelf),
            Err(QueueError::Missing(told)) => missing.push(told),
            Err(error) => return Err(error),
        }
    }
    match missing.first() {
        Some(told) if there.is_empty() => return Err(QueueError::Missing(told.clone())),
        _ => missing.iter().for_each(|told| tell!("warning: {}", crate::terminal::line(told))),
    }
    Ok(there)
}
