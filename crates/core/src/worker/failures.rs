//! The last jobs of this process that failed, for the page of the admin port. Codes, never messages: those may quote a
//! payload, and are in the event.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use serde::Serialize;
use tokio::time::Instant;

use genfleet_job::event::Ending;

/// So many are remembered.
const KEPT: usize = 50;

/// A job that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// RFC 3339.
    time: String,
    kind: String,
    job: String,
    /// As in the event.
    code: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<String>,
    /// Of the API's answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    attempts: u32,
}

impl Failure {
    /// What is kept of a job's end; `None` where it did not fail.
    pub fn of(ending: &Ending) -> Option<Self> {
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

/// The last failures, over all kinds of the process, and the last attempt that failed and is made again.
#[derive(Clone, Debug, Default)]
pub struct Failures(Arc<Mutex<VecDeque<Failure>>>, Arc<Mutex<Option<(String, Instant)>>>);

impl Failures {
    /// Remembers one, and forgets the oldest where there are too many.
    pub fn note(&self, failure: Failure) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.truncate(KEPT - 1);
        kept.push_front(failure);
    }

    /// An attempt failed, for the reason `why`, and its job is tried again at `until`.
    pub fn retries(&self, why: String, until: Instant) {
        let mut last = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        // The one that is waited for longest.
        if last.as_ref().is_none_or(|(_, known)| *known <= until) {
            *last = Some((why, until));
        }
    }

    /// Why an attempt failed whose job waits still, and until when.
    pub fn retrying(&self, now: Instant) -> Option<(String, Instant)> {
        self.1.lock().unwrap_or_else(PoisonError::into_inner).clone().filter(|(_, until)| *until > now)
    }

    /// The last first.
    pub fn last(&self) -> Vec<Failure> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(job: usize) -> Failure {
        let text = || "x".to_owned();
        let (time, kind, code) = (text(), text(), text());
        Failure { time, kind, job: job.to_string(), code, cause: None, status: None, request_id: None, attempts: 1 }
    }

    #[test]
    fn the_retry_that_is_waited_for_longest_is_told_until_it_is_made() {
        let (failures, now) = (Failures::default(), Instant::now());
        let second = std::time::Duration::from_secs(1);
        assert_eq!(failures.retrying(now), None);
        failures.retries("late".to_owned(), now + 10 * second);
        failures.retries("soon".to_owned(), now + second);
        assert_eq!(failures.retrying(now + 5 * second), Some(("late".to_owned(), now + 10 * second)));
        assert_eq!(failures.retrying(now + 10 * second), None);
    }

    #[test]
    fn the_last_fifty_are_kept_the_last_first() {
        let failures = Failures::default();
        (0..KEPT + 10).for_each(|job| failures.note(failure(job)));
        let kept: Vec<_> = failures.last().into_iter().map(|one| one.job).collect();
        assert_eq!(kept, (10..KEPT + 10).rev().map(|job| job.to_string()).collect::<Vec<_>>());
    }
}
