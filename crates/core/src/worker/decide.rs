//! The decision what happens to a job after an attempt. Pure; the only place that decides it.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::attempt::AttemptResult;
use genfleet_job::{
    error::{ErrorClass, HELD_SPREAD, JobError},
    retry::RetryPolicy,
};

/// Time that a job waits in the queue while the credentials are rejected.
const CREDENTIALS_WAIT: Duration = Duration::from_secs(30);

/// Decision on a job after an attempt.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Decision {
    /// It ends as `succeeded`, with this report.
    Done(Value),
    /// It comes back from the queue.
    Again {
        /// Delay until then.
        after: Duration,
        /// The attempt counts.
        counts_as_attempt: bool,
        /// State to continue from; `None` keeps the one that the job has.
        state: Option<String>,
        /// Reason; `None` for a step as planned.
        error: Option<JobError>,
    },
    /// It ends as `failed` and becomes a dead letter.
    Dead {
        /// The event's code, and `genfleet-reason`.
        code: &'static str,
        /// Code of the last error, where `code` is `attempts_exhausted`.
        cause: Option<&'static str>,
        /// The last error.
        error: JobError,
    },
}

/// Decides what follows from an attempt. `attempts` counted before it, of at most `max_attempts`; `jitter` is a random
/// number from 0 to 1.
pub(crate) fn decide(
    result: AttemptResult,
    attempts: u32,
    max_attempts: u32,
    policy: &RetryPolicy,
    jitter: f64,
    now: Timestamp,
) -> Decision {
    let error = match result {
        AttemptResult::Done(report) => return Decision::Done(report),
        AttemptResult::Begun { state, again_in } => {
            return Decision::Again { after: again_in, counts_as_attempt: false, state: Some(state), error: None };
        }
        AttemptResult::Error(error) => error,
    };
    let retry_after = error.retry_after;
    let until = |until: Timestamp, spread: Duration| {
        let wait = Duration::try_from(until.duration_since(now)).unwrap_or(Duration::ZERO);
        wait.max(retry_after) + spread.mul_f64(jitter)
    };
    let failed = attempts + 1;
    let (after, counts_as_attempt) = match (error.class, error.probed_until) {
        (ErrorClass::Permanent, _) => return Decision::Dead { code: error.code, cause: None, error },
        (ErrorClass::Transient | ErrorClass::Ambiguous, Some(probed)) => (until(probed, HELD_SPREAD), false),
        (ErrorClass::Transient | ErrorClass::Ambiguous, None) if failed >= max_attempts => {
            return Decision::Dead { code: "attempts_exhausted", cause: Some(error.code), error };
        }
        (ErrorClass::Transient | ErrorClass::Ambiguous, None) => (policy.delay(failed, jitter, retry_after), true),
        (ErrorClass::Held { until: end, spread }, _) => (until(end, spread), false),
        (ErrorClass::Credentials, _) => (CREDENTIALS_WAIT, false),
        (ErrorClass::Interrupted, _) => (retry_after, false),
    };
    let state = error.state.as_ref().map(Value::to_string);
    Decision::Again { after, counts_as_attempt, state, error: Some(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Delay, and whether the attempt counts; or the code and cause of a dead letter.
    type Decided = Result<(Duration, bool), (&'static str, Option<&'static str>)>;

    fn decided(error: JobError, attempts: u32, jitter: f64, now: Timestamp) -> Decided {
        let policy = RetryPolicy::default();
        match decide(AttemptResult::Error(error.clone()), attempts, 8, &policy, jitter, now) {
            Decision::Again { after, counts_as_attempt, error: reason, .. } => {
                assert_eq!(reason, Some(error));
                Ok((after, counts_as_attempt))
            }
            Decision::Dead { code, cause, .. } => Err((code, cause)),
            Decision::Done(report) => panic!("{report}"),
        }
    }

    fn after(class: ErrorClass, attempts: u32) -> Decided {
        decided(JobError::new(class, "api_unavailable", "down"), attempts, 0.0, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_transient_failure_burns_an_attempt_and_waits() {
        assert_eq!(after(ErrorClass::Transient, 0), Ok((Duration::from_millis(750), true)));
    }

    #[test]
    fn the_last_attempt_ends_the_job_and_keeps_the_cause() {
        let expected = Err(("attempts_exhausted", Some("api_unavailable")));
        assert_eq!(after(ErrorClass::Transient, 7), expected);
        assert_eq!(after(ErrorClass::Ambiguous, 7), expected);
    }

    #[test]
    fn a_probe_that_failed_burns_nothing_and_waits_for_the_next_one() {
        for class in [ErrorClass::Transient, ErrorClass::Ambiguous] {
            let mut error = JobError::new(class, "api_unavailable", "down");
            error.probed_until = Some(Timestamp::from_second(20).unwrap());
            let decided = decided(error, 7, 0.0, Timestamp::from_second(10).unwrap());
            assert_eq!(decided, Ok((Duration::from_secs(10), false)));
        }
    }

    #[test]
    fn what_is_not_the_jobs_fault_burns_nothing_however_often() {
        let until = Timestamp::from_second(90).unwrap();
        for class in [ErrorClass::Held { until, spread: HELD_SPREAD }, ErrorClass::Credentials, ErrorClass::Interrupted]
        {
            assert!(matches!(after(class, 49), Ok((_, false))), "{class:?}");
        }
    }

    #[test]
    fn a_held_job_waits_until_it_may_go_and_longer_only_where_it_is_one_of_many() {
        let until = Timestamp::from_second(90).unwrap();
        let wait = |spread, jitter| {
            let held = JobError::new(ErrorClass::Held { until, spread }, "throttled", "later");
            decided(held, 0, jitter, Timestamp::UNIX_EPOCH).unwrap().0.as_secs()
        };
        assert_eq!([wait(HELD_SPREAD, 0.0), wait(HELD_SPREAD, 1.0), wait(Duration::ZERO, 1.0)], [90, 92, 90]);
    }

    #[test]
    fn what_is_interrupted_goes_on_at_once_unless_the_api_asked_for_a_pause() {
        for pause in [Duration::ZERO, Duration::from_secs(3)] {
            let error = JobError { retry_after: pause, ..JobError::interrupted() };
            assert_eq!(decided(error, 7, 1.0, Timestamp::UNIX_EPOCH), Ok((pause, false)));
        }
    }

    #[test]
    fn a_permanent_failure_is_dead_at_once() {
        assert_eq!(after(ErrorClass::Permanent, 0), Err(("api_unavailable", None)));
    }

    #[test]
    fn the_state_of_an_error_goes_along() {
        let error = JobError { state: Some(serde_json::json!({"step": 1})), ..JobError::interrupted() };
        let decision = decide(AttemptResult::Error(error), 0, 8, &RetryPolicy::default(), 0.0, Timestamp::UNIX_EPOCH);
        assert!(matches!(decision, Decision::Again { state: Some(state), .. } if state == r#"{"step":1}"#));
    }
}
