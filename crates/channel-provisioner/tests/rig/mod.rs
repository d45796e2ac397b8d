//! A simulator without limits, and a handler that works there.

use std::{sync::Arc, time::Duration};

use clap::Parser;
use futures_util::future::join_all;
use genfleet_channel_provisioner::{ChannelOptions, ChannelProvisioner, ChannelReport, ChannelState, Payload};
use genfleet_core::{
    clock::SystemClock,
    error::JobError,
    genesys::{CredentialSource, Credentials, GenesysClient, GenesysOptions},
    handler::{JobContext, JobHandler, Progress, Services},
    job::{JobId, Kind, derive_id},
    supervisor::Supervisor,
    telemetry::http::install_tls,
};
use genfleet_simulator::{RecordedRequest, Simulator, SimulatorOptions};
use serde_json::{Value, json};

pub(crate) const QUEUE: &str = "3f2504e0-4f89-11d3-9a0c-0305e82c3301";
pub(crate) const CHANNELS: &str = "/api/v2/purecloudv2/webchat";

pub(crate) struct Rig {
    pub simulator: Simulator,
    services: Services,
    options: ChannelOptions,
    handler: ChannelProvisioner,
}

#[derive(Debug, Parser)]
struct Settings {
    #[command(flatten)]
    genesys: GenesysOptions,
}

impl Rig {
    pub(crate) async fn start(license_limit: u32) -> Self {
        let unlimited = 60_000;
        let options = SimulatorOptions {
            requests_per_minute: unlimited,
            client_requests_per_minute: unlimited,
            latency: Duration::from_millis(5),
            ..SimulatorOptions::default()
        };
        let simulator = Simulator::start(options).await.unwrap();
        install_tls();
        let arguments = ["test", "--genesys-base-url", &simulator.base_url(), "--requests-per-minute", "60000"];
        let options = Settings::parse_from(arguments).genesys;
        let source = CredentialSource::Given(Credentials { id: "client".into(), secret: "hush".into() });
        let scopes = vec![(Kind::ChannelProvision, ChannelProvisioner::SCOPES)];
        let clock = Arc::new(SystemClock);
        let genesys = GenesysClient::with_credentials(&options, scopes, clock.clone(), source).unwrap();
        tokio::spawn(genesys.clone().run());
        let services = Services { genesys, supervisor: Supervisor::new().0, clock };
        let options = ChannelOptions { max_concurrent_sessions: 500, license_limit };
        let handler = ChannelProvisioner::new(options.clone(), &services).unwrap();
        Self { simulator, services, options, handler }
    }

    /// The process died, and another took its place.
    pub(crate) fn died(self) -> Self {
        Self { handler: ChannelProvisioner::new(self.options.clone(), &self.services).unwrap(), ..self }
    }

    pub(crate) fn job(&self, id: &str) -> JobContext {
        JobContext::first(JobId::parse(id).unwrap(), Kind::ChannelProvision, &self.services)
    }

    pub(crate) async fn run(
        &self,
        job: &JobContext,
        state: ChannelState,
    ) -> Result<Progress<ChannelProvisioner>, JobError> {
        self.handler.handle(job, payload(), state).await
    }

    pub(crate) async fn ended(&self, id: &str) -> Result<ChannelReport, JobError> {
        match self.run(&self.job(id), ChannelState::default()).await? {
            Progress::Done(report) => Ok(report),
            Progress::Begun { .. } => panic!("{id} is not done"),
        }
    }

    pub(crate) async fn begun(&self, job: &JobContext, state: ChannelState) -> (ChannelState, Duration) {
        match self.run(job, state).await.unwrap() {
            Progress::Begun { state, again_in } => (state, again_in),
            Progress::Done(report) => panic!("done: {report:?}"),
        }
    }

    pub(crate) async fn provisioned(&self, id: &str) -> ChannelReport {
        self.ended(id).await.unwrap()
    }

    pub(crate) async fn refused(&self, id: &str) -> JobError {
        self.ended(id).await.unwrap_err()
    }

    /// Jobs `job-0`, `job-1`, … all at once.
    pub(crate) async fn at_once(&self, count: usize) -> Vec<Result<ChannelReport, JobError>> {
        join_all((0..count).map(async |n| self.ended(&format!("job-{n}")).await)).await
    }

    pub(crate) fn set(&self, change: &Value) {
        self.simulator.set("webMessaging", change).unwrap();
    }

    pub(crate) fn channels(&self) -> Vec<Value> {
        self.simulator.state()["webMessaging"]["channels"].as_array().unwrap().clone()
    }

    pub(crate) fn posts(&self) -> Vec<RecordedRequest> {
        let requests = self.simulator.requests().into_iter();
        requests.filter(|request| request.method == "POST" && request.path == CHANNELS).collect()
    }

    /// Waits for what the simulator shows.
    pub(crate) async fn until(&self, condition: impl Fn(&Self) -> bool) {
        while !condition(self) {
            tokio::task::yield_now().await;
        }
    }
}

pub(crate) fn channel_id(job: &str) -> String {
    derive_id(&format!("channel:{job}")).to_string()
}

fn payload() -> Payload {
    let security = json!({"allowedDomains": ["example.com"]});
    let payload = json!({"queueId": QUEUE, "routingEmail": "chat@example.com", "security": security});
    serde_json::from_value(payload).unwrap()
}
