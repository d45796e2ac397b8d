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
    ErrorCode::new("kind_mismatch", "The job names another kind than the queue through which it came."),
    ErrorCode::new(
        "unknown_kind",
        "No worker handles this routing key: the job was not run, and the message is kept with the unrouted ones. Only in events of the kind unknown.",
    ),
    ErrorCode::new(
        "deadline_passed",
        "The job was not started by its deadline, and nothing was called. Only in events with the outcome expired.",
    ),
    ErrorCode::new(
        "rejected",
        "The API refused the request as wrong: 400, 413, 415, 422, 501, or another status that a retry does not change.",
    ),
    ErrorCode::new("forbidden", "The API forbids it (403): the OAuth client lacks a scope or a permission."),
    ErrorCode::new(
        "not_found",
        "Something that the job refers to does not exist: a 404 with the API's own error body.",
    ),
    ErrorCode::new("conflict", "Somebody else changed it at the same time (409, 412)."),
    ErrorCode::new(
        "unexpected_response",
        "The answer does not have the form that the API promises. As a cause: a proxy or gateway answered instead of the API.",
    ),
    ErrorCode::new(
        "attempts_exhausted",
        "The job did not succeed in maxAttempts attempts; cause is the code of the last one.",
    ),
    ErrorCode::new("panicked", "A defect of the worker."),
    ErrorCode::new("crash_loop", "Processes died while they ran this job on its own."),
    ErrorCode::new("api_unavailable", "The API could not be reached or failed (5xx). Only a cause."),
    ErrorCode::new("api_timeout", "The API, or the attempt, took too long. Only a cause."),
    ErrorCode::new("throttled", "The API's limits permitted no request. Only a cause."),
];
