//! The last jobs of this process that failed, for the page of the admin port: codes, never messages. Those may quote a
//! payload and are in the event.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use serde::Serialize;
use tokio::time::Instant;

use genfleet_job::event::Ending;

/// Number of failures remembered.
const KEPT: usize = 50;

/// One failed job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct JobFailure {
    /// RFC 3339.
    time: String,
    kind: String,
    job: String,
    /// The code, as in the event.
    code: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<String>,
    /// Status of the API's response.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    attempts: u32,
}

impl JobFailure {
    /// Summarizes the end of a job; `None` if it did not fail.
    pub(crate) fn of(ending: &Ending) -> Option<Self> {
        let error = ending.error.as_ref()?;
        let text = |member: &str| error[member].as_str().map(str::to_owned);
        Some(Self {
            time: ending.time.to_string(),
            kind: ending.kind.to_owned(),
            job: ending.job.to_string(),
            code: text("code").unwrap_or_default(),
            cause: text("cause"),
            status: error["status"].as_u64(),
            request_id: text("requestId"),
            attempts: ending.attempts,
        })
    }
}

/// The last failures of all kinds of the process, and the retry that is furthest in the future. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Failures(Arc<Mutex<VecDeque<JobFailure>>>, Arc<Mutex<Option<(String, Instant)>>>);

impl Failures {
    /// Adds a failure and forgets the oldest if there are too many.
    pub(crate) fn add(&self, failure: JobFailure) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.truncate(KEPT - 1);
        kept.push_front(failure);
    }

    /// Records that an attempt failed, for the reason `why`, and that its job is retried at `until`.
    pub(crate) fn note_retry(&self, why: String, until: Instant) {
        let mut last = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_ref().is_none_or(|(_, known)| *known <= until) {
            *last = Some((why, until));
        }
    }

    /// Returns the reason and the time of the last retry that is still waited for.
    pub(crate) fn pending_retry(&self, now: Instant) -> Option<(String, Instant)> {
        self.1.lock().unwrap_or_else(PoisonError::into_inner).clone().filter(|(_, until)| *until > now)
    }

    /// Lists the failures, the last one first.
    pub(crate) fn list(&self) -> Vec<JobFailure> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(job: usize) -> JobFailure {
        let text = || "x".to_owned();
        let (time, kind, code) = (text(), text(), text());
        JobFailure { time, kind, job: job.to_string(), code, cause: None, status: None, request_id: None, attempts: 1 }
    }

    #[test]
    fn the_retry_that_is_waited_for_longest_is_told_until_it_is_made() {
        let (failures, now) = (Failures::default(), Instant::now());
        let second = std::time::Duration::from_secs(1);
        assert_eq!(failures.pending_retry(now), None);
        failures.note_retry("late".to_owned(), now + 10 * second);
        failures.note_retry("soon".to_owned(), now + second);
        assert_eq!(failures.pending_retry(now + 5 * second), Some(("late".to_owned(), now + 10 * second)));
        assert_eq!(failures.pending_retry(now + 10 * second), None);
    }

    #[test]
    fn the_last_fifty_are_kept_the_last_first() {
        let failures = Failures::default();
        (0..KEPT + 10).for_each(|job| failures.add(failure(job)));
        let kept: Vec<_> = failures.list().into_iter().map(|one| one.job).collect();
        assert_eq!(kept, (10..KEPT + 10).rev().map(|job| job.to_string()).collect::<Vec<_>>());
    }
}
