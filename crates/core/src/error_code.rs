//! The error codes of every kind (SPEC 2). A worker's own are in its [`ContractTerms`](crate::contract::ContractTerms).

/// An error code and its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorCode {
    /// The value of `error.code`, of `error.cause`, and of the header `genfleet-reason`.
    pub code: &'static str,
    /// The meaning, for people.
    pub meaning: &'static str,
}

impl ErrorCode {
    /// A code with its meaning.
    pub const fn new(code: &'static str, meaning: &'static str) -> Self {
        Self { code, meaning }
    }
}

/// The codes of every kind.
pub const COMMON_CODES: [ErrorCode; 17] = [
    ErrorCode::new("undecodable", "The body is not JSON, or nested deeper than 64."),
    ErrorCode::new("too_large", "The body has more than 1 MiB, or more than 100,000 values."),
    ErrorCode::new("invalid_job", "The job breaks rules: all of them are in violations."),
    ErrorCode::new("kind_mismatch", "The job says another kind than the queue it came by."),
    ErrorCode::new(
        "unknown_kind",
        "No job has that routing key: nothing was run, and the message is kept with what matches no queue. Only of kind unknown.",
    ),
    ErrorCode::new("deadline_passed", "Not started by its deadline; nothing was called. Only of expired jobs."),
    ErrorCode::new("rejected", "The API refused what was asked (400, 422)."),
    ErrorCode::new("forbidden", "The API forbids it (403): the OAuth client lacks a scope or a permission."),
    ErrorCode::new("not_found", "The API knows no such thing (404, in the API's own words)."),
    ErrorCode::new("conflict", "Somebody else changed it at the same time (409, 412)."),
    ErrorCode::new(
        "unexpected_response",
        "The answer was not what was promised; as a cause: a page of somebody between here and the API.",
    ),
    ErrorCode::new(
        "attempts_exhausted",
        "It did not succeed in maxAttempts attempts; cause says why the last one did not.",
    ),
    ErrorCode::new("panicked", "A defect of the worker."),
    ErrorCode::new("crash_loop", "Processes died while they ran this job on its own."),
    ErrorCode::new("api_unavailable", "The API could not be reached or failed (5xx). Only a cause."),
    ErrorCode::new("api_timeout", "The API, or the attempt, took too long. Only a cause."),
    ErrorCode::new("throttled", "The API's limits let nothing through. Only a cause."),
];
