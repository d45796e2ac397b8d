//! `genfleet completions`: prints a script with which a shell completes commands and settings.

use std::process::ExitCode;

use clap::Command;
use clap_complete::{Shell, generate};

use crate::terminal;

/// The shell.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// The shell for the script
    shell: Shell,
}

/// Examples at the end of `--help`.
pub(crate) const EXAMPLES: &str = "Examples:
  genfleet completions bash > /etc/bash_completion.d/genfleet
  genfleet completions zsh > \"${fpath[1]}/_genfleet\"
  genfleet completions fish > ~/.config/fish/completions/genfleet.fish";

/// Prints the script.
pub(crate) fn run(options: &Options, mut tool: Command) -> anyhow::Result<ExitCode> {
    let (name, mut script) = (tool.get_name().to_owned(), Vec::new());
    generate(options.shell, &mut tool, name, &mut script);
    terminal::print_escaped(script)?;
    Ok(ExitCode::SUCCESS)
}
