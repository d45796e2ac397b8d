//! What went wrong with a job. An error knows its class where it is born; whoever handles it matches the class
//! exhaustively.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::Violations;

/// What follows from an error (SPEC 4, 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// May go better next time: burns the attempt, the job waits in the queue.
    Transient,
    /// May have had its effect: like transient; the handler looks before it repeats.
    Ambiguous,
    /// Not now: the API or a brake says when. Burns no attempt.
    Held {
        /// Not before this.
        until: Timestamp,
        /// And at most so much later, by chance: of many that wait for the same not all come back in one instant.
        spread: Duration,
    },
    /// Our credentials are bad: a matter of the process, not of the job. Burns no attempt.
    Credentials,
    /// The attempt's time is over or the process is draining. Burns no attempt; the job goes on at once.
    Interrupted,
    /// Will not go better: the job fails.
    Permanent,
}

/// The `spread` of [`ErrorClass::Held`] where the API or a brake holds many.
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

/// Why a job did not succeed now, with what it achieved so far.
#[derive(Clone, Debug, PartialEq)]
pub struct JobError {
    /// What follows.
    pub class: ErrorClass,
    /// One of SPEC 2's codes, or the worker's own.
    pub code: &'static str,
    /// What was wrong, where, and what to do.
    pub message: String,
    /// The API's status.
    pub status: Option<u16>,
    /// The API's id of the request.
    pub request_id: Option<String>,
    /// What a job that cannot be worked violates.
    pub violations: Violations,
    /// Never retried sooner than this.
    pub retry_after: Duration,
    /// It was a probe of an API that answers nobody: burns no attempt, and the next is not before this.
    pub probed_until: Option<Timestamp>,
    /// More members of the event's `error`, the worker's own.
    pub details: Map<String, Value>,
    /// What was achieved, told beside the error.
    pub report: Option<Value>,
    /// What a next attempt goes on from (`JobHandler::State`); `None` keeps what it had.
    pub state: Option<Value>,
}

impl JobError {
    /// An error of `class` with nothing achieved.
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

    /// A job that will never go better.
    pub fn permanent(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(ErrorClass::Permanent, code, message)
    }

    /// A job that breaks rules.
    pub fn invalid(violations: Violations) -> Self {
        let message = violations.summary();
        Self { violations, ..Self::permanent("invalid_job", message) }
    }

    /// The attempt's time is over, or the process drains.
    pub fn interrupted() -> Self {
        Self::new(ErrorClass::Interrupted, "interrupted", "stopped between two requests; it goes on from here")
    }

    /// With what was achieved, told beside the error.
    #[must_use]
    pub fn with_report(mut self, report: Value) -> Self {
        self.report = Some(report);
        self
    }

    /// With what a next attempt goes on from.
    #[must_use]
    pub fn with_state(mut self, state: Value) -> Self {
        self.state = Some(state);
        self
    }
}
