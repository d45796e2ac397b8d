//! A call of the API that did not succeed, with all that the API said about it.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::{Method, header::HeaderMap};
use serde_json::{Map, Value};

use crate::answer_body::{FURTHER_MEMBERS, context_id, request_id};
use genfleet_job::error::{ErrorClass, HELD_SPREAD, JobError};

/// The most rounds of reading an object and changing it, where each time somebody else was faster.
pub const STALE_ROUNDS: u32 = 5;

/// A call that did not succeed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The consequence for the job.
    pub class: ErrorClass,
    /// The code, from SPEC 2.
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
    /// The known members of the API's error body, or the first 500 characters as `body` if it is not JSON.
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

    /// Returns true if the object changed since it was read: the answer to `method` was 409 and that is PUT, or 400
    /// with a message about a version that does not match. Read it again and send the change anew, at most
    /// [`STALE_ROUNDS`] times in all.
    pub fn is_stale_version(&self, method: &Method) -> bool {
        let message = self.details.get("message").and_then(Value::as_str).unwrap_or_default().to_ascii_lowercase();
        match self.status {
            Some(409) => *method == Method::PUT,
            Some(400) => message.contains("does not match") && message.contains("version"),
            _ => false,
        }
    }

    /// The attempt's time is over, or the process drains.
    pub(crate) fn interrupted() -> Self {
        Self::new(ErrorClass::Interrupted, "interrupted", "stopped between two requests; the job continues from here")
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
        let request_id = request_id(headers).or_else(|| context_id(&details));
        Self { status: Some(status), request_id, details, ..self }
    }
}

impl From<ApiError> for JobError {
    /// The details go into the event's `error` as `api`, and what names the object in question beside it, too.
    fn from(error: ApiError) -> Self {
        let mut job = Self::new(error.class, error.code, error.message);
        job.status = error.status;
        job.request_id = error.request_id;
        job.retry_after = error.retry_after;
        job.probed_until = error.probed_until;
        for name in FURTHER_MEMBERS {
            let is_object = name == "messageParams";
            let said =
                error.details.get(name).filter(|said| if is_object { said.is_object() } else { said.is_string() });
            job.details.extend(said.map(|said| (name.to_owned(), said.clone())));
        }
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
    fn a_stale_version_is_known_by_the_status_and_the_words() {
        let error = |status, message: &str| {
            let details = Map::from_iter([("message".to_owned(), message.into())]);
            ApiError { status: Some(status), details, ..ApiError::new(ErrorClass::Permanent, "rejected", "no") }
        };
        let words = "The version 3 does not match the current one";
        for (status, message, method, stale) in [
            (409, "", Method::PUT, true),
            (409, words, Method::PATCH, false),
            (409, "", Method::POST, false),
            (400, words, Method::PUT, true),
            (400, words, Method::PATCH, true),
            (400, "The name does not match", Method::PUT, false),
            (400, "no such version", Method::PUT, false),
            (412, words, Method::PUT, false),
        ] {
            assert_eq!(error(status, message).is_stale_version(&method), stale, "{status} {message} {method}");
        }
        assert!(!ApiError::new(ErrorClass::Transient, "api_timeout", words).is_stale_version(&Method::PUT));
    }

    #[test]
    fn a_job_error_keeps_what_the_api_said_beside_its_own_code() {
        let mut error = ApiError::new(ErrorClass::Permanent, "rejected", "no");
        error.details = error_details(br#"{"code":"bad.request"}"#);
        error.status = Some(400);
        error.retry_after = Duration::from_secs(3);
        let job = JobError::from(error);
        assert_eq!((job.code, job.status, job.retry_after), ("rejected", Some(400), Duration::from_secs(3)));
        assert_eq!(job.details["api"]["code"], "bad.request");
        assert_eq!(job.details.len(), 1);
    }

    #[test]
    fn what_names_the_object_is_told_beside_it_and_the_body_names_the_request_where_no_header_does() {
        let body = br#"{"code":"bad.request","contextId":"c","messageWithParams":"no {a}","messageParams":{"a":"b"},
            "entityId":"e","entityName":7}"#;
        let error = ApiError::new(ErrorClass::Permanent, "rejected", "no");
        let mut headers = HeaderMap::new();
        let job = JobError::from(error.clone().with_answer(400, &headers, error_details(body)));
        assert_eq!(job.request_id.as_deref(), Some("c"));
        assert_eq!(job.details["messageParams"]["a"], "b");
        assert_eq!((&job.details["messageWithParams"], &job.details["entityId"]), (&"no {a}".into(), &"e".into()));
        assert!(!job.details.contains_key("entityName"), "it is no text");
        headers.insert("inin-correlation-id", "h".parse().unwrap());
        assert_eq!(error.with_answer(400, &headers, error_details(body)).request_id.as_deref(), Some("h"));
    }
}
