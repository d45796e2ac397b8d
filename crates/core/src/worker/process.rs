//! Processes one delivery from beginning to end, in one tracing span. Code of the worker's author runs under panic guards:
//! the validation here, the handler in [`attempt`]. Nothing here has the handler's types: those end in [`typed`](super::typed).

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::OwnedSemaphorePermit, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, info_span, warn};

use super::{
    attempt::{AttemptResult, run_attempt},
    audit_outcome::record_attempt,
    context::KindContext,
    delivery_trace,
    in_flight::{Claim, ClaimResult, InFlightJobs},
    large_body::{offload, reserve_memory},
    not_run::{NotRun, settle_not_run},
    options::WorkerOptions,
    outcome::JobOutcome,
    settlement::{EndedJob, Settlement},
    suspect::{self, SESSION_LOST_LATELY, SurvivedSuspects, SuspectVerdict, judge},
    typed::{Run, ValidPayload, Validate},
};
use crate::handler::JobContext;
use genfleet_job::{
    Job,
    job_headers::JobHeaders,
    lease::Lease,
    message::{Lane, Message},
    metric,
    retry::RetryPolicy,
};
use genfleet_queue::Delivery;

/// Delay of a job whose state was written by another version of this product.
const UNREADABLE_STATE_WAIT: Duration = Duration::from_secs(60);
/// Time that a delivery waits here for another job of its id; then it waits in the queue, as long again.
const SAME_ID_WAIT: Duration = Duration::from_secs(1);

/// Processes the deliveries of one kind.
pub(crate) struct KindProcessor {
    /// Validates a message, and gives its payload to the handler.
    pub(crate) validate: Validate,
    pub(crate) worker_options: WorkerOptions,
    /// Waits between attempts.
    pub(crate) retry: RetryPolicy,
    pub(crate) in_flight: Arc<InFlightJobs>,
    pub(crate) survived: SurvivedSuspects,
    pub(crate) settlement: Arc<Settlement>,
}

impl KindProcessor {
    /// Processes `delivery` until its attempt is over, or until it is settled without one. `slot` is its place among the
    /// jobs in flight.
    pub(crate) async fn process(self: Arc<Self>, mut delivery: Delivery, slot: OwnedSemaphorePermit) {
        delivery.span = delivery_trace::begin(self.kind(), &delivery);
        let span = info_span!("job", kind = self.kind().label(), id = tracing::field::Empty);
        self.process_in_span(delivery, slot).instrument(span).await;
    }

    async fn process_in_span(self: Arc<Self>, mut delivery: Delivery, slot: OwnedSemaphorePermit) {
        // A large body reserves memory until the job is settled: there are several copies of it.
        let memory = reserve_memory(delivery.message.body.len()).await;
        if delivery.settler.is_stale() {
            return debug!("the session of this delivery is gone: the broker redelivers the message");
        }
        let headers = JobHeaders::read(&delivery.message.headers);
        let (job, payload) = match self.check(&mut delivery, &headers).await {
            Ok(valid) => valid,
            // Boxed, here and below: this future is large and rare, and every job would reserve its size.
            Err(reason) => return Box::pin(settle_not_run(&self.settlement, delivery, headers, reason)).await,
        };
        let Some((claim, mut delivery)) = self.claim(&job, &headers, delivery).await else { return };
        if let Some(outcome) = self.settlement.take_result(&job.id, &delivery) {
            debug!("it ran here before its session was lost: that result is settled now");
            let (kept, span) = ((Vec::new(), memory), tracing::Span::current());
            return self.settlement.settle_soon(EndedJob { id: job.id, claim, delivery, outcome, slot, kept, span });
        }
        let Ok(run) = payload(headers.state.as_deref()) else {
            warn!("another version wrote the state of this job: it is returned to the queue for a minute");
            let reason = NotRun::Moved(Lane::Resume, UNREADABLE_STATE_WAIT);
            return Box::pin(settle_not_run(&self.settlement, delivery, headers, reason)).await;
        };
        let (context, mut headers) = self.start_attempt(&job, headers, &delivery);
        let kind = self.kind();
        let audit = kind.process.audit.begin(kind.kind, &job.id, kind.audit_action, &job.payload_sha256);
        let result = self.run(&context, &headers, &mut delivery, run).await;
        headers.requests += context.record().requests;
        let outcome = JobOutcome::of_attempt(kind, &self.retry, &job, headers, &delivery, result);
        let outcome = Arc::new(record_attempt(kind, outcome, &audit));
        drop(audit);
        let (kept, span) = ((context.into_permits(), memory), tracing::Span::current());
        self.settlement.settle_soon(EndedJob { id: job.id, claim, delivery, outcome, slot, kept, span });
    }

    /// Checks the delivery, its message and the job's schedule. Returns the job and its payload if it may run now.
    async fn check(
        self: &Arc<Self>,
        delivery: &mut Delivery,
        headers: &JobHeaders,
    ) -> Result<(Job, ValidPayload), NotRun> {
        if let Some(defect) = delivery.defect {
            return Err(NotRun::unreadable(&delivery.message, defect.code(), defect.to_string()));
        }
        self.check_suspect(delivery)?;
        let now = self.kind().process.clock.now();
        let validated = self.validate(&delivery.message).await;
        if !headers.is_started() {
            let not_before = validated.as_ref().ok().and_then(|(job, _)| job.not_before);
            self.kind().process.activity.note_age(self.kind().kind, &delivery.message, not_before, now);
        }
        let (job, payload) = validated?;
        tracing::Span::current().record("id", job.id.as_str());
        delivery_trace::set_job(&mut delivery.span, &job, headers);
        // A job that already ran here is only settled, so its schedule no longer matters.
        if !self.settlement.has_result(&job.id, delivery) {
            NotRun::by_schedule(&job, headers, now)?;
        }
        Ok((job, payload))
    }

    /// Checks whether the delivery may have killed the processes that ran it.
    fn check_suspect(&self, delivery: &Delivery) -> Result<(), NotRun> {
        let (lane, count) = (delivery.lane, delivery.delivery_count);
        let survived = lane == Lane::Suspect && self.survived.contains(&delivery.message);
        let sessions_lost = self.kind().process.queue.lost_session_within(SESSION_LOST_LATELY);
        match judge(lane, count, survived, sessions_lost) {
            SuspectVerdict::Run => Ok(()),
            SuspectVerdict::Isolate => {
                // Not decoded: the producer's own id, where there is one.
                let message_id = delivery.message.message_id.as_deref();
                warn!(
                    returns = count,
                    message_id, "redelivered too often: moved to the suspect queue, to be run on its own"
                );
                Err(NotRun::Suspected)
            }
            // Published again, so that its count starts at 0.
            SuspectVerdict::ResetCount => Err(NotRun::Moved(lane, Duration::ZERO)),
            SuspectVerdict::CrashLoop => Err(NotRun::CrashLoop),
        }
    }

    /// Decodes and validates the message. A validation that panics would do so every time, so the job is rejected.
    async fn validate(self: &Arc<Self>, message: &Message) -> Result<(Job, ValidPayload), NotRun> {
        let (this, body) = (Arc::clone(self), message.body.clone());
        let (id, timestamp) = (message.message_id.clone(), message.timestamp);
        let validation = move || catch_unwind(AssertUnwindSafe(|| (this.validate)(&body, id.as_deref(), timestamp)));
        let Ok(validated) = offload(message.body.len(), validation).await else {
            let text = "the worker panicked while it validated this job: a defect of the worker";
            return Err(NotRun::unreadable(message, "panicked", text.to_owned()));
        };
        validated.map_err(NotRun::Rejected)
    }

    /// Claims the job for this delivery, or returns `None` after the delivery has attached to the one that runs or was
    /// put back behind another job of its id.
    async fn claim(&self, job: &Job, headers: &JobHeaders, delivery: Delivery) -> Option<(Claim, Delivery)> {
        match self.try_claim(job, headers, delivery) {
            ClaimResult::Busy(busy, ended) => Box::pin(self.claim_after(job, headers, busy, ended)).await,
            claimed => claimed.into_claim(),
        }
    }

    /// Claims the job once another job of its id has `ended`.
    async fn claim_after(
        &self,
        job: &Job,
        headers: &JobHeaders,
        mut busy: Delivery,
        mut ended: CancellationToken,
    ) -> Option<(Claim, Delivery)> {
        while timeout(SAME_ID_WAIT, ended.cancelled()).await.is_ok() {
            match self.try_claim(job, headers, busy) {
                ClaimResult::Busy(again, other) => (busy, ended) = (again, other),
                claimed => return claimed.into_claim(),
            }
        }
        settle_not_run(&self.settlement, busy, headers.clone(), NotRun::TooEarly(SAME_ID_WAIT)).await;
        None
    }

    fn try_claim(&self, job: &Job, headers: &JobHeaders, delivery: Delivery) -> ClaimResult {
        let body = delivery.message.body.clone();
        self.in_flight.claim(&job.id, &body, headers.generation, delivery)
    }

    /// Creates the context of an attempt, and records when the job was first started.
    fn start_attempt(&self, job: &Job, mut headers: JobHeaders, delivery: &Delivery) -> (JobContext, JobHeaders) {
        let process = &self.kind().process;
        let now = process.clock.now();
        if let Some(waited) = delivery.message.queue_wait(job.not_before, now).filter(|_| !headers.is_started()) {
            metrics::histogram!(metric::JOB_QUEUE_WAIT, "kind" => self.kind().label()).record(waited.seconds());
        }
        let lease = delivery.settler.lease().filter(|_| self.kind().kind.is_exclusive());
        let context = JobContext {
            id: job.id.clone(),
            kind: self.kind().kind,
            attempts: headers.attempts,
            max_attempts: job.max_attempts,
            started: delivery.lane != Lane::Jobs,
            delivery_count: delivery.delivery_count,
            reads_settled_at: lease
                .as_ref()
                .and_then(Lease::takeover_time)
                .map(|at| at + self.worker_options.takeover_wait),
            body_bytes: delivery.message.body.len(),
            payload_sha256: job.payload_sha256.clone(),
            settle_timeout: self.worker_options.settle_timeout,
            activate_timeout: self.worker_options.activate_timeout,
            started_at: *headers.started_at.get_or_insert(now),
            trace: delivery.span.context().cloned(),
            stop: process.drain.child_token(),
            clock: process.clock.clone(),
            genesys: process.genesys.clone(),
            lease,
            record: std::sync::Mutex::default(),
        };
        (context, headers)
    }

    /// Hands the job to its handler.
    async fn run(
        &self,
        context: &JobContext,
        headers: &JobHeaders,
        delivery: &mut Delivery,
        run: Run,
    ) -> AttemptResult {
        let process = &self.kind().process;
        let _running = process.activity.start(self.kind().kind);
        let whole = self.worker_options.attempt_timeout;
        let time = match delivery.lane {
            Lane::Jobs | Lane::Resume => whole,
            // A suspect that outlives its shorter time is none and goes back to the other jobs.
            Lane::Suspect => suspect::time_alone(headers.suspected).min(whole),
        };
        let result = run_attempt(process, context, delivery, time, run).await;
        if delivery.lane == Lane::Suspect {
            self.survived.insert(&delivery.message);
        }
        delivery.span.link(context.record().shared_requests.iter());
        result
    }

    /// The kind of the deliveries.
    pub(crate) fn kind(&self) -> &KindContext {
        &self.settlement.kind
    }
}
