//! `genfleet`: the operator's tool, and all workers in one process (SPEC 11).

mod commands;
mod fleet;
mod simulated;
mod terminal;

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
    #[command(after_help = commands::run::EXAMPLES)]
    Run(Box<commands::run::Options>),
    /// Run all workers, or those of the kinds named, in one process
    Up(Box<commands::up::Options>),
    /// Put one job on the queue
    #[command(after_help = commands::enqueue::EXAMPLES)]
    Enqueue(commands::enqueue::Options),
    /// Check jobs in JSON lines without running them
    #[command(after_help = commands::validate::EXAMPLES)]
    Validate(commands::validate::Options),
    /// Show the events of jobs that ended
    #[command(after_help = commands::events::EXAMPLES)]
    Events(commands::events::Options),
    /// Read audit files back
    Audit(commands::audit::Options),
    /// Print the contract: schemas of jobs, reports and events, and what goes where
    Schema(commands::schema::Options),
    /// Show all that is known of one job
    #[command(after_help = commands::show::EXAMPLES)]
    Show(commands::show::Options),
    /// Show what waits, what runs, what is shut and why, and who is alive
    #[command(after_help = commands::status::EXAMPLES)]
    Status(commands::status::Options),
    /// Look at what was given up, run it again, throw it away
    #[command(subcommand, after_help = commands::dead::EXAMPLES)]
    Dead(Box<commands::dead::Command>),
    /// Check broker, credentials, files and settings before a worker does, and say what to do
    #[command(after_help = commands::doctor::EXAMPLES)]
    Doctor(Box<commands::doctor::Options>),
    /// Make many jobs at a rate or all at once, and measure what becomes of them
    #[command(after_help = commands::load::EXAMPLES)]
    Load(commands::load::Options),
    /// Print every exchange, queue and binding as JSON
    Topology(commands::topology::Options),
    /// Ask a process whether it is well: exit 0 where it is, 1 where not
    Health(commands::health::Options),
    /// Serve a stand-in for the Genesys Cloud API
    Simulate(commands::simulate::Options),
    /// Print what a shell needs to complete commands and settings
    #[command(after_help = commands::completions::EXAMPLES)]
    Completions(commands::completions::Options),
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
        Command::Audit(options) => commands::audit::run(&options),
        Command::Schema(options) => commands::schema::run(&options),
        Command::Show(options) => commands::show::run(&options),
        Command::Status(options) => commands::status::run(&options),
        Command::Dead(command) => commands::dead::run(&command),
        Command::Doctor(options) => commands::doctor::run(&options),
        Command::Load(options) => commands::load::run(&options),
        Command::Topology(options) => commands::topology::run(&options),
        Command::Health(options) => commands::health::run(&options),
        Command::Simulate(options) => commands::simulate::run(&options),
        Command::Completions(options) => Ok(commands::completions::run(&options, Cli::command())),
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
