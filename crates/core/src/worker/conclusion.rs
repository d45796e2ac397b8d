//! How a job ended or goes on: from an attempt's end to what is published for it, with its closing log line. Logs
//! name codes, never messages: those may quote the payload, and are in the event.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::{
    engine::Engine,
    failures::Failure,
    report::{self, DeadLetter},
    settle::{self, Ended, Settlement},
};
use crate::{handler::JobHandler, webhook::Receiver};
use genfleet_job::job_headers::{JobHeaders, MAX_STATE_BYTES, PRODUCER, REDRIVEN_BY};
use genfleet_job::{
    Job, JobId, Kind, decode,
    error::JobError,
    event::{self, Ending, Outcome},
    message::{HeaderValue, Lane, Message},
    metric,
    trace_context::TraceContext,
};
use genfleet_queue::{Delivery, Publication};

/// An instant cannot be much later than this.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// The same for every delivery that attached to the one that ran.
#[derive(Debug)]
pub enum Conclusion {
    /// It ended.
    Ends {
        /// What is told.
        ending: Box<Ending>,
        /// Why it goes to the dead letters, where it does.
        dead: Option<Dead>,
        /// Who is told beside the queue.
        receivers: Vec<Receiver>,
    },
    /// It comes back.
    GoesOn {
        /// Its books.
        carried: Box<JobHeaders>,
        /// By which lane.
        lane: Lane,
        /// When.
        after: Duration,
        /// Why, where an attempt failed.
        error: Option<&'static str>,
    },
}

/// Why a job goes to the dead letters.
#[derive(Debug)]
pub struct Dead {
    /// The event's code.
    pub reason: &'static str,
    /// The last error, where that is `attempts_exhausted`.
    pub cause: Option<&'static str>,
    /// In words.
    pub error: String,
}

impl Conclusion {
    /// It ended, and leaves no dead letter.
    pub fn ends(ending: Ending, receivers: Vec<Receiver>) -> Self {
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

    /// It failed, and its bytes are kept.
    pub fn fails(ending: Ending, dead: Dead, receivers: Vec<Receiver>) -> Self {
        let Dead { reason, cause, .. } = dead;
        let told = |member: &str| {
            let value = ending.error.as_ref().map(|error| &error[member]).filter(|value| !value.is_null())?;
            Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        };
        let (status, request_id) = (told("status"), told("requestId"));
        warn!(id = %ending.job, outcome = "failed", code = reason, cause, status, request_id, attempts = ending.attempts, latency_ms = ending.latency_ms, trace_id = ending.trace_id, "job ended");
        Self::Ends { ending: Box::new(ending), dead: Some(dead), receivers }
    }

    /// Whether it is told by an event: the successes of our own jobs are not.
    pub fn has_event(&self, kind: Kind) -> bool {
        match self {
            Self::Ends { ending, .. } => !kind.is_internal() || ending.outcome != Outcome::Succeeded,
            Self::GoesOn { .. } => false,
        }
    }

    /// What is published for `message`, which is or carries the same job, from `place` in a trace.
    pub fn publications(
        &self,
        message: &Message,
        kind: Kind,
        now: Timestamp,
        place: Option<&TraceContext>,
    ) -> Vec<Publication> {
        match self {
            Self::Ends { .. } if !self.has_event(kind) => Vec::new(),
            Self::Ends { ending, dead, receivers } => {
                let dead =
                    dead.as_ref().map(|Dead { reason, cause, error }| DeadLetter { reason, cause: *cause, error });
                report::ended(message, ending, dead, receivers, place)
            }
            Self::GoesOn { carried, lane, after, .. } => {
                vec![report::again(message, carried, kind, *lane, *after, now, place)]
            }
        }
    }

    /// Whether the job comes back.
    pub fn goes_on(&self) -> bool {
        matches!(self, Self::GoesOn { .. })
    }

    /// How it ended; none where it goes on.
    pub fn outcome(&self) -> Option<Outcome> {
        match self {
            Self::Ends { ending, .. } => Some(ending.outcome),
            Self::GoesOn { .. } => None,
        }
    }

    /// What is remembered of it, where it did not succeed.
    pub fn failure(&self) -> Option<Failure> {
        match self {
            Self::Ends { ending, .. } => Failure::of(ending),
            Self::GoesOn { .. } => None,
        }
    }

    /// Counts one message that ended this way for good.
    pub fn count(&self) {
        let Self::Ends { ending, dead, .. } = self else { return };
        let (kind, outcome) = (ending.kind, ending.outcome.as_str());
        let code = match ending.outcome {
            Outcome::Succeeded => "",
            Outcome::Expired => "deadline_passed",
            Outcome::Failed => dead.as_ref().map_or("", |dead| dead.reason),
        };
        metrics::counter!(metric::JOBS, "kind" => kind, "outcome" => outcome, "code" => code).increment(1);
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of a job")]
        metrics::histogram!(metric::JOB_DURATION, "kind" => kind).record(ending.latency_ms as f64 / 1000.0);
        if let Some(Dead { reason, .. }) = dead {
            metrics::counter!(metric::DEAD_LETTERS, "kind" => kind, "reason" => *reason).increment(1);
        }
    }
}

impl<H: JobHandler> Engine<H> {
    /// What follows from how the attempt ended.
    pub(super) fn conclude(&self, job: &Job, mut carried: JobHeaders, delivery: &Delivery, ended: Ended) -> Conclusion {
        let now = self.clock.now();
        let ended = bounded(ended);
        let receivers = || self.webhooks.receivers(self.kind(), job.webhook.as_deref());
        match settle::decide(&ended, carried.attempts, job.max_attempts, &self.policy.retry, fastrand::f64(), now) {
            Settlement::Done => {
                carried.attempts += 1;
                let mut ending = self.ending(&job.id, Outcome::Succeeded, &carried, delivery, now);
                ending.action = Some(H::ACTION);
                ending.report = ended.into_report();
                Conclusion::ends(ending, receivers())
            }
            Settlement::Again { after, burned, class } => {
                carried.attempts += u32::from(burned);
                self.note_retry(&ended, class, after);
                let error = ended.failure();
                carried.state = ended.into_state().or(carried.state);
                Conclusion::GoesOn { carried: Box::new(carried), lane: Lane::Resume, after, error }
            }
            Settlement::Dead { code, cause } => {
                carried.attempts += 1;
                let error = ended.into_error();
                let mut ending = self.ending(&job.id, Outcome::Failed, &carried, delivery, now);
                ending.report.clone_from(&error.report);
                ending.error = Some(event::error_object(&error, code, cause));
                Conclusion::fails(ending, Dead { reason: code, cause, error: error.message }, receivers())
            }
        }
    }

    fn note_retry(&self, ended: &Ended, class: Option<&'static str>, after: Duration) {
        let (Some(class), Ended::Error(error)) = (class, ended) else { return debug!(?after, "job begun") };
        metrics::counter!(metric::JOB_RETRIES, "kind" => self.kind(), "class" => class).increment(1);
        let (status, request_id) = (error.status, error.request_id.as_deref());
        self.failures.retries(format!("{}: {}", error.code, error.message), Instant::now() + after.min(FOREVER));
        info!(class, code = error.code, status, request_id, ?after, "job goes back to the queue");
    }

    /// A job that never reached the handler, or was found to kill processes.
    fn failed(&self, id: &JobId, carried: &JobHeaders, delivery: &Delivery, error: &JobError) -> Ending {
        let mut ending = self.ending(id, Outcome::Failed, carried, delivery, self.clock.now());
        ending.error = Some(event::error_object(error, error.code, None));
        ending
    }

    /// What follows for a message that never reached the handler and is kept: its event, its bytes. Its own webhook is
    /// told as far as one can be read.
    pub(super) fn fail_unrun(
        &self,
        id: &JobId,
        carried: &JobHeaders,
        delivery: &Delivery,
        error: JobError,
    ) -> Conclusion {
        let ending = self.failed(id, carried, delivery, &error);
        let own = decode::extract_webhook(&delivery.message.body);
        let receivers = self.webhooks.receivers(self.kind(), own.as_deref());
        Conclusion::fails(ending, Dead { reason: error.code, cause: None, error: error.message }, receivers)
    }

    /// A job whose deadline passed before it was first started.
    pub(super) fn expired(&self, id: &JobId, carried: &JobHeaders, delivery: &Delivery, error: &JobError) -> Ending {
        Ending { outcome: Outcome::Expired, ..self.failed(id, carried, delivery, error) }
    }

    fn ending(
        &self,
        id: &JobId,
        outcome: Outcome,
        carried: &JobHeaders,
        delivery: &Delivery,
        now: Timestamp,
    ) -> Ending {
        let started_at = carried.started_at.unwrap_or(now);
        let text = |name: &str| delivery.message.headers.get(name).and_then(HeaderValue::as_str).map(str::to_owned);
        Ending {
            kind: self.kind(),
            worker: H::KIND.worker(),
            job: id.clone(),
            outcome,
            action: None,
            environment: self.genesys.environment().to_owned(),
            attempts: carried.attempts,
            generation: carried.generation,
            producer: text(PRODUCER),
            redriven_by: text(REDRIVEN_BY),
            requests: carried.requests,
            latency_ms: millis(now.as_millisecond() - started_at.as_millisecond()),
            queued: delivery.message.waited(started_at),
            report: None,
            error: None,
            trace_id: delivery.span.context().map(|place| place.trace_id().to_owned()),
            time: now,
            audit: None,
        }
    }
}

/// State that could not travel is a defect of the worker, told at once instead of lost.
fn bounded(ended: Ended) -> Ended {
    let bytes = match &ended {
        Ended::Begun { state, .. } => state.len(),
        Ended::Error(JobError { state: Some(state), .. }) => state.to_string().len(),
        Ended::Error(_) | Ended::Done(_) => 0,
    };
    if bytes <= MAX_STATE_BYTES {
        return ended;
    }
    let told = format!(
        "the worker's state has {bytes} bytes; at most {MAX_STATE_BYTES} travel with a job: a defect of the worker"
    );
    Ended::Error(JobError::permanent("panicked", told))
}

fn millis(difference: i64) -> u64 {
    u64::try_from(difference).unwrap_or(0)
}
