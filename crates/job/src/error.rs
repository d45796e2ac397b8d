//! Errors of jobs. An error gets its class where it is created; its handlers match the class exhaustively.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::Violations;

/// The class of an error, which decides what happens to the job (SPEC 4, 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// May succeed next time: the attempt counts, and the job waits in the queue.
    Transient,
    /// May have had its effect: like transient, but the handler checks before it repeats.
    Ambiguous,
    /// The job must wait for the API or a hold. The attempt does not count.
    Held {
        /// The earliest time.
        until: Timestamp,
        /// The longest random delay after it, so that not all jobs that wait for the same come back at once.
        spread: Duration,
    },
    /// The API refuses our credentials: a problem of the process, not of the job. The attempt does not count.
    Credentials,
    /// The attempt's time is over, or the process drains. The attempt does not count; the job continues at once.
    Interrupted,
    /// Will never succeed: the job fails.
    Permanent,
}

/// The usual `spread` of [`ErrorClass::Held`].
pub const HELD_SPREAD: Duration = Duration::from_secs(2);

impl ErrorClass {
    /// The metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Ambiguous => "ambiguous",
            Self::Held { .. } => "throttled",
            Self::Credentials => "credentials",
            Self::Interrupted => "interrupted",
            Self::Permanent => "permanent",
        }
    }
}

/// The reason why an attempt did not succeed, with what it achieved.
#[derive(Clone, Debug, PartialEq)]
pub struct JobError {
    /// The class.
    pub class: ErrorClass,
    /// The code, from SPEC 2 or of the worker.
    pub code: &'static str,
    /// The problem, its place and its remedy.
    pub message: String,
    /// The status of the API's response.
    pub status: Option<u16>,
    /// The API's id of the request.
    pub request_id: Option<String>,
    /// The violations of an invalid job.
    pub violations: Violations,
    /// The shortest wait before a retry.
    pub retry_after: Duration,
    /// The time of the next probe, if this was a probe of an API that does not answer; then the attempt does not count.
    pub probed_until: Option<Timestamp>,
    /// Further members of the event's `error`, the worker's own.
    pub details: Map<String, Value>,
    /// The results so far, reported with the error.
    pub report: Option<Value>,
    /// The state for the next attempt (`JobHandler::State`); `None` keeps the previous one.
    pub state: Option<Value>,
}

impl JobError {
    /// An error of `class`, with nothing achieved.
    pub fn new(class: ErrorClass, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            class,
            code,
            message: message.into(),
            status: None,
            request_id: None,
            violations: Violations::default(),
            retry_after: Duration::ZERO,
            probed_until: None,
            details: Map::new(),
            report: None,
            state: None,
        }
    }

    /// An error that fails the job.
    pub fn permanent(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(ErrorClass::Permanent, code, message)
    }

    /// The error of an invalid job.
    pub fn invalid(violations: Violations) -> Self {
        let message = violations.summary();
        Self { violations, ..Self::permanent("invalid_job", message) }
    }

    /// The error of an attempt that was interrupted.
    pub fn interrupted() -> Self {
        Self::new(ErrorClass::Interrupted, "interrupted", "stopped between two requests; the job continues from here")
    }

    /// Adds the state for the next attempt.
    #[must_use]
    pub fn with_state(self, state: &impl Serialize) -> Self {
        Self { state: serde_json::to_value(state).ok(), ..self }
    }
}
