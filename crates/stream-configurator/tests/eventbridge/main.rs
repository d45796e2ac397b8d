//! The handler of `eventbridge.configure` with the real client, over HTTP, against the simulator.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers panic like the test itself")]

mod configuring;
mod creating;
mod waiting;

use std::{sync::Arc, time::Duration};

use clap::Parser;
use genfleet_core::{
    clock::SystemClock,
    error::JobError,
    genesys::{CredentialSource, Credentials, GenesysClient, GenesysOptions},
    handler::{JobContext, JobHandler, Progress, Services},
    job::{JobId, Kind},
    supervisor::Supervisor,
    telemetry::http::install_tls,
};
use genfleet_simulator::{FaultRule, Simulator, SimulatorOptions};
use genfleet_stream_configurator::{EventbridgeConfigurator, EventbridgeState};
use serde_json::{Value, json};

#[derive(Debug, Parser)]
struct Settings {
    #[command(flatten)]
    genesys: GenesysOptions,
}

/// A simulator, and a worker's handler that talks to it.
pub(crate) struct Setup {
    pub(crate) simulator: Simulator,
    services: Services,
    handler: EventbridgeConfigurator,
}

/// What one attempt came to.
#[derive(Debug)]
pub(crate) enum Ended {
    Done(Value),
    Again { state: EventbridgeState, again_in: Duration },
    Failed(Box<JobError>),
}

impl Setup {
    pub(crate) async fn new() -> Self {
        let unlimited = 60_000;
        let simulator = Simulator::start(SimulatorOptions {
            requests_per_minute: unlimited,
            client_requests_per_minute: unlimited,
            ..SimulatorOptions::default()
        });
        let simulator = simulator.await.unwrap();
        install_tls();
        let url = simulator.base_url();
        let options = Settings::parse_from(["it", "--genesys-base-url", &url, "--requests-per-minute", "60000"]);
        let credentials = CredentialSource::Given(Credentials { id: "client".into(), secret: "hush".into() });
        let rights = vec![(Kind::EventbridgeConfigure, EventbridgeConfigurator::rights())];
        let clock = Arc::new(SystemClock);
        let genesys = GenesysClient::with_credentials(&options.genesys, rights, clock.clone(), credentials).unwrap();
        tokio::spawn(genesys.clone().run());
        let services = Services { genesys, supervisor: Supervisor::new().0, clock };
        let handler = EventbridgeConfigurator::new((), &services).unwrap();
        Self { simulator, services, handler }
    }

    pub(crate) fn job(&self) -> JobContext {
        JobContext::first(JobId::parse("eventbridge-1").unwrap(), Kind::EventbridgeConfigure, &self.services)
    }

    /// One attempt.
    pub(crate) async fn attempt(&self, job: &JobContext, payload: &Value, state: EventbridgeState) -> Ended {
        let payload = serde_json::from_value(payload.clone()).unwrap();
        assert_eq!(EventbridgeConfigurator::validate(&payload, &()), []);
        match self.handler.handle(job, payload, state).await {
            Ok(Progress::Done(report)) => Ended::Done(serde_json::to_value(report).unwrap()),
            Ok(Progress::Begun { state, again_in }) => Ended::Again { state, again_in },
            Err(error) => Ended::Failed(Box::new(error)),
        }
    }

    /// As many attempts as it takes, without the waits between them.
    pub(crate) async fn run(&self, payload: &Value) -> Result<Value, JobError> {
        let mut state = EventbridgeState::default();
        loop {
            match self.attempt(&self.job(), payload, state).await {
                Ended::Done(report) => return Ok(report),
                Ended::Failed(error) => return Err(*error),
                Ended::Again { state: reached, .. } => state = reached,
            }
        }
    }

    pub(crate) fn set(&self, change: &Value) {
        self.simulator.set("integrations", change).unwrap();
    }

    pub(crate) fn fault(&self, rule: &str) {
        self.simulator.set_faults(vec![rule.parse::<FaultRule>().unwrap()]);
    }

    /// The integrations that there are.
    pub(crate) fn integrations(&self) -> Vec<Value> {
        self.simulator.state()["integrations"]["integrations"].as_array().unwrap().clone()
    }

    /// All requests, each with its method and the end of its path.
    pub(crate) fn calls(&self) -> Vec<String> {
        let ids: Vec<String> = self.integrations().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect();
        let requests = self.simulator.requests().into_iter().filter(|request| request.path.starts_with("/api/"));
        let shortened = requests.map(|request| {
            let mut path = request.path.replace("/api/v2/", "");
            for id in &ids {
                path = path.replace(id.as_str(), "{id}");
            }
            format!("{} {path}", request.method)
        });
        shortened.collect()
    }

    pub(crate) fn count(&self, call: &str) -> usize {
        self.calls().iter().filter(|one| *one == call).count()
    }
}

pub(crate) fn payload() -> Value {
    json!({
        "name": "crm",
        "awsAccountId": "123456789012",
        "awsAccountRegion": "eu-central-1",
        "eventSourceSuffix": "crm-events",
        "topics": ["v2.detail.events.conversation.{id}.user.end"],
    })
}

pub(crate) fn with(changes: &Value) -> Value {
    let mut payload = payload();
    for (name, value) in changes.as_object().unwrap() {
        payload[name] = value.clone();
    }
    payload
}

/// The properties that the payload asks for.
pub(crate) fn properties() -> Value {
    json!({
        "awsAccountId": "123456789012",
        "awsAccountRegion": "eu-central-1",
        "eventSourceSuffix": "crm-events",
        "eventFilter": ["v2.detail.events.conversation.{id}.user.end"],
    })
}
