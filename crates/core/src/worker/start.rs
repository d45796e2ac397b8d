//! The start of a process that works jobs: of a worker, and of `genfleet up`.

use std::future::pending;

use metrics_exporter_prometheus::PrometheusHandle;
use tracing::{info, warn};

use super::{
    kinds::ChosenKinds,
    metric_series::start_metrics,
    options::WorkerOptions,
    queue_options::QueueOptions,
    runtime::{ProcessEnd, Runtime},
    shutdown::Signals,
};
use crate::webhook::{WebhookOptions, Webhooks};
use genfleet_audit::default_file;
use genfleet_genesys::GenesysClient;
use genfleet_job::{clock::SharedClock, options::ConfigError};
use genfleet_queue::sqlite::Role;
use genfleet_telemetry::{LogFormat, http::install_tls, trace::TraceExport};

/// A process with valid settings that writes its log and counts, and takes no jobs yet.
#[derive(Debug)]
pub struct PreparedProcess {
    name: &'static str,
    queue: QueueOptions,
    worker: WorkerOptions,
    webhooks: Webhooks,
    kinds: ChosenKinds,
    metrics: PrometheusHandle,
    traces: Option<TraceExport>,
}

impl PreparedProcess {
    /// Begins the log and the metrics of the program `name`, checks the settings, and logs `warnings` and those about
    /// the settings.
    pub fn new(
        name: &'static str,
        queue: QueueOptions,
        worker: WorkerOptions,
        webhooks: &WebhookOptions,
        kinds: ChosenKinds,
        warnings: Vec<String>,
    ) -> Result<Self, ConfigError> {
        queue.check()?;
        worker.start_logs("info", LogFormat::Json)?;
        install_tls();
        // Before anything counts.
        let metrics = start_metrics(&kinds.worked)?;
        let delivered = Webhooks::new(webhooks)?;
        for warning in [warnings, queue.warnings()?, webhooks.warnings()?].concat() {
            warn!("{warning}");
        }
        let traces = TraceExport::from_environment(name)?;
        Ok(Self { name, queue, worker, webhooks: delivered, kinds, metrics, traces })
    }

    /// Checks for `--check-config` what [`new`](Self::new) leaves to the start, and returns what to print.
    pub fn check(&self, clock: &SharedClock) -> Result<String, ConfigError> {
        self.queue.check_store()?;
        self.worker.audit.check(&default_file(self.name), clock)?;
        Ok(self.kinds.notes().chain(["the settings can work".to_owned()]).collect::<Vec<_>>().join("\n"))
    }

    /// Opens queue and audit, starts the workers with `work`, and runs until it is stopped. `binary` is the program's
    /// name in the fleet.
    pub async fn run(
        self,
        binary: &str,
        genesys: GenesysClient,
        clock: SharedClock,
        work: impl FnOnce(&Runtime) -> Result<(), ConfigError>,
    ) -> Result<ProcessEnd, ConfigError> {
        self.kinds.notes().for_each(|note| info!("{note}"));
        self.traces.into_iter().for_each(TraceExport::start);
        let signals = Signals::listen().map_err(|error| ConfigError::new(format!("no signals: {error}")))?;
        let queue = self.queue.open(self.name, Role::Worker, &self.kinds.worked, clock.clone())?;
        let audit = self.worker.audit.open(&default_file(self.name), &clock)?;
        let runtime = Runtime::new(binary, self.worker, queue, genesys, audit, clock).with_webhooks(self.webhooks);
        runtime.serve_admin(self.metrics).await?;
        work(&runtime)?;
        Ok(runtime.run(signals, pending()).await)
    }
}
