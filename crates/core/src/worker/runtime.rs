//! A process: its queue, API client, workers and admin port. It runs until it is asked to stop or until something that
//! others depend on fails.

use std::{
    future::Future,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::time::{Instant, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info, warn};

use super::{
    activity::Activity,
    blockers::Blockers,
    consume::{Intake, work_suspects},
    context::{KindContext, ProcessContext},
    in_flight::InFlightJobs,
    metric_series,
    options::WorkerOptions,
    process::KindProcessor,
    settlement::Settlement,
    shutdown::Signals,
    suspect::SurvivedSuspects,
    typed::validate_for,
    unknown_kinds,
    validate::JobRules,
};
use crate::{
    admin::{self, Admin, Failures, Heartbeats},
    handler::{JobHandler, Services},
    membership::Membership,
    webhook::{FailingReceivers, Webhooks},
};
use genfleet_audit as audit;
use genfleet_audit::Audit;
use genfleet_genesys::GenesysClient;
use genfleet_job::supervisor::{Supervisor, TaskExits};
use genfleet_job::{clock::SharedClock, options::ConfigError};
use genfleet_queue::{Queue, UnknownKinds};
use genfleet_telemetry::trace::stop_export;

/// Longest part of the drain time that is kept for giving back what still runs.
const GIVING_BACK: Duration = Duration::from_secs(3);

/// Shortest and longest time for sending the last spans; in between, what is left of the drain time.
const LEAST_FOR_TRACES: Duration = Duration::from_secs(1);
const MOST_FOR_TRACES: Duration = Duration::from_secs(5);

/// Exit code of wrong usage or configuration.
pub(crate) const EXIT_USAGE: u8 = 64;

/// A process that runs workers.
#[derive(Debug)]
pub struct Runtime {
    options: WorkerOptions,
    process: ProcessContext,
    supervisor: Supervisor,
    exits: TaskExits,
    /// Tracks the loops that take jobs.
    loops: TaskTracker,
    heartbeats: Heartbeats,
    failing: FailingReceivers,
    membership: Membership,
    draining: Arc<AtomicBool>,
    unknown_kinds: UnknownKinds,
}

/// End of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProcessEnd {
    /// It was asked to stop; everything is settled or given back.
    Stopped,
    /// Something that others depend on failed, for this reason.
    Fault(String),
}

impl From<ProcessEnd> for ExitCode {
    fn from(end: ProcessEnd) -> Self {
        match end {
            ProcessEnd::Stopped => Self::SUCCESS,
            ProcessEnd::Fault(_) => Self::FAILURE,
        }
    }
}

impl Runtime {
    /// Creates a process of `binary` on `queue` that calls the API through `genesys` and records in `audit`, and starts
    /// their background tasks.
    pub fn new(
        binary: &str,
        options: WorkerOptions,
        queue: Queue,
        genesys: GenesysClient,
        audit: audit::OpenedAudit,
        clock: SharedClock,
    ) -> Self {
        queue.allow_replies(options.reply_to_allow.clone());
        let unknown_kinds = queue.unknown_kinds();
        let (supervisor, exits) = Supervisor::new();
        let (activity, failing) = (Activity::default(), FailingReceivers::default());
        let names = (audit.process.clone(), binary.to_owned());
        let audit = audit.start(&supervisor);
        genesys.keep_audit(audit.clone());
        supervisor.spawn("genesys client", genesys.clone().run());
        let known = (activity.clone(), failing.clone());
        let membership = Membership::new(names, queue.clone(), genesys.clone(), clock.clone(), known);
        supervisor.spawn("fleet", membership.clone().run());
        Self {
            options,
            process: ProcessContext {
                queue,
                genesys,
                webhooks: Webhooks::default(),
                audit,
                clock,
                activity,
                failures: Failures::default(),
                drain: CancellationToken::new(),
                give_up: CancellationToken::new(),
                work: TaskTracker::new(),
            },
            supervisor,
            exits,
            loops: TaskTracker::new(),
            heartbeats: Heartbeats::default(),
            failing,
            membership,
            draining: Arc::default(),
            unknown_kinds,
        }
    }

    /// Sends the events of the jobs that [`Self::work`] adds from now on to `webhooks`, and delivers them if this process
    /// is to.
    #[must_use]
    pub fn with_webhooks(mut self, webhooks: Webhooks) -> Self {
        let deliverer = webhooks.deliverer(&self.process.clock, &self.failing);
        if let Some((deliverer, options)) = deliverer.zip(webhooks.delivering()) {
            self.begin(deliverer, options.clone(), options.webhook_concurrency);
        }
        self.process.webhooks = webhooks;
        self
    }

    /// Adds the worker `H` and starts to take its jobs.
    pub fn work<H: JobHandler>(&self, options: H::Options) -> Result<(), ConfigError> {
        let ProcessContext { genesys, clock, .. } = self.process.clone();
        let services = Services { genesys, supervisor: self.supervisor.clone(), clock };
        let handler = H::new(options.clone(), &services)?;
        self.begin(handler, options, self.options.concurrency(H::KIND, H::CONCURRENCY));
        Ok(())
    }

    fn begin<H: JobHandler>(&self, handler: H, options: H::Options, concurrency: usize) {
        metric_series::begin_codes(H::KIND.as_str(), H::terms().codes.iter().map(|code| code.code));
        self.process.activity.add(H::KIND);
        let webhook_rules = self.process.webhooks.rules().clone();
        let rules = JobRules::new::<H::Payload>(H::KIND, move |url| webhook_rules.violations(url));
        self.start(
            KindProcessor {
                retry: handler.retries(self.options.retries()),
                validate: validate_for(Arc::new(handler), options, rules),
                worker_options: self.options.clone(),
                in_flight: Arc::<InFlightJobs>::default(),
                survived: SurvivedSuspects::default(),
                settlement: Settlement::new(KindContext::of::<H>(self.process.clone())),
            },
            concurrency,
        );
    }

    /// Starts to take the jobs of the kind.
    fn start(&self, processor: KindProcessor, concurrency: usize) {
        let processor = Arc::new(processor);
        let heartbeat = self.heartbeats.register(&format!("intake of {}", processor.kind().label()));
        let mut intake = Intake::new(Arc::clone(&processor), concurrency, heartbeat);
        let suspects = intake.suspects();
        self.spawn_loop("intake", intake.run());
        self.spawn_loop("suspects", work_suspects(processor, suspects));
    }

    /// Spawns a loop that ends when the process drains. An earlier end is a fault.
    fn spawn_loop(&self, name: &str, task: impl Future<Output = ()> + Send + 'static) {
        let handle = self.loops.spawn(task);
        let drain = self.process.drain.clone();
        self.supervisor.spawn(name, async move {
            let ended = handle.await;
            if drain.is_cancelled() && ended.is_ok() {
                std::future::pending::<()>().await;
            }
        });
    }

    /// Returns the finder of what keeps its jobs from running.
    pub fn blockers(&self) -> Blockers {
        Blockers(self.process.clone())
    }

    /// Returns the audit of the process.
    pub fn audit(&self) -> &Audit {
        &self.process.audit
    }

    /// Serves the admin port.
    pub(crate) async fn serve_admin(&self, metrics: PrometheusHandle) -> Result<(), ConfigError> {
        let address = self.options.admin_addr.as_ref();
        let listener = admin::listen(address).await?;
        let name = address.and_then(|address| address.name()).map(str::to_owned);
        let admin = Admin {
            metrics,
            queue: self.process.queue.clone(),
            genesys: self.process.genesys.clone(),
            heartbeats: self.heartbeats.clone(),
            membership: self.membership.clone(),
            failures: self.process.failures.clone(),
            draining: Arc::clone(&self.draining),
        };
        self.supervisor.spawn("admin port", admin.serve(listener, name));
        Ok(())
    }

    /// Runs until `finished` is, or a signal asks to stop; then drains. A second signal ends at once.
    pub async fn run(mut self, mut signals: Signals, finished: impl Future<Output = ()>) -> ProcessEnd {
        let messages = std::mem::take(&mut self.unknown_kinds);
        self.spawn_loop("unknown kinds", unknown_kinds::reply_to_all(self.process.clone(), messages));
        let end = tokio::select! {
            name = signals.next() => {
                info!(signal = name, "stopping: no new jobs; what runs comes to an end");
                ProcessEnd::Stopped
            }
            () = finished => ProcessEnd::Stopped,
            name = self.exits.next() => ProcessEnd::Fault(format!("the task {name:?} ended, and others depend on it")),
            reason = self.process.queue.wait_until_failed() => ProcessEnd::Fault(format!("the queue failed: {reason}")),
        };
        if let ProcessEnd::Fault(reason) = &end {
            error!(reason, "fault: the process ends");
        }
        tokio::select! {
            () = self.drain() => {}
            name = signals.next() => warn!(signal = name, "stopped at once: unsettled jobs are redelivered"),
        }
        end
    }

    async fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.process.drain.cancel();
        self.loops.close();
        self.process.work.close();
        let settled = async {
            self.loops.wait().await;
            self.process.work.wait().await;
        };
        let mut settled = std::pin::pin!(settled);
        let (began, total) = (Instant::now(), self.options.drain_timeout);
        // The last part of the time is for publishing what is given back.
        let giving_back = (total / 5).min(GIVING_BACK);
        if timeout(total.saturating_sub(giving_back), &mut settled).await.is_err() {
            warn!(left = self.process.work.len(), "the drain time is over: what still runs is returned to the queue");
            self.process.give_up.cancel();
            if timeout(giving_back, settled).await.is_err() {
                warn!(
                    left = self.process.work.len(),
                    "not all jobs could be returned to the queue in time: the broker redelivers them"
                );
            }
        }
        self.membership.leave().await;
        self.process.queue.close().await;
        self.process.audit.close().await;
        self.supervisor.stop().await;
        stop_export(total.saturating_sub(began.elapsed()).clamp(LEAST_FOR_TRACES, MOST_FOR_TRACES)).await;
        info!("stopped");
    }
}
