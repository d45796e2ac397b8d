//! A call of the API that did not succeed, with all that the API said about it.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::HeaderMap;
use serde_json::{Map, Value};

use crate::answer_body::request_id;
use genfleet_job::error::{ErrorClass, HELD_SPREAD, JobError};

/// A call that did not succeed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The consequence for the job.
    pub class: ErrorClass,
    /// One of SPEC 2's codes.
    pub code: &'static str,
    /// The error, its place, and what to do.
    pub message: String,
    /// The API's status.
    pub status: Option<u16>,
    /// The API's id of the request.
    pub request_id: Option<String>,
    /// The call is not retried sooner than this.
    pub retry_after: Duration,
    /// The request probed an API that does not answer; the next probe is not sent before this.
    pub probed_until: Option<Timestamp>,
    /// HTTP requests sent for this call, retries included.
    pub requests: u32,
    /// The known members of the API's error body, or the first 500 characters as `body` where it is not JSON.
    pub details: Map<String, Value>,
}

impl ApiError {
    /// Makes an error without an answer of the API.
    pub fn new(class: ErrorClass, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            class,
            code,
            message: message.into(),
            status: None,
            request_id: None,
            retry_after: Duration::ZERO,
            probed_until: None,
            requests: 0,
            details: Map::new(),
        }
    }

    /// The attempt's time is over, or the process drains.
    pub(crate) fn interrupted() -> Self {
        Self::new(ErrorClass::Interrupted, "interrupted", "stopped between two requests; it goes on from here")
    }

    pub(crate) fn held(until: Timestamp, code: &'static str, message: impl Into<String>) -> Self {
        Self::new(ErrorClass::Held { until, spread: HELD_SPREAD }, code, message)
    }

    /// The credentials of the process are refused.
    pub(crate) fn credentials(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::Credentials, "credentials", message)
    }

    #[must_use]
    pub(crate) fn with_answer(self, status: u16, headers: &HeaderMap, details: Map<String, Value>) -> Self {
        Self { status: Some(status), request_id: request_id(headers), details, ..self }
    }
}

impl From<ApiError> for JobError {
    /// The details go into the event's `error` as `api`.
    fn from(error: ApiError) -> Self {
        let mut job = Self::new(error.class, error.code, error.message);
        job.status = error.status;
        job.request_id = error.request_id;
        job.retry_after = error.retry_after;
        job.probed_until = error.probed_until;
        if !error.details.is_empty() {
            job.details.insert("api".to_owned(), Value::Object(error.details));
        }
        job
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer_body::error_details;

    #[test]
    fn a_job_error_keeps_what_the_api_said_beside_its_own_code() {
        let mut error = ApiError::new(ErrorClass::Permanent, "rejected", "no");
        error.details = error_details(br#"{"code":"bad.request"}"#);
        error.status = Some(400);
        error.retry_after = Duration::from_secs(3);
        let job = JobError::from(error);
        assert_eq!((job.code, job.status, job.retry_after), ("rejected", Some(400), Duration::from_secs(3)));
        assert_eq!(job.details["api"]["code"], "bad.request");
    }
}
