//! How many requests a simulator has received, by its own count.

use std::time::Duration;

use anyhow::Context;
use genfleet_core::options::ConfigError;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(10);

/// So many until now; `None` where no simulator is named.
pub(super) async fn received(url: Option<&str>) -> anyhow::Result<Option<u64>> {
    let Some(url) = url else { return Ok(None) };
    let host = url.strip_prefix("http://").map(|rest| rest.trim_end_matches('/').to_owned());
    let host = host.ok_or_else(|| ConfigError::new(format!("--sim-url {url:?}: write http://HOST:PORT")))?;
    let asked = tokio::task::spawn_blocking(move || genfleet_doctor::get(&host, "/_sim/stats", PATIENCE)).await?;
    let (_, body) = asked.with_context(|| format!("no simulator answers at {url}"))?;
    let stats: Value = serde_json::from_str(&body).with_context(|| format!("what answers at {url} is no simulator"))?;
    Ok(stats["received"].as_u64())
}
