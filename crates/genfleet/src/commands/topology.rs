//! `genfleet topology`: every exchange, queue and binding, as JSON.

use std::process::ExitCode;

use genfleet_core::{
    options::ConfigError,
    queue::topology::{check_prefix, topology},
};

use crate::terminal;

/// Whose topology.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// First part of the name of every exchange and queue
    #[arg(long, env = "GENFLEET_QUEUE_PREFIX", default_value = "genfleet", value_name = "NAME")]
    queue_prefix: String,

    /// It is JSON in any case; for symmetry with the other commands
    #[arg(long)]
    json: bool,
}

/// Prints it.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    check_prefix(&options.queue_prefix).map_err(|error| ConfigError::new(error.to_string()))?;
    terminal::say(serde_json::to_string_pretty(&topology(&options.queue_prefix))?)?;
    Ok(ExitCode::SUCCESS)
}
