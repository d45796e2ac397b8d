//! One delivery from end to end: suspicion, decoding, validation, the handler, settlement. Under one span and
//! one panic guard.

use std::{
    convert::Infallible,
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::FutureExt;
use jiff::Timestamp;
use serde_json::Value;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{sleep, timeout},
};
use tracing::{Instrument, debug, info, info_span, warn};

use super::{
    carried::{Carried, MAX_STATE_BYTES},
    engine::Engine,
    report::{self, DeadLetter},
    running::{Entered, Run},
    settle::{self, Ended, Settlement},
    suspect::{self, Verdict},
    validate,
};
use crate::{
    error::{ErrorClass, JobError},
    event::{self, Ending, Outcome},
    handler::{JobContext, JobHandler, Progress},
    job::{Job, JobId, Rejection, decode},
    metric,
    queue::{Delivery, Lane, Message, Publication, QueueError, Settled},
};

/// How long a handler that was asked to stop may still take: one request in flight and its settlement.
const STOPPING_GRACE: Duration = Duration::from_secs(20);
/// How long a job whose delivery went stale waits for the message to come again.
const REDELIVERY_WAIT: Duration = Duration::from_secs(60);
/// How long a job waits whose state was written by another version of this product.
const UNREADABLE_STATE_WAIT: Duration = Duration::from_secs(60);

/// How the job of a delivery ended or goes on; the same for every delivery that attached to it.
#[derive(Debug)]
enum Conclusion {
    Ends { ending: Box<Ending>, dead: Option<(&'static str, Option<&'static str>, String)> },
    GoesOn { carried: Box<Carried>, lane: Lane, after: Duration },
}

impl Conclusion {
    /// What is published for `message`, which is or carries the same job.
    fn publications(&self, message: &Message, kind: crate::job::Kind, now: Timestamp) -> Vec<Publication> {
        match self {
            Self::Ends { ending, dead } => {
                let dead = dead.as_ref().map(|(reason, cause, error)| DeadLetter { reason, cause: *cause, error });
                report::ended(message, ending, dead)
            }
            Self::GoesOn { carried, lane, after } => vec![report::again(message, carried, kind, *lane, *after, now)],
        }
    }

    /// Whether publishing it for a message that will be delivered again does harm: it would make a second one.
    fn needs_live_delivery(&self) -> bool {
        match self {
            Self::Ends { dead, .. } => dead.is_some(),
            Self::GoesOn { .. } => true,
        }
    }
}

/// A job that is about to run.
struct Arrived {
    delivery: Delivery,
    carried: Carried,
    job: Job,
    slot: OwnedSemaphorePermit,
}

impl<H: JobHandler> Engine<H> {
    /// Sees `delivery` to its settlement. `slot` is its place among the jobs in flight.
    pub async fn process(self: Arc<Self>, delivery: Delivery, slot: OwnedSemaphorePermit) {
        let span = info_span!("job", kind = self.kind(), id = tracing::field::Empty);
        self.judged(delivery, slot).instrument(span).await;
    }

    async fn judged(self: Arc<Self>, delivery: Delivery, slot: OwnedSemaphorePermit) {
        if delivery.settler.is_stale() {
            return debug!("its session is gone: it comes again");
        }
        let outlived = delivery.lane == Lane::Suspect && self.outlived.note(&delivery.message);
        match suspect::judge(delivery.lane, delivery.returns, outlived) {
            Verdict::Run => self.decoded(delivery, slot).await,
            Verdict::Suspect => {
                warn!(returns = delivery.returns, "came back too often: moved to the suspects, to be run on its own");
                self.move_to(delivery, Lane::Suspect, Duration::ZERO).await;
            }
            Verdict::StartOver => self.move_to(delivery, Lane::Suspect, Duration::ZERO).await,
            Verdict::Convict => self.convict(delivery).await,
        }
    }

    async fn decoded(self: Arc<Self>, delivery: Delivery, slot: OwnedSemaphorePermit) {
        let carried = Carried::read(&delivery.message.headers);
        let message = &delivery.message;
        let checked = validate::job::<H>(&self.schema, &message.body, message.message_id.as_deref(), message.timestamp);
        let (job, payload) = match checked {
            Ok(checked) => checked,
            Err(rejection) => return self.reject(delivery, &carried, *rejection).await,
        };
        tracing::Span::current().record("id", job.id.as_str());
        let now = self.clock.now();
        if let Some(wait) = not_yet(&job, &carried, now) {
            debug!(?wait, "not yet");
            return self.postpone(delivery, &carried, wait).await;
        }
        if !carried.begun() && job.deadline.is_some_and(|deadline| deadline < now) {
            return self.expire(delivery, &carried, job).await;
        }
        self.entered(Arrived { delivery, carried, job, slot }, payload).await;
    }

    /// Once at a time: runs, attaches to the one that runs, or waits for another job of the same id.
    async fn entered(self: Arc<Self>, mut arrived: Arrived, payload: H::Payload) {
        loop {
            let Arrived { delivery, carried, job, slot } = arrived;
            match self.running.enter(&job.id, delivery) {
                Entered::Run(run, delivery) => {
                    return self.run(run, Arrived { delivery, carried, job, slot }, payload).await;
                }
                Entered::Attached => return debug!("attached to the delivery of this job that runs here"),
                Entered::Busy(delivery, ended) => {
                    if timeout(self.policy.attempt_timeout, ended.cancelled()).await.is_err() {
                        return self.postpone(delivery, &carried, Duration::from_secs(1)).await;
                    }
                    arrived = Arrived { delivery, carried, job, slot };
                }
            }
        }
    }

    async fn run(self: Arc<Self>, run: Run, arrived: Arrived, payload: H::Payload) {
        let Arrived { delivery, mut carried, job, slot } = arrived;
        let state = match carried.state.as_deref().map_or_else(|| Ok(H::State::default()), serde_json::from_str) {
            Ok(state) => state,
            Err(error) => {
                warn!(%error, "the state of this job is of another version: given back for a minute");
                let lane = lane_again(delivery.lane);
                return self.move_to(delivery, lane, UNREADABLE_STATE_WAIT).await;
            }
        };
        let began = self.clock.now();
        if !carried.begun() {
            self.note_queue_wait(&delivery.message, began);
        }
        let started_at = *carried.started_at.get_or_insert(began);
        let context = self.context(&job, &carried, &delivery, started_at);
        metrics::gauge!(metric::JOBS_IN_FLIGHT, "kind" => self.kind()).increment(1.0);
        let ended = tokio::select! {
            ended = self.attempt(&context, payload, state) => ended,
            never = stop_when_lost(&context, &delivery) => match never {},
        };
        metrics::gauge!(metric::JOBS_IN_FLIGHT, "kind" => self.kind()).decrement(1.0);
        carried.requests += context.requests.load(Ordering::Relaxed);
        let conclusion = self.conclude(&job, carried, &delivery, ended);
        self.settle(run, delivery, conclusion, slot).await;
    }

    fn context(&self, job: &Job, carried: &Carried, delivery: &Delivery, started_at: Timestamp) -> JobContext {
        let text = |name: &str| delivery.message.headers.get(name).and_then(|value| value.as_str()).map(str::to_owned);
        JobContext {
            id: job.id.clone(),
            kind: H::KIND,
            attempts: carried.attempts,
            max_attempts: job.max_attempts,
            generation: carried.generation,
            begun: delivery.lane != Lane::Jobs,
            returns: delivery.returns,
            started_at,
            traceparent: text("traceparent"),
            tracestate: text("tracestate"),
            stop: self.drain.child_token(),
            clock: self.clock.clone(),
            genesys: self.genesys.clone(),
            requests: 0.into(),
        }
    }

    /// Hands the job to the handler: a panic is an error of this attempt, and so is not coming to an end.
    async fn attempt(&self, context: &JobContext, payload: H::Payload, state: H::State) -> Ended {
        let mut handling =
            std::pin::pin!(AssertUnwindSafe(self.handler.handle(context, payload, state)).catch_unwind());
        let limit = async {
            tokio::select! {
                () = sleep(self.policy.attempt_timeout) => context.stop.cancel(),
                () = context.stop.cancelled() => {}
            }
            sleep(STOPPING_GRACE).await;
        };
        let result = tokio::select! {
            result = &mut handling => result,
            () = limit => return Ended::Error(JobError::new(ErrorClass::Transient, "api_timeout", "the attempt did not end in its time")),
        };
        match result {
            Ok(Ok(Progress::Done(report))) => Ended::Done(serde_json::to_value(report).unwrap_or(Value::Null)),
            Ok(Ok(Progress::Begun { state, again_in })) => begun(&state, again_in),
            Ok(Err(error)) => Ended::Error(error),
            Err(panic) => Ended::Error(JobError::new(
                ErrorClass::Transient,
                "panicked",
                format!("the handler panicked: {}", panic_text(&*panic)),
            )),
        }
    }

    /// What follows from how the attempt ended, with its closing log line and metrics.
    fn conclude(&self, job: &Job, mut carried: Carried, delivery: &Delivery, ended: Ended) -> Conclusion {
        let now = self.clock.now();
        let settlement =
            settle::decide(&ended, carried.attempts, job.max_attempts, &self.policy.retry, fastrand::f64(), now);
        match settlement {
            Settlement::Done => {
                carried.attempts += 1;
                let Ended::Done(report) = ended else { unreachable!("only a done attempt settles as done") };
                let mut ending = self.ending(&job.id, Outcome::Succeeded, &carried, &delivery.message, now);
                ending.action = Some(H::ACTION);
                ending.report = Some(report);
                info!(outcome = "succeeded", attempts = carried.attempts, latency_ms = ending.latency_ms, "job ended");
                Conclusion::Ends { ending: Box::new(ending), dead: None }
            }
            Settlement::Again { after, burned, class } => {
                carried.attempts += u32::from(burned);
                self.note_retry(&ended, class, after);
                carried.state = match ended {
                    Ended::Begun { state, .. } => Some(state),
                    Ended::Error(JobError { state: Some(state), .. }) => Some(state.to_string()),
                    Ended::Error(_) | Ended::Done(_) => carried.state,
                };
                Conclusion::GoesOn { carried: Box::new(carried), lane: lane_again(delivery.lane), after }
            }
            Settlement::Dead { code, cause } => {
                carried.attempts += 1;
                let Ended::Error(error) = ended else { unreachable!("only an error settles as dead") };
                let mut ending = self.ending(&job.id, Outcome::Failed, &carried, &delivery.message, now);
                ending.report.clone_from(&error.report);
                ending.error = Some(event::error_told(&error, code, cause));
                warn!(outcome = "failed", code, cause, attempts = carried.attempts, error = %error.message, "job ended");
                Conclusion::Ends { ending: Box::new(ending), dead: Some((code, cause, error.message)) }
            }
        }
    }

    fn note_retry(&self, ended: &Ended, class: Option<&'static str>, after: Duration) {
        let Some(class) = class else { return debug!(?after, "job begun") };
        metrics::counter!(metric::JOB_RETRIES, "kind" => self.kind(), "class" => class).increment(1);
        if let Ended::Error(error) = ended {
            info!(class, code = error.code, ?after, error = %error.message, "job goes back to the queue");
        }
    }

    fn ending(&self, id: &JobId, outcome: Outcome, carried: &Carried, message: &Message, now: Timestamp) -> Ending {
        let started_at = carried.started_at.unwrap_or(now);
        let since_sent = |sent: u64| {
            started_at.as_millisecond().saturating_sub(i64::try_from(sent).unwrap_or(i64::MAX).saturating_mul(1000))
        };
        Ending {
            kind: self.kind(),
            worker: H::KIND.worker(),
            job: id.clone(),
            outcome,
            action: None,
            environment: self.genesys.environment().to_owned(),
            attempts: carried.attempts,
            generation: carried.generation,
            requests: carried.requests,
            latency_ms: millis(now.as_millisecond() - started_at.as_millisecond()),
            queued_ms: message.timestamp.map(|sent| millis(since_sent(sent))),
            report: None,
            error: None,
            traceparent: message.headers.get("traceparent").and_then(|value| value.as_str()).map(str::to_owned),
            time: now,
        }
    }

    /// Settles the delivery that ran and all that attached to it. One that went stale waits for the message to
    /// come again and attach, so that what was achieved is neither lost nor done twice.
    async fn settle(
        self: Arc<Self>,
        mut run: Run,
        delivery: Delivery,
        conclusion: Conclusion,
        slot: OwnedSemaphorePermit,
    ) {
        let mut waiting = !self.settle_one(delivery, &conclusion).await;
        // The job's work is over: its slot is free for the redelivery it may be waiting for.
        drop(slot);
        loop {
            while let Some(attached) = run.attached() {
                waiting = !self.settle_one(attached, &conclusion).await;
            }
            if !waiting {
                if run.finish() {
                    return;
                }
            } else if !self.redelivered(&run).await {
                return warn!("the delivery was lost with its session and did not come again here");
            }
        }
    }

    async fn redelivered(&self, run: &Run) -> bool {
        let attached = timeout(REDELIVERY_WAIT, run.wait_for_attached());
        self.drain.run_until_cancelled(attached).await.is_some_and(|in_time| in_time.is_ok())
    }

    /// False where the delivery is stale: the message comes again.
    async fn settle_one(&self, delivery: Delivery, conclusion: &Conclusion) -> bool {
        if delivery.settler.is_stale() && conclusion.needs_live_delivery() {
            metrics::counter!(metric::STALE_ACKS).increment(1);
            return false;
        }
        let publications = conclusion.publications(&delivery.message, H::KIND, self.clock.now());
        match delivery.settler.settle(publications).await {
            Ok(settled) => {
                self.count(conclusion);
                settled == Settled::Acknowledged
            }
            Err(error) => {
                not_settled(&error);
                true
            }
        }
    }

    fn count(&self, conclusion: &Conclusion) {
        let Conclusion::Ends { ending, dead } = conclusion else { return };
        let code = dead.as_ref().map_or_else(|| ending.outcome.as_str(), |(reason, ..)| reason);
        let code = if ending.outcome == Outcome::Succeeded { "" } else { code };
        metrics::counter!(metric::JOBS, "kind" => self.kind(), "outcome" => ending.outcome.as_str(), "code" => code.to_owned()).increment(1);
        metrics::counter!(metric::EVENTS_PUBLISHED).increment(1);
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of a job")]
        metrics::histogram!(metric::JOB_DURATION, "kind" => self.kind()).record(ending.latency_ms as f64 / 1000.0);
        if let Some((reason, ..)) = dead {
            metrics::counter!(metric::DEAD_LETTERS, "kind" => self.kind(), "reason" => *reason).increment(1);
        }
    }

    fn note_queue_wait(&self, message: &Message, began: Timestamp) {
        if let Some(sent) = message.timestamp.and_then(|sent| i64::try_from(sent).ok()) {
            #[expect(clippy::cast_precision_loss, reason = "seconds in a queue")]
            let waited = (began.as_millisecond() - sent.saturating_mul(1000)).max(0) as f64 / 1000.0;
            metrics::histogram!(metric::JOB_QUEUE_WAIT, "kind" => self.kind()).record(waited);
            metrics::gauge!(metric::OLDEST_JOB_AGE, "kind" => self.kind()).set(waited);
        }
    }

    /// Ends a delivery that never reached the handler.
    async fn end_unrun(
        &self,
        delivery: Delivery,
        ending: Ending,
        dead: Option<(&'static str, Option<&'static str>, String)>,
    ) {
        let conclusion = Conclusion::Ends { ending: Box::new(ending), dead };
        self.settle_one(delivery, &conclusion).await;
    }

    async fn reject(&self, delivery: Delivery, carried: &Carried, rejection: Rejection) {
        let Rejection { id, code, message, violations } = rejection;
        warn!(outcome = "failed", code, id = %id, error = %message, "job ended");
        let error = JobError { violations, ..JobError::permanent(code, message) };
        // Validation that fails counts as one attempt.
        let carried = Carried { attempts: carried.attempts + 1, ..carried.clone() };
        let mut ending = self.ending(&id, Outcome::Failed, &carried, &delivery.message, self.clock.now());
        ending.error = Some(event::error_told(&error, code, None));
        self.end_unrun(delivery, ending, Some((code, None, error.message))).await;
    }

    async fn convict(&self, delivery: Delivery) {
        let carried = Carried::read(&delivery.message.headers);
        let message = &delivery.message;
        let id = decode::readable_id(&message.body, message.message_id.as_deref(), message.timestamp);
        let told = format!("three processes died while they ran this job alone (last count {})", delivery.returns);
        let error = JobError::permanent("crash_loop", told);
        warn!(outcome = "failed", code = "crash_loop", id = %id, "job ended");
        let mut ending = self.ending(&id, Outcome::Failed, &carried, message, self.clock.now());
        ending.error = Some(event::error_told(&error, "crash_loop", None));
        self.end_unrun(delivery, ending, Some(("crash_loop", None, error.message))).await;
    }

    async fn expire(&self, delivery: Delivery, carried: &Carried, job: Job) {
        let deadline = job.deadline.map(|deadline| deadline.to_string()).unwrap_or_default();
        let error = JobError::permanent(
            "deadline_passed",
            format!("not started by its deadline {deadline}; nothing was called"),
        );
        info!(outcome = "expired", code = "deadline_passed", "job ended");
        let mut ending = self.ending(&job.id, Outcome::Expired, carried, &delivery.message, self.clock.now());
        ending.error = Some(event::error_told(&error, "deadline_passed", None));
        self.end_unrun(delivery, ending, None).await;
    }

    /// Back to its own lane for `wait`; nothing was begun, nothing is burned.
    async fn postpone(&self, delivery: Delivery, carried: &Carried, wait: Duration) {
        let carried = Carried { not_before: None, ..carried.clone() };
        let publication = report::again(&delivery.message, &carried, H::KIND, delivery.lane, wait, self.clock.now());
        self.settle_moved(delivery, publication).await;
    }

    /// Unrun, as it is, into `lane` after `wait`.
    pub(super) async fn move_to(&self, delivery: Delivery, lane: Lane, wait: Duration) {
        let publication = report::moved(&delivery.message, H::KIND, lane, wait);
        self.settle_moved(delivery, publication).await;
    }

    async fn settle_moved(&self, delivery: Delivery, publication: Publication) {
        if delivery.settler.is_stale() {
            return;
        }
        if let Err(error) = delivery.settler.settle(vec![publication]).await {
            not_settled(&error);
        }
    }
}

/// Of a kind that one process at a time works: stops the attempt once the session is lost, and with it the lock.
async fn stop_when_lost(context: &JobContext, delivery: &Delivery) -> Infallible {
    if context.kind.is_exclusive() {
        delivery.settler.lost().await;
        context.stop.cancel();
    }
    std::future::pending().await
}

/// How long the job may not start yet, if so.
fn not_yet(job: &Job, carried: &Carried, now: Timestamp) -> Option<Duration> {
    let not_before = carried.not_before.or(job.not_before.filter(|_| !carried.begun()))?;
    Duration::try_from(not_before.duration_since(now)).ok().filter(|wait| !wait.is_zero())
}

/// Where a job goes on that came by `lane`: begun jobs by the resume queue, suspects stay among themselves.
fn lane_again(lane: Lane) -> Lane {
    match lane {
        Lane::Jobs | Lane::Resume => Lane::Resume,
        Lane::Suspect => Lane::Suspect,
    }
}

fn begun<S: serde::Serialize>(state: &S, again_in: Duration) -> Ended {
    match serde_json::to_string(state) {
        Ok(state) if state.len() <= MAX_STATE_BYTES => Ended::Begun { state, again_in },
        Ok(state) => {
            let told = format!("the state has {} bytes; at most {MAX_STATE_BYTES} travel with a job", state.len());
            Ended::Error(JobError::permanent("state_too_large", told))
        }
        Err(error) => Ended::Error(JobError::permanent("state_too_large", format!("the state is no JSON: {error}"))),
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

fn not_settled(error: &QueueError) {
    warn!(%error, "not settled: the message comes again");
}

fn millis(difference: i64) -> u64 {
    u64::try_from(difference).unwrap_or(0)
}
