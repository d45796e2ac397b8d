//! The number of requests that a simulator has received.

use std::time::Duration;

use anyhow::Context;
use genfleet_core::options::ConfigError;
use serde_json::Value;

const TIMEOUT: Duration = Duration::from_secs(10);

/// Reads the number from the simulator; `None` if no simulator is given.
pub(super) async fn read_received(url: Option<&str>) -> anyhow::Result<Option<u64>> {
    let Some(url) = url else { return Ok(None) };
    let host = url.strip_prefix("http://").map(|rest| rest.trim_end_matches('/').to_owned());
    let host = host.ok_or_else(|| ConfigError::new(format!("--sim-url {url:?}: write http://HOST:PORT")))?;
    let answer = tokio::task::spawn_blocking(move || genfleet_doctor::get(&host, "/_sim/stats", TIMEOUT)).await?;
    let (_, body) = answer.with_context(|| format!("no simulator answers at {url}"))?;
    let stats: Value =
        serde_json::from_str(&body).with_context(|| format!("the program that answers at {url} is not a simulator"))?;
    Ok(stats["received"].as_u64())
}
