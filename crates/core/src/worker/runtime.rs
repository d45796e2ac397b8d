//! Puts a process together: options, logs, queue, client, workers, admin port; runs it until it is asked to
//! stop or something others depend on ends.

use std::{
    future::Future,
    process::ExitCode,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::time::{Instant, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info, warn};

use super::{
    consume::{Intake, work_suspects},
    doing::Doing,
    engine::{Engine, RunPolicy},
    failures::Failures,
    holding::Holding,
    options::WorkerOptions,
    running::Running,
    series,
    shutdown::Signals,
    suspect::Outlived,
    unknown::Answers,
    unsettled::Unsettled,
    validate::JobRules,
};
use crate::{
    admin::{self, Admin},
    handler::{JobHandler, Services},
    membership::{
        ActivitySource, Membership,
        status::{KindStatus, ReceiverStatus},
    },
    webhook::{FailingReceivers, Webhooks},
};
use genfleet_audit as audit;
use genfleet_audit::Audit;
use genfleet_genesys::GenesysClient;
use genfleet_job::supervisor::{Ended, Tasks};
use genfleet_job::{clock::SharedClock, options::ConfigError};
use genfleet_queue::{Queue, UnknownKinds};
use genfleet_telemetry::trace::stop_export;

/// Of the drain time, at most.
const GIVING_BACK: Duration = Duration::from_secs(3);

/// For sending the last spans: what is left of the drain time, but no less than this,
const LEAST_FOR_TRACES: Duration = Duration::from_secs(1);
/// and no more.
const MOST_FOR_TRACES: Duration = Duration::from_secs(5);

/// Exit code of bad usage or configuration.
pub const EXIT_USAGE: u8 = 64;

/// The loops of a process, each with the time it last came round.
#[derive(Clone, Debug, Default)]
pub struct Beats(Arc<Mutex<Vec<(String, Instant)>>>);

/// One loop's place in [`Beats`].
#[derive(Clone, Debug)]
pub struct Beat {
    beats: Beats,
    index: usize,
}

impl Beats {
    /// A place for the loop `name`.
    pub fn register(&self, name: &str) -> Beat {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push((name.to_owned(), Instant::now()));
        Beat { beats: self.clone(), index: all.len() - 1 }
    }

    /// The loops that did not come round for `silence`.
    pub fn silent_for(&self, silence: Duration) -> Vec<String> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter(|(_, last)| last.elapsed() > silence).map(|(name, _)| name.clone()).collect()
    }
}

impl Beat {
    /// The loop came round.
    pub fn beat(&self) {
        let mut all = self.beats.0.lock().unwrap_or_else(PoisonError::into_inner);
        all[self.index].1 = Instant::now();
    }
}

/// A process being put together.
#[derive(Debug)]
pub struct Runtime {
    options: WorkerOptions,
    queue: Queue,
    services: Services,
    webhooks: Webhooks,
    audit: Audit,
    ended: Ended,
    drain: CancellationToken,
    give_up: CancellationToken,
    /// The loops that take jobs.
    loops: TaskTracker,
    /// What was begun for deliveries.
    work: TaskTracker,
    beats: Beats,
    doing: Doing,
    failing: FailingReceivers,
    membership: Membership,
    failures: Failures,
    draining: Arc<AtomicBool>,
    unanswered: UnknownKinds,
}

/// How a process came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// As asked; everything settled or given back.
    Stopped,
    /// Something that others depend on ended.
    Fault(String),
}

impl From<End> for ExitCode {
    fn from(end: End) -> Self {
        match end {
            End::Stopped => Self::SUCCESS,
            End::Fault(_) => Self::FAILURE,
        }
    }
}

impl Runtime {
    /// A process of `binary` on `queue` that talks to the API through `genesys` and writes its facts down in `audit`. Begins
    /// their background work.
    pub fn new(
        binary: &str,
        options: WorkerOptions,
        queue: Queue,
        genesys: GenesysClient,
        audit: audit::OpenedAudit,
        clock: SharedClock,
    ) -> Self {
        queue.allow_replies(options.reply_to_allow.clone());
        let unanswered = queue.unknown_kinds();
        let (tasks, ended) = Tasks::new();
        let (doing, failing) = (Doing::default(), FailingReceivers::default());
        let names = (audit.process.clone(), binary.to_owned());
        let audit = audit.start(&tasks);
        genesys.keep_audit(audit.clone());
        tasks.spawn("genesys client", genesys.clone().run());
        let activity = (doing.clone(), failing.clone());
        let membership = Membership::new(names, queue.clone(), genesys.clone(), clock.clone(), activity);
        tasks.spawn("fleet", membership.clone().run());
        Self {
            options,
            queue,
            services: Services { genesys, tasks, clock },
            webhooks: Webhooks::default(),
            audit,
            ended,
            drain: CancellationToken::new(),
            give_up: CancellationToken::new(),
            loops: TaskTracker::new(),
            work: TaskTracker::new(),
            beats: Beats::default(),
            doing,
            failing,
            membership,
            failures: Failures::default(),
            draining: Arc::default(),
            unanswered,
        }
    }

    /// Tells `webhooks` of the jobs that [`Self::work`] works from now on, and delivers, where this process is to.
    #[must_use]
    pub fn with_webhooks(mut self, webhooks: Webhooks) -> Self {
        let deliverer = webhooks.deliverer(&self.services.clock, &self.failing);
        if let Some((deliverer, options)) = deliverer.zip(webhooks.delivering()) {
            self.begin(deliverer, options.clone(), options.webhook_concurrency);
        }
        self.webhooks = webhooks;
        self
    }

    /// Works jobs of `H` in this process.
    pub fn work<H: JobHandler>(&self, options: H::Options) -> Result<(), ConfigError> {
        let handler = H::new(options.clone(), &self.services)?;
        self.begin(handler, options, self.options.concurrency(H::KIND, H::DEFAULTS.concurrency));
        Ok(())
    }

    fn begin<H: JobHandler>(&self, handler: H, options: H::Options, concurrency: usize) {
        series::begin_codes(H::KIND.as_str(), H::terms().codes.iter().map(|code| code.code));
        self.doing.works(H::KIND);
        let general = self.options.policy();
        let webhook_rules = self.webhooks.rules().clone();
        let engine = Arc::new(Engine {
            policy: RunPolicy { retry: handler.retries(general.retry), ..general },
            handler,
            options,
            rules: JobRules::new::<H::Payload>(H::KIND, move |url| webhook_rules.violations(url)),
            queue: self.queue.clone(),
            genesys: self.services.genesys.clone(),
            webhooks: self.webhooks.clone(),
            audit: self.audit.clone(),
            clock: self.services.clock.clone(),
            running: Arc::<Running>::default(),
            unsettled: Unsettled::default(),
            outlived: Outlived::default(),
            doing: self.doing.clone(),
            failures: self.failures.clone(),
            drain: self.drain.clone(),
            give_up: self.give_up.clone(),
            work: self.work.clone(),
        });
        let beat = self.beats.register(&format!("intake of {}", H::KIND));
        let mut intake = Intake::new(Arc::clone(&engine), concurrency, beat);
        let suspects = intake.suspects();
        self.spawn_loop("intake", intake.run());
        self.spawn_loop("suspects", work_suspects(engine, suspects));
    }

    fn answer_unknown_kinds(&mut self) {
        let unanswered = std::mem::replace(&mut self.unanswered, UnknownKinds::none());
        let answers = Answers {
            audit: self.audit.clone(),
            webhooks: self.webhooks.clone(),
            environment: self.services.genesys.environment().to_owned(),
            clock: self.services.clock.clone(),
            drain: self.drain.clone(),
            give_up: self.give_up.clone(),
            work: self.work.clone(),
        };
        self.spawn_loop("unknown kinds", Arc::new(answers).run(unanswered));
    }

    /// A loop that ends when the process drains; ending earlier is a fault.
    fn spawn_loop(&self, name: &str, task: impl Future<Output = ()> + Send + 'static) {
        let handle = self.loops.spawn(task);
        let drain = self.drain.clone();
        self.services.tasks.spawn(name, async move {
            let ended = handle.await;
            if drain.is_cancelled() && ended.is_ok() {
                std::future::pending::<()>().await;
            }
        });
    }

    /// What holds its jobs up.
    pub fn holding(&self) -> Holding {
        let (queue, genesys, failures) = (self.queue.clone(), self.services.genesys.clone(), self.failures.clone());
        Holding { queue, genesys, failures, drain: self.drain.clone() }
    }

    /// Where facts are written down.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// Serves the admin port.
    pub async fn serve_admin(&self, metrics: PrometheusHandle) -> Result<(), ConfigError> {
        let address = self.options.admin_addr.as_ref();
        let listener = admin::listen(address).await?;
        let name = address.and_then(|address| address.name()).map(str::to_owned);
        let admin = Admin {
            metrics,
            queue: self.queue.clone(),
            genesys: self.services.genesys.clone(),
            beats: self.beats.clone(),
            membership: self.membership.clone(),
            failures: self.failures.clone(),
            draining: Arc::clone(&self.draining),
        };
        self.services.tasks.spawn("admin port", admin.serve(listener, name));
        Ok(())
    }

    /// Runs until `finished` is, or a signal asks to stop; then drains. A second signal ends at once.
    pub async fn run(mut self, mut signals: Signals, finished: impl Future<Output = ()>) -> End {
        self.answer_unknown_kinds();
        let end = tokio::select! {
            name = signals.next() => {
                info!(signal = name, "stopping: no new jobs; what runs comes to an end");
                End::Stopped
            }
            () = finished => End::Stopped,
            name = self.ended.next() => End::Fault(format!("the task {name:?} ended, and others depend on it")),
            reason = self.queue.failed() => End::Fault(format!("the queue failed: {reason}")),
        };
        if let End::Fault(reason) = &end {
            error!(reason, "fault: the process ends");
        }
        tokio::select! {
            () = self.drain() => {}
            name = signals.next() => warn!(signal = name, "stopped at once: unsettled jobs come again"),
        }
        end
    }

    async fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.drain.cancel();
        self.loops.close();
        self.work.close();
        let settled = async {
            self.loops.wait().await;
            self.work.wait().await;
        };
        let mut settled = std::pin::pin!(settled);
        let (began, total) = (Instant::now(), self.options.drain_timeout);
        // The last part of the time is for publishing what is given back.
        let giving_back = (total / 5).min(GIVING_BACK);
        if timeout(total.saturating_sub(giving_back), &mut settled).await.is_err() {
            warn!(left = self.work.len(), "the drain time is over: what still runs is given back");
            self.give_up.cancel();
            if timeout(giving_back, settled).await.is_err() {
                warn!(left = self.work.len(), "not all could be given back in time: it comes again");
            }
        }
        self.membership.leave().await;
        self.queue.close().await;
        self.audit.close().await;
        self.services.tasks.stop().await;
        stop_export(total.saturating_sub(began.elapsed()).clamp(LEAST_FOR_TRACES, MOST_FOR_TRACES)).await;
        info!("stopped");
    }
}

impl ActivitySource for (Doing, FailingReceivers) {
    fn kinds(&self, now: Instant) -> Vec<KindStatus> {
        self.0.told(now)
    }

    fn calls_the_api(&self) -> bool {
        self.0.calls_the_api()
    }

    fn receivers(&self, now: Instant) -> Vec<ReceiverStatus> {
        self.1.status(now)
    }
}
