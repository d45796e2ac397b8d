//! A simulator without limits, and handlers that work there as a worker has them work: round by round, each with the
//! state that the last one left.

use std::{sync::Arc, time::Duration};

use clap::Parser;
use genfleet_channel_provisioner::{
    WebDeploymentOptions, WebDeploymentPayload, WebDeploymentProvisioner, WebDeploymentReport, WebDeploymentState,
};
use genfleet_core::{
    clock::SystemClock,
    error::{ErrorClass, JobError},
    genesys::{ApiRequest, CredentialSource, Credentials, GenesysClient, GenesysOptions},
    handler::{JobContext, JobHandler, Progress, Services},
    job::{JobId, Kind},
    supervisor::Supervisor,
    telemetry::http::install_tls,
};
use genfleet_simulator::{Simulator, SimulatorOptions};
use serde_json::{Value, json};

pub(crate) const FLOW: &str = "3f2504e0-4f89-41d3-9a0c-0305e82c3301";
pub(crate) const QUEUE: &str = "6f1c2d3e-4a5b-4c6d-8e7f-901a2b3c4d5e";
/// In place of a wait in the queue.
const SHORT: Duration = Duration::from_millis(100);

/// A process at work, on a simulator of its own or on another one's.
pub(crate) struct Rig {
    pub simulator: Arc<Simulator>,
    services: Services,
    handler: WebDeploymentProvisioner,
    options: WebDeploymentOptions,
    /// How long a deployment may take to be active.
    pub activate: Duration,
}

/// How a job ended.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a test's")]
pub(crate) enum Ended {
    Published(WebDeploymentReport),
    /// With the state that was left.
    Failed(JobError, WebDeploymentState),
}

#[derive(Debug, Parser)]
struct Settings {
    #[command(flatten)]
    genesys: GenesysOptions,
    #[command(flatten)]
    own: WebDeploymentOptions,
}

impl Rig {
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    /// With further arguments.
    pub(crate) async fn with(more: &[&str]) -> Self {
        let unlimited = 60_000;
        let options = SimulatorOptions {
            requests_per_minute: unlimited,
            client_requests_per_minute: unlimited,
            ..SimulatorOptions::default()
        };
        let simulator = Arc::new(Simulator::start(options).await.unwrap());
        let uses = json!({"flows": {FLOW: {"queues": [QUEUE]}}, "pendingMs": 200});
        simulator.set("webDeployments", &uses).unwrap();
        install_tls();
        let url = simulator.base_url();
        let arguments =
            ["test", "--genesys-base-url", &url, "--genesys-cdn-url", &url, "--requests-per-minute", "60000"];
        let settings = Settings::parse_from([&arguments, more].concat());
        let source = CredentialSource::Given(Credentials { id: "client".into(), secret: "hush".into() });
        let needs = vec![(Kind::WebDeploymentProvision, WebDeploymentProvisioner::rights())];
        let clock = Arc::new(SystemClock);
        let genesys = GenesysClient::with_credentials(&settings.genesys, needs, clock.clone(), source).unwrap();
        tokio::spawn(genesys.clone().run());
        let services = Services { genesys, supervisor: Supervisor::new().0, clock };
        let handler = WebDeploymentProvisioner::new(settings.own.clone(), &services).unwrap();
        Self { simulator, services, handler, options: settings.own, activate: Duration::from_secs(180) }
    }

    /// Another process on the same simulator, with nothing in its memory.
    pub(crate) fn another_process(&self) -> Self {
        let handler = WebDeploymentProvisioner::new(self.options.clone(), &self.services).unwrap();
        let (simulator, services, options) = (self.simulator.clone(), self.services.clone(), self.options.clone());
        Self { simulator, services, handler, options, activate: self.activate }
    }

    pub(crate) fn set(&self, change: &Value) {
        self.simulator.set("webDeployments", change).unwrap();
    }

    pub(crate) fn job(&self, id: &str) -> JobContext {
        let mut job = JobContext::first(JobId::parse(id).unwrap(), Kind::WebDeploymentProvision, &self.services);
        job.activate_timeout = self.activate;
        job
    }

    /// One round.
    pub(crate) async fn once(
        &self,
        job: &JobContext,
        payload: &WebDeploymentPayload,
        state: WebDeploymentState,
    ) -> Result<Progress<WebDeploymentProvisioner>, JobError> {
        self.handler.handle(job, payload.clone(), state).await
    }

    /// Rounds until the job ends, or an attempt of it fails.
    pub(crate) async fn go_on(
        &self,
        job: &JobContext,
        payload: &WebDeploymentPayload,
        mut state: WebDeploymentState,
    ) -> Ended {
        loop {
            match self.once(job, payload, state.clone()).await {
                Ok(Progress::Done(report)) => return Ended::Published(report),
                Ok(Progress::Begun { state: next, again_in }) => {
                    state = next;
                    tokio::time::sleep(again_in.min(SHORT)).await;
                }
                Err(error) if matches!(error.class, ErrorClass::Held { .. }) => tokio::time::sleep(SHORT).await,
                Err(error) => {
                    let left = error.state.clone().map_or(state, |left| serde_json::from_value(left).unwrap());
                    return Ended::Failed(error, left);
                }
            }
        }
    }

    /// The first attempt of a job that has so many.
    pub(crate) async fn run(&self, id: &str, payload: &WebDeploymentPayload, attempts: u32) -> Ended {
        let mut job = self.job(id);
        job.max_attempts = attempts;
        self.go_on(&job, payload, WebDeploymentState::default()).await
    }

    pub(crate) async fn published(&self, id: &str, payload: &WebDeploymentPayload) -> WebDeploymentReport {
        self.run(id, payload, 8).await.published()
    }

    pub(crate) async fn refused(&self, id: &str, payload: &WebDeploymentPayload) -> JobError {
        self.run(id, payload, 8).await.failed().0
    }

    /// The process dies at the request that hangs; another one is handed the same message.
    pub(crate) async fn published_past_a_death(&self, id: &str, payload: &WebDeploymentPayload) -> WebDeploymentReport {
        let (mut state, mut deaths) = (WebDeploymentState::default(), 0);
        let mut process = self.another_process();
        let mut starts_again = false;
        loop {
            let job = self.job(id).with_history(state != WebDeploymentState::default(), u32::from(starts_again));
            let ended = tokio::select! {
                ended = process.once(&job, payload, state.clone()) => Some(ended),
                () = self.until(|rig| deaths == 0 && rig.hangs()) => None,
            };
            starts_again = ended.is_none();
            match ended {
                None => (process, deaths) = (self.another_process(), 1),
                Some(Ok(Progress::Done(report))) => return report,
                Some(Ok(Progress::Begun { state: next, again_in })) => {
                    state = next;
                    tokio::time::sleep(again_in.min(SHORT)).await;
                }
                Some(Err(error)) => panic!("{error:?}"),
            }
        }
    }

    fn hangs(&self) -> bool {
        self.simulator.requests().iter().any(|request| request.fault.is_some() && request.status.is_none())
    }

    /// Configurations, versions that were published of them, deployments.
    pub(crate) fn made(&self) -> (usize, usize, usize) {
        let state = self.state();
        let configurations = state["configurations"].as_array().unwrap();
        let versions = configurations.iter().map(|one| one["versions"].as_array().unwrap().len()).sum();
        (configurations.len(), versions, state["deployments"].as_array().unwrap().len())
    }

    pub(crate) fn state(&self) -> Value {
        self.simulator.state()["webDeployments"].clone()
    }

    /// Method and path of every request but those for tokens.
    pub(crate) fn calls(&self) -> Vec<String> {
        let requests = self.simulator.requests().into_iter().filter(|request| request.path != "/oauth/token");
        requests.map(|request| format!("{} {}", request.method, request.path)).collect()
    }

    /// The bodies that were sent to paths that begin so.
    pub(crate) fn bodies(&self, method: &str, path: &str) -> Vec<Value> {
        let requests = self.simulator.requests().into_iter();
        requests.filter(|one| one.method == method && one.path.starts_with(path)).map(|one| one.body).collect()
    }

    /// A deployment that no job made.
    pub(crate) async fn deploy_as_somebody_else(&self, name: &str, configuration: &str) {
        let body = json!({
            "name": name, "allowAllDomains": true, "allowedDomains": [], "flow": {"id": FLOW},
            "configuration": {"id": configuration, "version": "1"},
        });
        self.job("somebody").send(ApiRequest::post("/api/v2/webdeployments/deployments").json(&body)).await.unwrap();
    }

    /// Waits for what the simulator shows.
    pub(crate) async fn until(&self, condition: impl Fn(&Self) -> bool) {
        while !condition(self) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Ended {
    pub(crate) fn published(self) -> WebDeploymentReport {
        match self {
            Self::Published(report) => report,
            Self::Failed(error, state) => panic!("{error:?} {state:?}"),
        }
    }

    pub(crate) fn failed(self) -> (JobError, WebDeploymentState) {
        match self {
            Self::Failed(error, state) => (error, state),
            Self::Published(report) => panic!("{report:?}"),
        }
    }

    pub(crate) fn error(&self) -> Option<&JobError> {
        match self {
            Self::Failed(error, _) => Some(error),
            Self::Published(_) => None,
        }
    }
}

/// A payload, with these members in place of its own.
pub(crate) fn payload(change: Value) -> WebDeploymentPayload {
    let mut payload = json!({
        "name": "Shop", "flowId": FLOW, "allowedDomains": ["shop.example", "bücher.example"],
        "configuration": {"document": {"languages": ["en-us"], "defaultLanguage": "en-us", "messenger": {"enabled": true}}},
    });
    let Value::Object(members) = change else { panic!("an object") };
    payload.as_object_mut().unwrap().extend(members);
    serde_json::from_value(payload).unwrap()
}
