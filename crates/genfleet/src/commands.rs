//! The subcommands, each in a module, and their common exit codes and error messages.

use genfleet_core::eprint_line;
use std::{future::Future, process::ExitCode};

use anyhow::Context;
use genfleet_core::{
    options::ConfigError,
    queue::{ACCESS_REFUSED, QueueError},
    telemetry::{self, LogFormat, http::install_tls},
};

use crate::terminal::{Paint, lines};

pub(crate) mod audit;
pub(crate) mod completions;
pub(crate) mod dead;
pub(crate) mod doctor;
pub(crate) mod enqueue;
pub(crate) mod events;
pub(crate) mod health;
pub(crate) mod load;
mod rate;
pub(crate) mod run;
pub(crate) mod schema;
pub(crate) mod show;
pub(crate) mod simulate;
pub(crate) mod status;
pub(crate) mod topology;
pub(crate) mod up;
pub(crate) mod validate;

/// Exit code if a check or an action failed.
pub(crate) const EXIT_FAILED: u8 = 1;
/// Exit code if jobs of a batch failed.
pub(crate) const EXIT_JOBS_FAILED: u8 = 2;
/// Exit code for invalid usage or settings.
pub(crate) const EXIT_USAGE: u8 = 64;

/// Prints the error of a command, with a hint if there is one. Returns 64 for invalid usage or settings, else 1.
pub(crate) fn report_failure(error: &anyhow::Error) -> ExitCode {
    let paint = Paint::stderr();
    eprint_line!("{} {}", paint.red("error:"), lines(&format!("{error:#}")));
    if let Some(hint) = hint(error) {
        eprint_line!("{} {hint}", paint.dim("hint:"));
    }
    let message = error.downcast_ref::<QueueError>();
    let usage = error.downcast_ref::<ConfigError>().is_some() || matches!(message, Some(QueueError::Configuration(_)));
    ExitCode::from(if usage { EXIT_USAGE } else { EXIT_FAILED })
}

fn hint(error: &anyhow::Error) -> Option<&'static str> {
    match error.downcast_ref()? {
        QueueError::Missing(_) => {
            Some("is --queue-prefix right? Workers, and genfleet enqueue, declare the queues when they start")
        }
        QueueError::Broker(reason) if reason.contains(ACCESS_REFUSED) => Some(
            "user and password have to be right, and a producer's user may only enqueue: status, events, show and dead need \
             the rights of genfleet-tool (deploy/rabbitmq/definitions.json); rabbitmqctl list_permissions shows what a user has",
        ),
        QueueError::Broker(_) => Some("is --queue-url right, and the broker up? genfleet doctor checks both"),
        QueueError::Store { .. } => Some("is the disk full, or does another process lock the file?"),
        QueueError::Closed | QueueError::Configuration(_) | QueueError::TooLarge { .. } => None,
    }
}

/// Prepares a command that uses a queue: the log shows errors only, and TLS is available.
fn start() -> anyhow::Result<()> {
    telemetry::start_logs(LogFormat::Text, "error")?;
    install_tls();
    Ok(())
}

/// Runs `task` on its own executor.
pub(crate) fn block_on<T>(task: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    genfleet_core::worker::block_on(task).context("no executor")?
}
