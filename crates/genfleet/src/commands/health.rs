//! `genfleet health`: asks a process for its health, for containers without another HTTP client.

use std::{process::ExitCode, time::Duration};

use anyhow::Context;
use genfleet_core::{
    admin::AdminAddr,
    options::{ConfigError, positive_duration},
};
use genfleet_doctor::{get, reachable};

use super::EXIT_FAILED;
use crate::terminal;

/// The process and the path.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// /readyz or /livez of the process at --admin-addr, or any http:// URL
    #[arg(default_value = "/readyz", value_name = "PATH|URL")]
    what: String,

    /// The process's admin port; 0.0.0.0 means this machine
    #[arg(long, env = "GENFLEET_ADMIN_ADDR", default_value_t, value_name = "HOST:PORT")]
    admin_addr: AdminAddr,

    /// Time that the process has to answer
    #[arg(long, default_value = "5s", value_parser = positive_duration, value_name = "DURATION")]
    timeout: Duration,

    /// Print JSON; the output is JSON in any case
    #[arg(long)]
    json: bool,
}

/// Prints the answer; exit code 1 if there is none, or if its status is not 2xx.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let (host, path) = options.target()?;
    let (status, body) =
        get(&host, &path, options.timeout).with_context(|| format!("no answer from http://{host}{path}"))?;
    terminal::print_line(body.trim_end())?;
    Ok(if (200..300).contains(&status) { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILED) })
}

impl Options {
    /// Returns host with port, and path.
    fn target(&self) -> Result<(String, String), ConfigError> {
        if self.what.starts_with('/') {
            return Ok((reachable(&self.admin_addr), self.what.clone()));
        }
        let Some(rest) = self.what.strip_prefix("http://") else {
            let message =
                format!("{:?}: write a path, such as /readyz or /livez, or a URL that begins with http://", self.what);
            return Err(ConfigError::new(message));
        };
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let host = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
        Ok((host, if path.is_empty() { "/".to_owned() } else { path.to_owned() }))
    }
}
