//! `genfleet`: the operator's tool, and all workers in one process (SPEC 11).

#![deny(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "they panic where nobody reads any more: terminal::print_line, terminal::print_escaped and eprint_line! do not"
)]

mod commands;
mod registry;
mod simulated;
mod terminal;

use std::{env, process::ExitCode};

use clap::{CommandFactory, Parser, Subcommand};
use genfleet_core::{eprint_line, worker};

/// Runs Genesys Cloud jobs, and shows an operator their state.
#[derive(Debug, Parser)]
#[command(name = "genfleet", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a batch of jobs from JSON lines to its end, on the embedded queue
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
    /// Show the events of finished jobs
    #[command(after_help = commands::events::EXAMPLES)]
    Events(commands::events::Options),
    /// Verify audit files, and show the facts of a job
    Audit(commands::audit::Options),
    /// Print the contract: schemas of jobs, reports and events, and the message flow
    Schema(commands::schema::Options),
    /// Show everything that is known about a job
    #[command(after_help = commands::show::EXAMPLES)]
    Show(commands::show::Options),
    /// Show queues, running jobs, pauses with their causes, and live processes
    #[command(after_help = commands::status::EXAMPLES)]
    Status(commands::status::Options),
    /// List, show, redrive and discard dead letters
    #[command(subcommand, after_help = commands::dead::EXAMPLES)]
    Dead(Box<commands::dead::Command>),
    /// Check broker, credentials, files and settings before a worker starts, with remedies
    #[command(after_help = commands::doctor::EXAMPLES)]
    Doctor(Box<commands::doctor::Options>),
    /// Create many jobs at a rate or all at once, and measure their results
    #[command(after_help = commands::load::EXAMPLES)]
    Load(commands::load::Options),
    /// Print every exchange, queue and binding as JSON
    Topology(commands::topology::Options),
    /// Ask a process for its health: exit 0 if it is healthy, 1 if not
    Health(commands::health::Options),
    /// Serve a simulation of the Genesys Cloud API
    Simulate(commands::simulate::Options),
    /// Print a completion script for a shell
    #[command(after_help = commands::completions::EXAMPLES)]
    Completions(commands::completions::Options),
}

fn main() -> ExitCode {
    let misspelt = worker::misspelt_variables(&Cli::command());
    let cli: Cli = match worker::parse(Cli::command(), env::args_os()) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    if !matches!(cli.command, Command::Up(_)) {
        for warning in &misspelt {
            eprint_line!("warning: {warning}");
        }
    }
    let done = match cli.command {
        Command::Run(options) => commands::run::run(&options),
        Command::Up(options) => commands::up::run(*options, misspelt),
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
        Command::Completions(options) => commands::completions::run(&options, Cli::command()),
    };
    done.unwrap_or_else(|error| commands::report_failure(&error))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use clap::ArgAction;

    use super::*;

    /// Returns the settings of running processes, without flags that only select an action or an output (SPEC 10).
    fn settings() -> Vec<(String, clap::Arg)> {
        const MODES: [&str; 4] = ["help", "version", "check-config", "json"];
        let tool = Cli::command();
        let running = ["run", "up", "simulate"].map(|name| tool.find_subcommand(name).unwrap());
        let all = running.into_iter().flat_map(clap::Command::get_arguments);
        let named = all.filter_map(|argument| Some((argument.get_long()?.to_owned(), argument.clone())));
        named.filter(|(flag, _)| !MODES.contains(&flag.as_str())).collect()
    }

    fn variable(flag: &str) -> String {
        if flag == "webhook-secret" {
            // The variable with this name contains the shared secret.
            return "GENFLEET_WEBHOOK_SECRETS".to_owned();
        }
        let name = flag.replace('-', "_").to_uppercase();
        if name.starts_with("GENESYS_") { name } else { format!("GENFLEET_{name}") }
    }

    #[test]
    fn every_setting_has_the_variable_of_its_name() {
        for (flag, argument) in settings() {
            assert_eq!(argument.get_env(), Some(OsStr::new(&variable(&flag))), "--{flag}");
        }
        let mut tool = Cli::command();
        tool.build();
        let mut commands = vec![&tool];
        while let Some(command) = commands.pop() {
            commands.extend(command.get_subcommands());
            for argument in command.get_arguments() {
                let (Some(flag), Some(named)) = (argument.get_long(), argument.get_env()) else { continue };
                assert_eq!(named, OsStr::new(&variable(flag)), "{}: --{flag}", command.get_name());
            }
        }
    }

    #[test]
    fn a_flag_that_is_a_variable_is_set_by_any_word_for_yes() {
        let flags = settings().into_iter().filter(|(_, argument)| matches!(argument.get_action(), ArgAction::SetTrue));
        let mut seen = 0;
        for (flag, argument) in flags {
            let parser = argument.get_value_parser();
            let parse = |word: &str| {
                let set = clap::Command::new("a").arg(argument.clone().action(ArgAction::Set).env(None::<&str>));
                let matches = set.try_get_matches_from(["a", &format!("--{flag}={word}")]).ok()?;
                matches.get_one::<bool>(argument.get_id().as_str()).copied()
            };
            for (words, meant) in [(["1", "yes", "on", "true"], true), (["0", "no", "off", "false"], false)] {
                for word in words {
                    assert_eq!(parse(word), Some(meant), "--{flag} as {word}, {parser:?}");
                }
            }
            seen += 1;
        }
        assert!(seen > 0, "--simulate is one");
    }

    /// Names must differ enough that a setting of one worker is not mistaken for a misspelt one of another.
    #[test]
    fn no_two_settings_are_spelled_almost_alike() {
        let all: Vec<String> = settings().iter().map(|(flag, _)| variable(flag)).collect();
        for (index, one) in all.iter().enumerate() {
            for other in all[index + 1..].iter().filter(|other| *other != one) {
                assert!(strsim::osa_distance(one, other) > 2, "{one} and {other}");
            }
        }
    }

    #[test]
    fn no_two_options_of_the_flattened_workers_clash() {
        Cli::command().debug_assert();
    }
}
