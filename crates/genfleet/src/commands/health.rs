//! `genfleet health`: whether a process is well, for containers that hold no other program to ask with.

use std::{process::ExitCode, time::Duration};

use anyhow::Context;
use genfleet_core::{
    admin::{self, AdminAddr},
    options::{ConfigError, positive_duration},
};
use genfleet_doctor::{get, reachable};

use super::EXIT_FAILED;
use crate::terminal;

/// Whom to ask, and what.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// /readyz or /livez of the process at --admin-addr, or any http:// URL
    #[arg(default_value = "/readyz", value_name = "PATH|URL")]
    what: String,

    /// The process's admin port; 0.0.0.0 is this machine
    #[arg(long, env = "GENFLEET_ADMIN_ADDR", default_value = admin::DEFAULT, value_name = "HOST:PORT")]
    admin_addr: AdminAddr,

    /// How long it may take to answer
    #[arg(long, default_value = "5s", value_parser = positive_duration, value_name = "DURATION")]
    timeout: Duration,

    /// The output is JSON in any case
    #[arg(long)]
    json: bool,
}

/// Prints the answer; exit 1 where there is none, or another than 2xx.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let (host, path) = options.asked()?;
    let (status, body) =
        get(&host, &path, options.timeout).with_context(|| format!("no answer from http://{host}{path}"))?;
    terminal::say(body.trim_end())?;
    Ok(if (200..300).contains(&status) { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILED) })
}

impl Options {
    /// Host with port, and path.
    fn asked(&self) -> Result<(String, String), ConfigError> {
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
