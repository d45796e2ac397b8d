//! The codes that a failed event names (SPEC 2): those every job can fail with. A worker's own are in its
//! [`Terms`](super::Terms).

/// A code and what it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// The value of `error.code`, of `error.cause`, and of the header `genfleet-reason`.
    pub code: &'static str,
    /// For people.
    pub meaning: &'static str,
}

impl Code {
    /// A code with its meaning.
    pub const fn new(code: &'static str, meaning: &'static str) -> Self {
        Self { code, meaning }
    }
}

/// The codes of every kind.
pub const COMMON: [Code; 17] = [
    Code::new("undecodable", "The body is not JSON, or nested deeper than 64."),
    Code::new("too_large", "The body has more than 1 MiB, or more than 100,000 values."),
    Code::new("invalid_job", "The job breaks rules: all of them are in violations."),
    Code::new("kind_mismatch", "The job says another kind than the queue it came by."),
    Code::new(
        "unknown_kind",
        "No job has that routing key: nothing was run, and the message is kept with what matches no queue. Only of kind unknown.",
    ),
    Code::new("deadline_passed", "Not started by its deadline; nothing was called. Only of expired jobs."),
    Code::new("rejected", "The API refused what was asked (400, 422)."),
    Code::new("forbidden", "The API forbids it (403): the OAuth client lacks a scope or a permission."),
    Code::new("not_found", "The API knows no such thing (404, in the API's own words)."),
    Code::new("conflict", "Somebody else changed it at the same time (409, 412)."),
    Code::new(
        "unexpected_response",
        "The answer was not what was promised; as a cause: a page of somebody between here and the API.",
    ),
    Code::new("attempts_exhausted", "It did not succeed in maxAttempts attempts; cause says why the last one did not."),
    Code::new("panicked", "A defect of the worker."),
    Code::new("crash_loop", "Processes died while they ran this job on its own."),
    Code::new("api_unavailable", "The API could not be reached or failed (5xx). Only a cause."),
    Code::new("api_timeout", "The API, or the attempt, took too long. Only a cause."),
    Code::new("throttled", "The API's limits let nothing through. Only a cause."),
];
