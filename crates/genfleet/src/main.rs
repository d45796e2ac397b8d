//! `genfleet`: the operator's tool, and all workers in one process (SPEC 11).

mod commands;
mod fleet;
mod simulated;

use std::{env, process::ExitCode};

use clap::{CommandFactory, Parser, Subcommand};
use genfleet_core::worker::command;

/// Works Genesys Cloud jobs, and shows an operator what they do.
#[derive(Debug, Parser)]
#[command(name = "genfleet", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one batch of jobs from JSON lines to its end, on the embedded queue
    Run(Box<commands::run::Options>),
    /// Run all workers, or those of the kinds named, in one process
    Up(Box<commands::up::Options>),
    /// Put one job on the queue
    Enqueue(commands::enqueue::Options),
    /// Check jobs in JSON lines without running them
    Validate(commands::validate::Options),
    /// Show the events of jobs that ended
    Events(commands::events::Options),
    /// Print every exchange, queue and binding as JSON
    Topology(commands::topology::Options),
    /// Ask a process whether it is well: exit 0 where it is, 1 where not
    Health(commands::health::Options),
    /// Serve a stand-in for the Genesys Cloud API
    Simulate(commands::simulate::Options),
}

fn main() -> ExitCode {
    let cli: Cli = match command::parse(Cli::command(), env::args_os()) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let done = match cli.command {
        Command::Run(options) => commands::run::run(&options),
        Command::Up(options) => commands::up::run(*options),
        Command::Enqueue(options) => commands::enqueue::run(&options),
        Command::Validate(options) => commands::validate::run(&options),
        Command::Events(options) => commands::events::run(&options),
        Command::Topology(options) => commands::topology::run(&options),
        Command::Health(options) => commands::health::run(&options),
        Command::Simulate(options) => commands::simulate::run(&options),
    };
    done.unwrap_or_else(|error| commands::failed(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_options_of_the_flattened_workers_clash() {
        Cli::command().debug_assert();
    }
}
