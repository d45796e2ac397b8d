//! `genfleet completions`: what a shell needs to complete commands and settings.

use std::process::ExitCode;

use clap::Command;
use clap_complete::{Shell, generate};

use crate::terminal;

/// Which shell's.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// The shell that is to complete
    shell: Shell,
}

/// Examples at the end of `--help`.
pub(crate) const EXAMPLES: &str = "Examples:
  genfleet completions bash > /etc/bash_completion.d/genfleet
  genfleet completions zsh > \"${fpath[1]}/_genfleet\"
  genfleet completions fish > ~/.config/fish/completions/genfleet.fish";

/// Prints them.
pub(crate) fn run(options: &Options, mut tool: Command) -> anyhow::Result<ExitCode> {
    let (name, mut script) = (tool.get_name().to_owned(), Vec::new());
    generate(options.shell, &mut tool, name, &mut script);
    terminal::put(script)?;
    Ok(ExitCode::SUCCESS)
}
