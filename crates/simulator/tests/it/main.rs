//! The simulator as its clients see it: a real HTTP client against a real port.

#![expect(clippy::unwrap_used, reason = "clippy allows it in tests, but not in what tests share")]

mod control;
mod event_streams;
mod fault_rules;
mod faults;
mod files;
mod integrations;
mod limits;
mod media;
mod network;
mod purge;
mod token;
mod web_messaging;

use std::sync::Once;

use genfleet_simulator::{FaultRule, Simulator, SimulatorOptions};
use reqwest::{RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};

pub(crate) const PURGE: &str = "/api/v2/external/cdn/purge";

/// A running simulator and a client with a token.
pub(crate) struct Setup {
    pub(crate) simulator: Simulator,
    pub(crate) http: reqwest::Client,
    pub(crate) token: String,
}

impl Setup {
    pub(crate) async fn new() -> Self {
        Self::with(SimulatorOptions::default()).await
    }

    pub(crate) async fn with_faults(rules: &[&str]) -> Self {
        let faults = rules.iter().map(|rule| rule.parse::<FaultRule>().unwrap()).collect();
        Self::with(SimulatorOptions { faults, ..SimulatorOptions::default() }).await
    }

    pub(crate) async fn with(options: SimulatorOptions) -> Self {
        static PROVIDER: Once = Once::new();
        PROVIDER.call_once(|| {
            rustls::crypto::ring::default_provider().install_default().unwrap();
        });
        let simulator = Simulator::start(options).await.unwrap();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut setup = Self { simulator, http, token: String::new() };
        setup.token = setup.new_token().await;
        setup
    }

    pub(crate) async fn new_token(&self) -> String {
        let answer: Value = self.ask_token("grant_type=client_credentials").send().await.unwrap().json().await.unwrap();
        answer["access_token"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn ask_token(&self, form: &str) -> RequestBuilder {
        let request = self.post("/oauth/token").basic_auth("client", Some("secret")).body(form.to_owned());
        request.header("content-type", "application/x-www-form-urlencoded")
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.simulator.base_url())
    }

    pub(crate) fn post(&self, path: &str) -> RequestBuilder {
        self.http.post(self.url(path))
    }

    pub(crate) fn purge(&self, paths: &[&str]) -> RequestBuilder {
        self.post(PURGE).bearer_auth(&self.token).json(&json!({"paths": paths}))
    }

    pub(crate) async fn purged(&self, paths: &[&str]) -> Response {
        self.purge(paths).send().await.unwrap()
    }

    pub(crate) fn times_purged(&self, path: &str) -> u64 {
        self.simulator.purge_counts().get(path).copied().unwrap_or(0)
    }
}

/// The status and the body, which has to be JSON.
pub(crate) async fn read_answer(response: Response) -> (StatusCode, Value) {
    (response.status(), response.json().await.unwrap())
}

pub(crate) fn header(response: &Response, name: &str) -> String {
    response.headers().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
}

/// Waits on what a running simulator shows; a test that waits for ever is ended by its runner.
pub(crate) async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}
