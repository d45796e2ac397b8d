//! What happens to a job after its handler: [`decide`] is the only place that knows. Pure.

use std::time::Duration;

use jiff::Timestamp;

use genfleet_job::{
    error::{ErrorClass, HELD_SPREAD, JobError},
    retry::RetryPolicy,
};

/// How long a job waits in the queue while our credentials are bad.
const CREDENTIALS_WAIT: Duration = Duration::from_secs(30);

/// How an attempt ended, stripped of the worker's types.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "one at a time per job, and never in a collection")]
pub enum Ended {
    /// Done, with its report.
    Done(serde_json::Value),
    /// A durable step, with its state as JSON.
    Begun {
        /// What to go on from.
        state: String,
        /// When.
        again_in: Duration,
    },
    /// Not done.
    Error(JobError),
}

impl Ended {
    /// What a done attempt reports.
    pub fn into_report(self) -> Option<serde_json::Value> {
        match self {
            Self::Done(report) => Some(report),
            Self::Begun { .. } | Self::Error(_) => None,
        }
    }

    /// What a next attempt goes on from, where this one says.
    pub fn into_state(self) -> Option<String> {
        match self {
            Self::Begun { state, .. } => Some(state),
            Self::Error(error) => error.state.map(|state| state.to_string()),
            Self::Done(_) => None,
        }
    }

    /// The code of an error that burned the attempt.
    pub fn failure(&self) -> Option<&'static str> {
        let Self::Error(error) = self else { return None };
        match error.class {
            ErrorClass::Transient | ErrorClass::Ambiguous | ErrorClass::Permanent => Some(error.code),
            ErrorClass::Held { .. } | ErrorClass::Credentials | ErrorClass::Interrupted => None,
        }
    }

    /// Why it failed; an attempt that did not has no reason to be asked.
    pub fn into_error(self) -> JobError {
        match self {
            Self::Error(error) => error,
            Self::Done(_) | Self::Begun { .. } => {
                JobError::permanent("panicked", "an attempt that did not fail was settled as dead")
            }
        }
    }
}

/// What happens to the job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// It ends `succeeded`.
    Done,
    /// It waits in the queue and comes back.
    Again {
        /// How long.
        after: Duration,
        /// Whether this was an attempt that counts.
        burned: bool,
        /// Metric label of the reason; `None` for a step as planned.
        class: Option<&'static str>,
    },
    /// It ends `failed` and goes to the dead letters.
    Dead {
        /// The event's code, and `genfleet-reason`.
        code: &'static str,
        /// The last error, where `code` is `attempts_exhausted`.
        cause: Option<&'static str>,
    },
}

/// The settlement of an attempt that came after `attempts` counted ones, of at most `max_attempts`. `jitter` is
/// 0–1, chosen by chance.
pub fn decide(
    ended: &Ended,
    attempts: u32,
    max_attempts: u32,
    policy: &RetryPolicy,
    jitter: f64,
    now: Timestamp,
) -> Settlement {
    let unburned =
        |after: Duration, class: ErrorClass| Settlement::Again { after, burned: false, class: Some(class.as_str()) };
    let error = match ended {
        Ended::Done(_) => return Settlement::Done,
        Ended::Begun { again_in, .. } => return Settlement::Again { after: *again_in, burned: false, class: None },
        Ended::Error(error) => error,
    };
    let held = |until: Timestamp, spread: Duration| {
        let wait = Duration::try_from(until.duration_since(now)).unwrap_or(Duration::ZERO);
        unburned(wait.max(error.retry_after) + spread.mul_f64(jitter), error.class)
    };
    match error.class {
        ErrorClass::Permanent => Settlement::Dead { code: error.code, cause: None },
        ErrorClass::Transient | ErrorClass::Ambiguous => {
            if let Some(until) = error.probed_until {
                return held(until, HELD_SPREAD);
            }
            let failed = attempts + 1;
            if failed >= max_attempts {
                return Settlement::Dead { code: "attempts_exhausted", cause: Some(error.code) };
            }
            let after = policy.delay(failed, jitter, error.retry_after);
            Settlement::Again { after, burned: true, class: Some(error.class.as_str()) }
        }
        ErrorClass::Held { until, spread } => held(until, spread),
        ErrorClass::Credentials => unburned(CREDENTIALS_WAIT, error.class),
        ErrorClass::Interrupted => unburned(error.retry_after, error.class),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(class: ErrorClass, attempts: u32) -> Settlement {
        let ended = Ended::Error(JobError::new(class, "api_unavailable", "down"));
        decide(&ended, attempts, 8, &RetryPolicy::default(), 0.0, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_transient_failure_burns_an_attempt_and_waits() {
        let expected = Settlement::Again { after: Duration::from_millis(750), burned: true, class: Some("transient") };
        assert_eq!(after(ErrorClass::Transient, 0), expected);
    }

    #[test]
    fn the_last_attempt_ends_the_job_and_keeps_the_cause() {
        let expected = Settlement::Dead { code: "attempts_exhausted", cause: Some("api_unavailable") };
        assert_eq!(after(ErrorClass::Transient, 7), expected);
        assert_eq!(after(ErrorClass::Ambiguous, 7), expected);
    }

    #[test]
    fn a_probe_that_failed_burns_nothing_and_waits_for_the_next_one() {
        for class in [ErrorClass::Transient, ErrorClass::Ambiguous] {
            let mut error = JobError::new(class, "api_unavailable", "down");
            error.probed_until = Some(Timestamp::from_second(20).unwrap());
            let settled =
                decide(&Ended::Error(error), 7, 8, &RetryPolicy::default(), 0.0, Timestamp::from_second(10).unwrap());
            let after = Duration::from_secs(10);
            assert_eq!(settled, Settlement::Again { after, burned: false, class: Some(class.as_str()) });
        }
    }

    #[test]
    fn what_is_not_the_jobs_fault_burns_nothing_however_often() {
        let until = Timestamp::from_second(90).unwrap();
        for class in [ErrorClass::Held { until, spread: HELD_SPREAD }, ErrorClass::Credentials, ErrorClass::Interrupted]
        {
            assert!(matches!(after(class, 49), Settlement::Again { burned: false, .. }), "{class:?}");
        }
    }

    #[test]
    fn a_held_job_waits_until_it_may_go_and_longer_only_where_it_is_one_of_many() {
        let until = Timestamp::from_second(90).unwrap();
        let wait = |spread, jitter| {
            let held = Ended::Error(JobError::new(ErrorClass::Held { until, spread }, "throttled", "later"));
            match decide(&held, 0, 8, &RetryPolicy::default(), jitter, Timestamp::UNIX_EPOCH) {
                Settlement::Again { after, .. } => after.as_secs(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!([wait(HELD_SPREAD, 0.0), wait(HELD_SPREAD, 1.0), wait(Duration::ZERO, 1.0)], [90, 92, 90]);
    }

    #[test]
    fn what_is_interrupted_goes_on_at_once_unless_the_api_asked_for_a_pause() {
        for pause in [Duration::ZERO, Duration::from_secs(3)] {
            let error = JobError { retry_after: pause, ..JobError::interrupted() };
            let settled = decide(&Ended::Error(error), 7, 8, &RetryPolicy::default(), 1.0, Timestamp::UNIX_EPOCH);
            assert_eq!(settled, Settlement::Again { after: pause, burned: false, class: Some("interrupted") });
        }
    }

    #[test]
    fn a_permanent_failure_is_dead_at_once() {
        assert_eq!(after(ErrorClass::Permanent, 0), Settlement::Dead { code: "api_unavailable", cause: None });
    }
}
