//! Prometheus, if it is installed.

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

use crate::{
    Launch, Process, admin::http_client, eventually, node::fresh_directory, process::OwnDirectory, seconds, skip,
};

/// A running Prometheus with its own folder. When it is dropped, it is killed and the folder is removed.
pub struct Prometheus {
    process: Process,
    _directory: OwnDirectory,
    address: String,
    client: reqwest::Client,
}

impl Prometheus {
    /// Returns true if Prometheus and its `promtool` are installed. If not, the test is reported as skipped and must
    /// return.
    pub fn available() -> bool {
        let found = Command::new("promtool").arg("--version").output().is_ok_and(|output| output.status.success());
        if !found {
            skip("it needs prometheus and promtool, and they are not installed here");
        }
        found
    }

    /// Runs `promtool` with these arguments, `input` on its standard input.
    pub fn promtool(arguments: &[&str], input: &str) -> Output {
        let mut command = Command::new("promtool");
        let command = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("promtool is installed");
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(input.as_bytes()).expect("promtool reads its input");
        drop(stdin);
        child.wait_with_output().expect("promtool ends")
    }

    /// Starts Prometheus with this configuration, and waits until it answers.
    pub async fn start(configuration: &str) -> Self {
        let directory = OwnDirectory(fresh_directory("prometheus"));
        std::fs::write(directory.0.join("prometheus.yml"), configuration).expect("the folder is writable");
        let process = Launch::program("prometheus")
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data", "--web.listen-address=127.0.0.1:0"])
            .directory(&directory.0)
            .start();
        let address = eventually(seconds(60), "Prometheus listens", async || {
            assert!(process.is_running(), "Prometheus has ended");
            process.stderr().lines().find_map(listening)
        });
        let address = address.await;
        let prometheus = Self { process, _directory: directory, address, client: http_client() };
        eventually(seconds(60), "Prometheus is ready", async || {
            let ready = prometheus.client.get(format!("http://{}/-/ready", prometheus.address)).send().await;
            ready.is_ok_and(|ready| ready.status().is_success())
        })
        .await;
        prometheus
    }

    /// Returns the series of an instant query, or the reason why there are none.
    pub async fn query(&self, promql: &str) -> Result<Vec<Value>, String> {
        let answer = self.api("query", &[("query", promql)]).await;
        match &answer["data"]["result"] {
            Value::Array(series) => Ok(series.clone()),
            _ => Err(answer["error"].to_string()),
        }
    }

    /// Returns the groups of rules with the states of their rules.
    pub async fn rules(&self) -> Vec<Value> {
        let answer = self.api("rules", &[]).await;
        answer["data"]["groups"].as_array().expect("a list of groups").clone()
    }

    async fn api(&self, what: &str, parameters: &[(&str, &str)]) -> Value {
        let url = format!("http://{}/api/v1/{what}", self.address);
        let url = reqwest::Url::parse_with_params(&url, parameters).expect("an address");
        let answer =
            self.client.get(url).send().await.unwrap_or_else(|error| panic!("{}: {error}", self.process.name()));
        answer.json().await.unwrap_or_else(|error| panic!("Prometheus says no JSON: {error}"))
    }
}

/// `… msg="Listening on" address=127.0.0.1:39795`
fn listening(line: &str) -> Option<String> {
    let (_, address) = line.split_once("Listening on")?.1.split_once("address=")?;
    address.split_whitespace().next().map(str::to_owned)
}
