//! The admin port of a process: its address, its metrics and its readiness.

use std::{sync::OnceLock, time::Duration};

use serde_json::Value;
use tokio::sync::OnceCell;

use crate::{Metrics, Process, eventually, seconds};

/// Values that are determined once for each process.
#[derive(Default)]
pub(crate) struct Admin {
    address: OnceCell<String>,
    client: OnceLock<reqwest::Client>,
}

impl Process {
    /// The address of its admin port (started with `--admin-addr 127.0.0.1:0`, it logs the address).
    pub async fn admin_addr(&self, timeout: Duration) -> String {
        if let Some(address) = self.admin.address.get() {
            return address.clone();
        }
        let what = format!("{} says where its admin port listens", self.name());
        let found = eventually(timeout, what, async || {
            let found = self.logs().iter().find_map(admin_addr);
            assert!(found.is_some() || self.is_running(), "{} has ended", self.name());
            found
        });
        self.admin.address.get_or_init(|| found).await.clone()
    }

    /// Scrapes `/metrics`.
    pub async fn metrics(&self) -> Metrics {
        let (status, text) = self.get("/metrics").await.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(status, 200, "/metrics of {}: {text}", self.name());
        Metrics::parse(&text)
    }

    /// Returns status and reasons of `/readyz`.
    pub async fn ready(&self) -> (u16, Value) {
        let (status, text) = self.get("/readyz").await.unwrap_or_else(|error| panic!("{error}"));
        let reasons = serde_json::from_str(&text);
        (status, reasons.unwrap_or_else(|error| panic!("/readyz is not JSON: {error}: {text}")))
    }

    /// Waits until `/readyz` answers 200.
    pub async fn wait_ready(&self, timeout: Duration) {
        self.admin_addr(timeout).await;
        eventually(timeout, format!("{} is ready", self.name()), async || {
            assert!(self.is_running(), "{} has ended", self.name());
            match self.ready().await {
                (200, _) => Ok(()),
                (status, reasons) => Err(format!("{status} {reasons}")),
            }
        })
        .await;
    }

    /// Requests any path of the admin port; returns status and body.
    pub async fn get(&self, path: &str) -> anyhow::Result<(u16, String)> {
        let address = self.admin_addr(seconds(30)).await;
        let client = self.admin.client.get_or_init(http_client);
        let answer = client.get(format!("http://{address}{path}")).send().await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }
}

/// Reads the address from the log line about the admin port. Fields are at the top level or under `fields`.
fn admin_addr(line: &Value) -> Option<String> {
    let fields = line.get("fields").unwrap_or(line);
    let said = fields["message"] == "admin port listening";
    said.then(|| fields["addr"].as_str().map(str::to_owned))?
}

pub(crate) fn http_client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder().no_proxy().timeout(seconds(20));
    builder.build().expect("an HTTP client")
}
