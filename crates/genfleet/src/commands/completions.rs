//! `genfleet completions`: what a shell needs to complete commands and settings.

use std::{io, process::ExitCode};

use clap::Command;
use clap_complete::{Shell, generate};

/// Which shell's.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The shell that is to complete
    shell: Shell,
}

/// Examples at the end of `--help`.
pub const EXAMPLES: &str = "Examples:
  genfleet completions bash > /etc/bash_completion.d/genfleet
  genfleet completions zsh > \"${fpath[1]}/_genfleet\"
  genfleet completions fish > ~/.config/fish/completions/genfleet.fish";

/// Prints them.
pub fn run(options: &Options, mut tool: Command) -> ExitCode {
    let name = tool.get_name().to_owned();
    generate(options.shell, &mut tool, name, &mut io::stdout());
    ExitCode::SUCCESS
}
