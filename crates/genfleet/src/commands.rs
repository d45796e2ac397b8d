//! One module a subcommand, and what they share: how they end.

use std::{future::Future, process::ExitCode};

use anyhow::Context;
use genfleet_core::options::ConfigError;

pub mod enqueue;
pub mod events;
pub mod health;
pub mod run;
pub mod simulate;
pub mod topology;
pub mod up;
pub mod validate;

/// A check or an action failed.
pub const EXIT_FAILED: u8 = 1;
/// Jobs of a batch failed.
pub const EXIT_JOBS_FAILED: u8 = 2;
/// Bad usage or configuration.
pub const EXIT_USAGE: u8 = 64;

/// Says why a command ended; a matter of usage exits 64, everything else 1.
pub fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    let usage = error.downcast_ref::<ConfigError>().is_some();
    ExitCode::from(if usage { EXIT_USAGE } else { EXIT_FAILED })
}

/// Runs `task` on an executor of its own.
pub fn block_on<T>(task: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let executor = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    executor.context("no executor")?.block_on(task)
}
