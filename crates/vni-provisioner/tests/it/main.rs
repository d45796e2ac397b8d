//! The handler with the real client, over HTTP, against the simulator.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's helpers panic like the test itself")]

mod creation;
mod gateway;
mod inventory;
mod routing;
mod turns;

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

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
use genfleet_vni_provisioner::{Payload, VniOptions, VniProvisioner};
use serde_json::{Value, json};
use tokio::net::TcpListener;

const CONNECTIONS: &str = "/api/v2/organization/privateconnectivity/connections";
const TABLES: &str = "/api/v2/architect/networking/routingtables/";
const OURS: &str = "a1b2c3d4-e5f6-7890-abcd-ef1234567890";

#[derive(Debug, Parser)]
struct Settings {
    #[command(flatten)]
    genesys: GenesysOptions,
    #[command(flatten)]
    vni: VniOptions,
}

/// How one hand-over of a job ended.
enum Step {
    Done(Value),
    Begun(Value),
    Failed(Box<JobError>),
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done(message) => write!(f, "done: {message}"),
            Self::Begun(state) => write!(f, "begun: {state}"),
            Self::Failed(error) => write!(f, "failed: {error:?}"),
        }
    }
}

/// A simulator without limits, a gateway that answers, and a provisioner.
struct Rig {
    simulator: Simulator,
    gateway: TcpListener,
    services: Services,
    options: VniOptions,
    provisioner: VniProvisioner,
}

impl Rig {
    async fn new() -> Self {
        Self::with(&[]).await
    }

    async fn with(arguments: &[&str]) -> Self {
        let unlimited = 60_000;
        let options = SimulatorOptions {
            requests_per_minute: unlimited,
            client_requests_per_minute: unlimited,
            ..SimulatorOptions::default()
        };
        let simulator = Simulator::start(options).await.unwrap();
        install_tls();
        let url = simulator.base_url();
        let usual = ["vni", "--genesys-base-url", &url, "--requests-per-minute", "60000"];
        let fast = [["--routing-poll-interval", "5ms"], ["--gateway-allow", "127.0.0.0/8"]];
        let fast = fast.iter().filter(|[name, _]| !arguments.contains(name)).flatten();
        let settings = Settings::parse_from(usual.iter().chain(fast).chain(arguments));
        let credentials = Credentials { id: "client".into(), secret: "hush".into() };
        let scopes = vec![(Kind::VniProvision, VniProvisioner::SCOPES)];
        let (clock, source) = (Arc::new(SystemClock), CredentialSource::Given(credentials));
        let genesys = GenesysClient::with_credentials(&settings.genesys, scopes, clock.clone(), source).unwrap();
        tokio::spawn(genesys.clone().run());
        let services = Services { genesys, supervisor: Supervisor::new().0, clock };
        let options = settings.vni;
        let provisioner = VniProvisioner::new(options.clone(), &services).unwrap();
        Self { simulator, gateway: TcpListener::bind("127.0.0.1:0").await.unwrap(), services, options, provisioner }
    }

    /// The process dies, and another takes its place.
    fn dies(&mut self) {
        self.provisioner = VniProvisioner::new(self.options.clone(), &self.services).unwrap();
    }

    fn gateway(&self) -> SocketAddr {
        self.gateway.local_addr().unwrap()
    }

    /// A job's payload; its gateway answers.
    fn payload(&self, change: &Value) -> Value {
        let mut payload = json!({
            "name": "new", "organizationId": OURS, "localIp": "10.0.50.1", "remoteIp": "127.0.0.1",
            "subnetCidr": "10.0.50.0/24", "dnsServers": ["8.8.8.8"], "routingTableId": "rt-1",
            "gatewayPort": self.gateway().port(),
        });
        for (member, value) in change.as_object().unwrap() {
            payload[member] = value.clone();
        }
        payload
    }

    fn job(&self, id: &str) -> JobContext {
        JobContext::first(JobId::parse(id).unwrap(), Kind::VniProvision, &self.services)
    }

    /// Its last attempt.
    fn last(&self, id: &str) -> JobContext {
        let mut job = self.job(id);
        job.max_attempts = 1;
        job
    }

    /// One hand-over.
    async fn step(&self, job: &JobContext, payload: &Value, state: Value) -> Step {
        let payload: Payload = serde_json::from_value(payload.clone()).unwrap();
        let state = if state.is_null() { json!({}) } else { state };
        match self.provisioner.handle(job, payload, serde_json::from_value(state).unwrap()).await {
            Ok(Progress::Done(report)) => Step::Done(serde_json::to_value(report).unwrap()),
            Ok(Progress::Begun { state, .. }) => Step::Begun(serde_json::to_value(state).unwrap()),
            Err(error) => Step::Failed(Box::new(error)),
        }
    }

    /// The steps up to a creation: the state in which it is recorded.
    async fn created(&self, job: &JobContext, payload: &Value) -> Value {
        let Step::Begun(next) = self.step(job, payload, Value::Null).await else { panic!("not begun") };
        let Step::Begun(created) = self.step(job, payload, next).await else { panic!("not created") };
        created
    }

    /// One attempt: hand-overs until one does not only begin.
    async fn attempt(&self, job: &JobContext, payload: &Value, mut state: Value) -> Result<Value, Box<JobError>> {
        loop {
            state = match self.step(job, payload, state).await {
                Step::Done(report) => return Ok(report),
                Step::Failed(error) => return Err(error),
                Step::Begun(state) => state,
            };
        }
    }

    fn set(&self, change: &Value) {
        self.simulator.set("network", change).unwrap();
    }

    fn faults(&self, rules: &[&str]) {
        self.simulator.set_faults(rules.iter().map(|rule| rule.parse::<FaultRule>().unwrap()).collect());
    }

    fn sent(&self, method: &str, path: &str) -> usize {
        let is_such =
            |request: &&genfleet_simulator::RecordedRequest| request.method == method && request.path.starts_with(path);
        self.simulator.requests().iter().filter(is_such).count()
    }

    fn connections(&self) -> Vec<Value> {
        self.simulator.state()["network"]["connections"].as_array().unwrap().clone()
    }
}

/// One that was there before, apart from the usual payload unless `change` says otherwise.
fn existing(n: usize, change: &Value) -> Value {
    let mut entity = json!({
        "id": format!("there-{n}"), "name": format!("existing-{n}"), "organizationId": OURS,
        "localIp": format!("172.16.{n}.1"), "remoteIp": "203.0.113.1", "subnetCidr": format!("172.16.{n}.0/24"),
        "routingTableId": "rt-1",
    });
    for (member, value) in change.as_object().unwrap() {
        entity[member] = value.clone();
    }
    entity
}

/// The same interface as the usual payload describes.
fn identical() -> Value {
    existing(0, &json!({"name": "new", "localIp": "10.0.50.1", "subnetCidr": "10.0.50.0/24"}))
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
