//! Deliveries whose job does not run: rejected, expired, too early, or suspected of killing processes.

use std::time::Duration;

use jiff::Timestamp;

use super::{outcome::JobOutcome, publications::next_round, settlement::Settlement};
use genfleet_job::{
    Job, JobId, Rejection, decode,
    error::JobError,
    job_headers::JobHeaders,
    message::{Lane, Message},
};
use genfleet_queue::Delivery;

/// Reason not to run the job of a delivery.
#[derive(Debug)]
pub(crate) enum NotRun {
    /// Its message is no valid job: it fails.
    Rejected(Box<Rejection>),
    /// Processes died while they ran it on its own: it fails.
    CrashLoop,
    /// Its deadline passed before it was first started: it expires.
    Expired(Box<Job>),
    /// It may not start for so long, or another job of its id runs: it comes back to its lane after this delay.
    TooEarly(Duration),
    /// It was redelivered too often: it is moved to the suspect queue.
    Suspected,
    /// Its message is moved unchanged into this lane, after this delay.
    Moved(Lane, Duration),
}

impl NotRun {
    /// Rejects a message that cannot be read. It does not become readable elsewhere, however often it came back.
    pub(crate) fn unreadable(message: &Message, code: &'static str, text: String) -> Self {
        Self::Rejected(Box::new(Rejection::new(readable_id(message), code, text)))
    }

    /// Checks the times that `job` may start at.
    pub(crate) fn by_schedule(job: &Job, headers: &JobHeaders, now: Timestamp) -> Result<(), Self> {
        let not_before = headers.not_before.or(job.not_before.filter(|_| !headers.is_started()));
        let wait = not_before.and_then(|at| Duration::try_from(at.duration_since(now)).ok());
        if let Some(wait) = wait.filter(|wait| !wait.is_zero()) {
            return Err(Self::TooEarly(wait));
        }
        if !headers.is_started() && job.deadline.is_some_and(|deadline| deadline < now) {
            return Err(Self::Expired(Box::new(job.clone())));
        }
        Ok(())
    }
}

/// Settles a delivery whose job does not run.
pub(crate) async fn settle_not_run(
    settlement: &Settlement,
    mut delivery: Delivery,
    mut headers: JobHeaders,
    reason: NotRun,
) {
    let kind = &settlement.kind;
    let outcome = match reason {
        NotRun::Rejected(rejection) => {
            let Rejection { id, code, message, violations } = *rejection;
            let error = JobError { violations, ..JobError::permanent(code, message) };
            // Validation that fails counts as one attempt.
            headers.attempts += 1;
            JobOutcome::not_run(kind, &id, &headers, &delivery, error)
        }
        NotRun::CrashLoop => {
            let text = format!("processes died while they ran this job on its own ({} times)", delivery.delivery_count);
            let error = JobError::permanent("crash_loop", text);
            JobOutcome::not_run(kind, &readable_id(&delivery.message), &headers, &delivery, error)
        }
        NotRun::Expired(job) => JobOutcome::expired(kind, &job, &headers, &delivery),
        NotRun::TooEarly(wait) => {
            headers.not_before = None;
            let now = kind.process.clock.now();
            let round = next_round(&delivery.message, &headers, kind.kind, delivery.lane, wait, now, None);
            return settlement.requeue(delivery, round, "postponed").await;
        }
        NotRun::Suspected => {
            headers.suspected += 1;
            delivery.message = headers.write(&delivery.message);
            return settlement.move_to(delivery, Lane::Suspect, Duration::ZERO).await;
        }
        NotRun::Moved(lane, after) => return settlement.move_to(delivery, lane, after).await,
    };
    settlement.settle_outcome(delivery, outcome).await;
}

fn readable_id(message: &Message) -> JobId {
    decode::extract_id(&message.body, message.message_id.as_deref(), message.timestamp)
}
