//! A simulator, a handler on a real client, and a clock that can be turned.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use clap::Parser;
use genfleet_core::{
    clock::{Clock, SystemClock},
    error::JobError,
    genesys::{CredentialSource, Credentials, GenesysClient, GenesysOptions},
    handler::{JobContext, JobHandler, Progress, Services},
    job::{JobId, Kind},
    supervisor::{Supervisor, TaskExits},
    telemetry::http::install_tls,
};
use genfleet_scan_monitor::{ScanMonitor, ScanMonitorOptions, ScanState};
use genfleet_simulator::{FaultRule, Simulator, SimulatorOptions};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

pub(crate) const CLEAN: &str = "a1b2c3d4-e5f6-7890-abcd-ef1234567890";
pub(crate) const MALWARE: &str = "f1b2c3d4-e5f6-7890-abcd-ef1234567890";
pub(crate) const FAILING: &str = "e1b2c3d4-e5f6-7890-abcd-ef1234567890";
const UNLIMITED: u32 = 60_000;

#[derive(Debug, Parser)]
struct Settings {
    #[command(flatten)]
    genesys: GenesysOptions,
    #[command(flatten)]
    own: ScanMonitorOptions,
}

/// The machine's clock, turned by so many milliseconds.
#[derive(Clone, Debug, Default)]
struct Turned(Arc<AtomicI64>);

impl Clock for Turned {
    fn now(&self) -> Timestamp {
        SystemClock.now() + SignedDuration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

#[derive(Clone)]
pub(crate) struct Stack {
    pub simulator: Arc<Simulator>,
    monitor: Arc<ScanMonitor>,
    services: Services,
    clock: Turned,
    _exits: Arc<TaskExits>,
}

/// Faults that meet scans and polls by this method.
pub(crate) fn rule(method: &str) -> FaultRule {
    FaultRule { method: Some(method.to_owned()), ..FaultRule::default() }
}

impl Stack {
    pub(crate) async fn start(files: &Value) -> Self {
        Self::on(Self::simulator(files).await, None)
    }

    pub(crate) async fn with_webhook(files: &Value, url: &str) -> Self {
        Self::on(Self::simulator(files).await, Some(url))
    }

    /// Another process at the same platform.
    pub(crate) fn another(&self, url: &str) -> Self {
        Self::on(self.simulator.clone(), Some(url))
    }

    async fn simulator(files: &Value) -> Arc<Simulator> {
        install_tls();
        let limits = (UNLIMITED, UNLIMITED);
        let options = SimulatorOptions {
            requests_per_minute: limits.0,
            client_requests_per_minute: limits.1,
            ..SimulatorOptions::default()
        };
        let simulator = Simulator::start(options).await.unwrap();
        simulator.set("files", files).unwrap();
        Arc::new(simulator)
    }

    fn on(simulator: Arc<Simulator>, webhook: Option<&str>) -> Self {
        let mut arguments = vec!["scan-monitor".to_owned(), "--genesys-base-url".to_owned(), simulator.base_url()];
        arguments.extend(["--requests-per-minute".to_owned(), UNLIMITED.to_string()]);
        arguments.extend(webhook.iter().flat_map(|url| ["--security-webhook-url".to_owned(), (*url).to_owned()]));
        let Settings { genesys, own } = Settings::parse_from(arguments);
        let clock = Turned::default();
        let credentials = CredentialSource::Given(Credentials { id: "client".into(), secret: "hush".into() });
        let scopes = vec![(Kind::FileScan, ScanMonitor::SCOPES)];
        let genesys = GenesysClient::with_credentials(&genesys, scopes, Arc::new(clock.clone()), credentials).unwrap();
        tokio::spawn(genesys.clone().run());
        let (supervisor, exits) = Supervisor::new();
        let services = Services { genesys, supervisor, clock: Arc::new(clock.clone()) };
        let monitor = Arc::new(ScanMonitor::new(own, &services).unwrap());
        Self { simulator, monitor, services, clock, _exits: Arc::new(exits) }
    }

    /// Time passes.
    pub(crate) fn turn(&self, by: Duration) {
        self.clock.0.fetch_add(i64::try_from(by.as_millis()).unwrap(), Ordering::Relaxed);
    }

    pub(crate) fn job(&self) -> JobContext {
        JobContext::first(JobId::parse("scan-1").unwrap(), Kind::FileScan, &self.services)
    }

    /// One step of a job on `file` with this state.
    pub(crate) async fn step(&self, state: &str, file: &str) -> Result<Progress<ScanMonitor>, JobError> {
        self.step_as(&self.job(), state, file).await
    }

    pub(crate) async fn step_as(
        &self,
        job: &JobContext,
        state: &str,
        file: &str,
    ) -> Result<Progress<ScanMonitor>, JobError> {
        self.handle(job, state, file, "auto_quarantine").await
    }

    pub(crate) async fn step_with(
        &self,
        state: &str,
        file: &str,
        action: &str,
    ) -> Result<Progress<ScanMonitor>, JobError> {
        self.handle(&self.job(), state, file, action).await
    }

    async fn handle(
        &self,
        job: &JobContext,
        state: &str,
        file: &str,
        action: &str,
    ) -> Result<Progress<ScanMonitor>, JobError> {
        let state: ScanState = serde_json::from_str(state).unwrap();
        let payload = json!({
            "fileId": file, "scanEngine": "deep", "quarantineAction": action, "metadata": {"conversation": 7},
        });
        let payload = serde_json::from_value(payload).unwrap();
        self.monitor.handle(job, payload, state).await
    }

    /// A step after which the job goes on, with this state.
    pub(crate) async fn begun(&self, state: &str, file: &str) -> Value {
        match self.step(state, file).await {
            Ok(Progress::Begun { state, .. }) => serde_json::to_value(state).unwrap(),
            other => panic!("the job does not go on: {other:?}"),
        }
    }

    /// When a job goes on after a step.
    pub(crate) async fn again_in(&self, state: &str, file: &str) -> Duration {
        match self.step(state, file).await {
            Ok(Progress::Begun { again_in, .. }) => again_in,
            other => panic!("the job does not go on: {other:?}"),
        }
    }

    /// Steps until the job is done; its report.
    pub(crate) async fn done(&self, mut state: Value, file: &str) -> Value {
        loop {
            match self.step(&state.to_string(), file).await {
                Ok(Progress::Begun { state: next, .. }) => state = serde_json::to_value(next).unwrap(),
                Ok(Progress::Done(report)) => return serde_json::to_value(report).unwrap(),
                Err(error) => panic!("the job fails: {error:?}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) fn orders(&self) -> u64 {
        self.simulator.state()["files"]["scansTotal"].as_u64().unwrap()
    }

    pub(crate) fn polls(&self) -> u64 {
        self.simulator.state()["files"]["pollsTotal"].as_u64().unwrap()
    }

    /// Registrations that were answered, of all processes.
    pub(crate) fn answered_webhooks(&self) -> usize {
        let requests = self.simulator.requests();
        requests.iter().filter(|request| request.path.ends_with("/webhooks") && request.status.is_some()).count()
    }
}

/// Waits on what a running simulator shows.
pub(crate) async fn eventually(condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap();
}
