//! `genfleet dead`: lists, shows, redrives and discards dead letters.

use std::process::ExitCode;

use super::start;

mod act;
pub(crate) mod filter;
mod groups;
mod list;
mod pace;
pub(crate) mod queues;
pub(crate) mod show;
mod tally;
mod urls;

/// The subcommands.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Count dead letters, grouped by cause
    List(list::Options),
    /// Show dead letters in full: error, attempts, headers, payload
    Show(show::Options),
    /// Run dead letters again, as the next generation
    Redrive(act::Redrive),
    /// Delete dead letters
    Discard(act::Common),
}

/// Examples at the end of `--help`.
pub(crate) const EXAMPLES: &str = "Examples:
  genfleet dead list                                       dead letters, grouped by cause
  genfleet dead show 3f2a9c0d                              dead letters of a fingerprint, or of a job
  genfleet dead redrive --fingerprint 3f2a9c0d --limit 1   try one of them
  genfleet dead redrive --reason attempts_exhausted --rate 20
  genfleet dead discard --kind cdn.purge --older-than 30d --dry-run
  genfleet dead list --unrouted                            messages that matched no queue (RabbitMQ)";

/// Runs a subcommand.
pub(crate) fn run(command: &Command) -> anyhow::Result<ExitCode> {
    start()?;
    match command {
        Command::List(options) => list::run(options),
        Command::Show(options) => show::run(options),
        Command::Redrive(options) => act::redrive(options),
        Command::Discard(options) => act::discard(options),
    }
}
