//! The outcome of a job: it ends, or it goes on with another round. Logs name codes, never messages: those may quote the
//! payload and are in the event.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::{
    attempt::AttemptResult,
    context::KindContext,
    decide::{Decision, decide},
    publications::{self, DeadReason},
};
use crate::{admin::JobFailure, webhook::Receiver};
use genfleet_job::job_headers::{JobHeaders, PRODUCER, REDRIVEN_BY};
use genfleet_job::{
    Job, JobId, Kind, decode,
    error::{ErrorClass, JobError},
    event::{self, Ending, Outcome},
    message::{HeaderValue, Lane, Message},
    metric,
    retry::RetryPolicy,
    trace_context::TraceContext,
};
use genfleet_queue::{Delivery, Publication};

/// Longest delay that is added to an instant, which cannot be much later.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Outcome of a job; the same for every delivery that attached to the one that ran.
#[derive(Debug)]
pub(crate) enum JobOutcome {
    /// It ended.
    Ends {
        /// Content of the event.
        ending: Box<Ending>,
        /// Reason for its dead letter, if it leaves one.
        dead: Option<DeadReason>,
        /// Webhooks that receive the event.
        receivers: Vec<Receiver>,
    },
    /// It comes back.
    GoesOn {
        /// State and counters that it takes along.
        headers: Box<JobHeaders>,
        /// Lane of its next round.
        lane: Lane,
        /// Delay of its next round.
        after: Duration,
        /// Code of the error, if an attempt failed.
        error: Option<&'static str>,
    },
}

impl JobOutcome {
    /// Decides what follows from an attempt.
    pub(crate) fn of_attempt(
        kind: &KindContext,
        policy: &RetryPolicy,
        job: &Job,
        mut headers: JobHeaders,
        delivery: &Delivery,
        result: AttemptResult,
    ) -> Self {
        let now = kind.process.clock.now();
        let decision = decide(result, headers.attempts, job.max_attempts, policy, fastrand::f64(), now);
        let receivers = || kind.process.webhooks.receivers(kind.label(), job.webhook.as_deref());
        match decision {
            Decision::Done(report) => {
                headers.attempts += 1;
                let mut ending = ending_of(kind, job, Outcome::Succeeded, &headers, delivery);
                ending.action = Some(kind.action);
                ending.report = Some(report);
                Self::ends(ending, receivers())
            }
            Decision::Again { after, counts_as_attempt, state, error } => {
                headers.attempts += u32::from(counts_as_attempt);
                headers.state = state.or(headers.state);
                log_retry(kind, error.as_ref(), after);
                let error = error.filter(|error| is_failure(error.class)).map(|error| error.code);
                Self::GoesOn { headers: Box::new(headers), lane: Lane::Resume, after, error }
            }
            Decision::Dead { code, cause, error } => {
                headers.attempts += 1;
                let mut ending = ending_of(kind, job, Outcome::Failed, &headers, delivery);
                ending.error = Some(event::error_object(&error, code, cause));
                ending.report = error.report;
                Self::fails(ending, DeadReason { reason: code, cause, error: error.message }, receivers())
            }
        }
    }

    /// Fails a job that did not run in this delivery; its bytes are kept. Its own webhook receives the event if the body
    /// names one that can be read.
    pub(crate) fn not_run(
        kind: &KindContext,
        id: &JobId,
        headers: &JobHeaders,
        delivery: &Delivery,
        error: JobError,
    ) -> Self {
        let mut ending = ending(kind, id, Outcome::Failed, headers, delivery);
        ending.error = Some(event::error_object(&error, error.code, None));
        let own = decode::extract_webhook(&delivery.message.body);
        let receivers = kind.process.webhooks.receivers(kind.label(), own.as_deref());
        Self::fails(ending, DeadReason { reason: error.code, cause: None, error: error.message }, receivers)
    }

    /// Ends a job whose deadline passed before it was first started.
    pub(crate) fn expired(kind: &KindContext, job: &Job, headers: &JobHeaders, delivery: &Delivery) -> Self {
        let deadline = job.deadline.map(|deadline| deadline.to_string()).unwrap_or_default();
        let mut message = match delivery.delivery_count {
            0 => format!("not started by its deadline {deadline}; nothing was called"),
            count => format!(
                "not started by its deadline {deadline}, unless by one of those that gave it back or died ({count}) \
                 without saying how far they came"
            ),
        };
        // By the producer's clock the job may not have expired.
        if let Some(clock) = kind.process.genesys.clock_warning() {
            message = format!("{message}; {clock}");
        }
        let mut ending = ending_of(kind, job, Outcome::Expired, headers, delivery);
        let error = JobError::permanent("deadline_passed", message);
        ending.error = Some(event::error_object(&error, error.code, None));
        Self::ends(ending, kind.process.webhooks.receivers(kind.label(), job.webhook.as_deref()))
    }

    fn ends(ending: Ending, receivers: Vec<Receiver>) -> Self {
        let code = ending.error.as_ref().and_then(|error| error["code"].as_str()).unwrap_or_default();
        info!(
            outcome = ending.outcome.as_str(),
            code,
            attempts = ending.attempts,
            latency_ms = ending.latency_ms,
            trace_id = ending.trace_id,
            "job ended"
        );
        Self::Ends { ending: Box::new(ending), dead: None, receivers }
    }

    fn fails(ending: Ending, dead: DeadReason, receivers: Vec<Receiver>) -> Self {
        let member = |name: &str| {
            let value = ending.error.as_ref().map(|error| &error[name]).filter(|value| !value.is_null())?;
            Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        };
        warn!(
            id = %ending.job,
            outcome = "failed",
            code = dead.reason,
            cause = dead.cause,
            status = member("status"),
            request_id = member("requestId"),
            attempts = ending.attempts,
            latency_ms = ending.latency_ms,
            trace_id = ending.trace_id,
            "job ended"
        );
        Self::Ends { ending: Box::new(ending), dead: Some(dead), receivers }
    }

    /// Returns true if an event is published for it. The successes of internal jobs have none.
    pub(crate) fn has_event(&self, kind: Kind) -> bool {
        match self {
            Self::Ends { ending, .. } => !kind.is_internal() || ending.outcome != Outcome::Succeeded,
            Self::GoesOn { .. } => false,
        }
    }

    /// Builds what is published for `message`, which carries the job, from `place` in a trace.
    pub(crate) fn publications(
        &self,
        message: &Message,
        kind: Kind,
        now: Timestamp,
        place: Option<&TraceContext>,
    ) -> Vec<Publication> {
        match self {
            Self::Ends { .. } if !self.has_event(kind) => Vec::new(),
            Self::Ends { ending, dead, receivers } => {
                publications::ended_publications(message, ending, dead.as_ref(), receivers, place)
            }
            Self::GoesOn { headers, lane, after, .. } => {
                vec![publications::next_round(message, headers, kind, *lane, *after, now, place)]
            }
        }
    }

    /// Returns true if the job comes back.
    pub(crate) fn goes_on(&self) -> bool {
        matches!(self, Self::GoesOn { .. })
    }

    /// Counts one message that ended this way for good.
    pub(crate) fn count(&self, kind: &KindContext) {
        let Self::Ends { ending, dead, .. } = self else { return };
        let (label, outcome) = (ending.kind, ending.outcome.as_str());
        let code = match ending.outcome {
            Outcome::Succeeded => "",
            Outcome::Expired => "deadline_passed",
            Outcome::Failed => dead.as_ref().map_or("", |dead| dead.reason),
        };
        metrics::counter!(metric::JOBS, "kind" => label, "outcome" => outcome, "code" => code).increment(1);
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of a job")]
        metrics::histogram!(metric::JOB_DURATION, "kind" => label).record(ending.latency_ms as f64 / 1000.0);
        if let Some(DeadReason { reason, .. }) = dead {
            metrics::counter!(metric::DEAD_LETTERS, "kind" => label, "reason" => *reason).increment(1);
        }
        kind.process.activity.end(kind.kind, ending.outcome, Instant::now());
        if let Some(failure) = JobFailure::of(ending) {
            kind.process.failures.add(failure);
        }
    }
}

/// Returns true for an error that can count as an attempt.
fn is_failure(class: ErrorClass) -> bool {
    match class {
        ErrorClass::Transient | ErrorClass::Ambiguous | ErrorClass::Permanent => true,
        ErrorClass::Held { .. } | ErrorClass::Credentials | ErrorClass::Interrupted => false,
    }
}

fn log_retry(kind: &KindContext, error: Option<&JobError>, after: Duration) {
    let Some(error) = error else { return debug!(?after, "the job made a step and comes back") };
    let class = error.class.as_str();
    metrics::counter!(metric::JOB_RETRIES, "kind" => kind.label(), "class" => class).increment(1);
    let (status, request_id) = (error.status, error.request_id.as_deref());
    let at = Instant::now() + after.min(FOREVER);
    kind.process.failures.note_retry(format!("{}: {}", error.code, error.message), at);
    info!(class, code = error.code, status, request_id, ?after, "job goes back to the queue");
}

fn ending_of(kind: &KindContext, job: &Job, outcome: Outcome, headers: &JobHeaders, delivery: &Delivery) -> Ending {
    let ending = ending(kind, &job.id, outcome, headers, delivery);
    let started_at = headers.started_at.unwrap_or(ending.time);
    Ending { queued: delivery.message.queue_wait(job.not_before, started_at), ..ending }
}

fn ending(kind: &KindContext, id: &JobId, outcome: Outcome, headers: &JobHeaders, delivery: &Delivery) -> Ending {
    let now = kind.process.clock.now();
    let started_at = headers.started_at.unwrap_or(now);
    let text = |name: &str| delivery.message.headers.get(name).and_then(HeaderValue::as_str).map(str::to_owned);
    Ending {
        kind: kind.label(),
        worker: kind.kind.worker(),
        job: id.clone(),
        outcome,
        action: None,
        environment: kind.process.genesys.addresses().environment.clone(),
        attempts: headers.attempts,
        generation: headers.generation,
        producer: text(PRODUCER),
        redriven_by: text(REDRIVEN_BY),
        requests: headers.requests,
        latency_ms: u64::try_from(now.as_millisecond() - started_at.as_millisecond()).unwrap_or(0),
        queued: delivery.message.queue_wait(None, started_at),
        report: None,
        error: None,
        trace_id: delivery.span.context().map(|place| place.trace_id().to_owned()),
        time: now,
        audit: None,
    }
}
