//! Why a call of the API did not succeed, with all that the API said about it.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::HeaderMap;
use serde_json::{Map, Value};

use crate::{classify::AnswerAuthor, request::ApiAnswer};
use genfleet_job::error::{ErrorClass, HELD_SPREAD, JobError};

/// What of a body that is not JSON is told, in characters.
const BODY_TOLD: usize = 500;
/// What of one member of a body is told, in characters: an event has to stay small.
const MEMBER_TOLD: usize = 2000;
/// The members of error bodies, the platform's and OAuth's.
const MEMBERS: [&str; 9] =
    ["message", "code", "contextId", "details", "errors", "limit", "error", "error_description", "description"];

/// A call that did not succeed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// What follows.
    pub class: ErrorClass,
    /// One of SPEC 2's codes.
    pub code: &'static str,
    /// What was wrong, where, and what to do.
    pub message: String,
    /// The API's status.
    pub status: Option<u16>,
    /// The API's id of the request.
    pub request_id: Option<String>,
    /// Never retried sooner than this.
    pub retry_after: Duration,
    /// The request was a probe of an API that answers nobody; the next one is not before this.
    pub probed_until: Option<Timestamp>,
    /// HTTP requests sent for this call, retries included.
    pub requests: u32,
    /// What the API's body said: its known members, or the first 500 characters as `body` where it is not JSON.
    pub told: Map<String, Value>,
}

impl ApiError {
    /// An error that no answer stands behind.
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
            told: Map::new(),
        }
    }

    /// The attempt's time is over, or the process drains.
    pub(super) fn interrupted() -> Self {
        Self::new(ErrorClass::Interrupted, "interrupted", "stopped between two requests; it goes on from here")
    }

    /// Not before `until`.
    pub(super) fn held(until: Timestamp, code: &'static str, message: impl Into<String>) -> Self {
        Self::new(ErrorClass::Held { until, spread: HELD_SPREAD }, code, message)
    }

    /// The process' credentials are bad.
    pub(super) fn credentials(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::Credentials, "credentials", message)
    }

    /// A successful answer whose body is not what was promised.
    pub(super) fn unpromised_body(answer: &ApiAnswer, why: &str) -> Self {
        let message = format!("the API answered {} with a body that is not what was promised: {why}", answer.status);
        Self {
            status: Some(answer.status),
            request_id: answer.request_id.clone(),
            requests: answer.requests,
            told: told(&answer.body),
            ..Self::new(ErrorClass::Permanent, "unexpected_response", message)
        }
    }

    /// With the answer that stands behind it.
    #[must_use]
    pub(super) fn with_answer(self, status: u16, headers: &HeaderMap, told: Map<String, Value>) -> Self {
        Self { status: Some(status), request_id: request_id(headers), told, ..self }
    }
}

impl From<ApiError> for JobError {
    /// What the API said goes into the event's `error` as `api`.
    fn from(error: ApiError) -> Self {
        let mut job = Self::new(error.class, error.code, error.message);
        job.status = error.status;
        job.request_id = error.request_id;
        job.retry_after = error.retry_after;
        job.probed_until = error.probed_until;
        if !error.told.is_empty() {
            job.details.insert("api".to_owned(), Value::Object(error.told));
        }
        job
    }
}

/// The API's id of a request.
pub(crate) fn request_id(headers: &HeaderMap) -> Option<String> {
    ["inin-correlation-id", "x-request-id"]
        .into_iter()
        .find_map(|name| headers.get(name)?.to_str().ok().filter(|id| !id.is_empty()))
        .map(|id| cut(id, 256))
}

/// Requester wrote a body.
pub(crate) fn author(body: &[u8]) -> AnswerAuthor {
    match serde_json::from_slice(body) {
        Ok(Value::Object(said)) if MEMBERS.iter().any(|member| said.contains_key(*member)) => AnswerAuthor::Api,
        Ok(_) => AnswerAuthor::Json,
        Err(_) if body.trim_ascii().is_empty() => AnswerAuthor::Nobody,
        Err(_) => AnswerAuthor::Intermediary,
    }
}

/// What a body says about an error.
pub(crate) fn told(body: &[u8]) -> Map<String, Value> {
    if let Ok(Value::Object(mut said)) = serde_json::from_slice(body) {
        let member = |name: &str| Some((name.to_owned(), bounded(said.remove(name)?)));
        return MEMBERS.into_iter().filter_map(member).collect();
    }
    let start = body.get(..body.len().min(BODY_TOLD * 4)).unwrap_or_default();
    let text = cut(String::from_utf8_lossy(start).trim(), BODY_TOLD);
    if text.is_empty() { Map::new() } else { Map::from_iter([("body".to_owned(), Value::String(text))]) }
}

/// The same in a sentence: the platform's code and message, or OAuth's, or the text.
pub(crate) fn sentence(told: &Map<String, Value>) -> String {
    let text = |name: &str| told.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let code = text("code").or_else(|| text("error"));
    let message = text("message").or_else(|| text("error_description")).or_else(|| text("description"));
    match (code, message.or_else(|| text("body"))) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(only), None) | (None, Some(only)) => only.to_owned(),
        (None, None) => "it said nothing about it".to_owned(),
    }
}

/// A value that fits: what is longer becomes the beginning of its text.
fn bounded(value: Value) -> Value {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => value,
        Value::String(text) => Value::String(cut(&text, MEMBER_TOLD)),
        Value::Array(_) | Value::Object(_) => {
            let text = value.to_string();
            if text.len() <= MEMBER_TOLD { value } else { Value::String(cut(&text, MEMBER_TOLD)) }
        }
    }
}

fn cut(text: &str, characters: usize) -> String {
    text.chars().take(characters).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_platforms_body_oauths_and_one_that_is_not_json_are_all_told() {
        let platform = json!({"message": "no", "code": "bad.request", "status": 400, "contextId": "c", "details": [],
            "errors": [], "limit": {"key": "k", "namespace": "n", "value": 1}, "entityName": "x"});
        let said = told(platform.to_string().as_bytes());
        assert_eq!(
            said.keys().map(String::as_str).collect::<Vec<_>>(),
            ["message", "code", "contextId", "details", "errors", "limit"]
        );
        assert_eq!(sentence(&said), "bad.request: no");
        let oauth = told(br#"{"error":"invalid_client","error_description":"authentication failed"}"#);
        assert_eq!(sentence(&oauth), "invalid_client: authentication failed");
        let html = told(format!("<html>{}", "é".repeat(600)).as_bytes());
        assert_eq!(html["body"].as_str().unwrap().chars().count(), BODY_TOLD);
        assert!(told(b"").is_empty());
    }

    #[test]
    fn the_apis_own_errors_are_told_from_what_others_write() {
        for (body, wrote) in [
            (r#"{"message":"no","code":"not.found","status":404,"contextId":"c"}"#, AnswerAuthor::Api),
            (r#"{"code":"not.found"}"#, AnswerAuthor::Api),
            (r#"{"error":"invalid_client"}"#, AnswerAuthor::Api),
            (r#"{"id":"a"}"#, AnswerAuthor::Json),
            ("{}", AnswerAuthor::Json),
            ("[]", AnswerAuthor::Json),
            ("", AnswerAuthor::Nobody),
            (" \r\n", AnswerAuthor::Nobody),
            ("default backend - 404", AnswerAuthor::Intermediary),
            ("<html><body>Sign in</body></html>", AnswerAuthor::Intermediary),
            (r#"{"message":"no""#, AnswerAuthor::Intermediary),
        ] {
            assert_eq!(author(body.as_bytes()), wrote, "{body}");
        }
        assert_eq!(author(b"\xff\xfe"), AnswerAuthor::Intermediary);
    }

    #[test]
    fn a_huge_member_does_not_make_a_huge_event() {
        let said = told(json!({"message": "m".repeat(100_000), "errors": vec!["e"; 100_000]}).to_string().as_bytes());
        assert!(Value::Object(said).to_string().len() < 3 * MEMBER_TOLD);
    }

    #[test]
    fn a_job_error_keeps_what_the_api_said_beside_its_own_code() {
        let mut error = ApiError::new(ErrorClass::Permanent, "rejected", "no");
        error.told = told(br#"{"code":"bad.request"}"#);
        error.status = Some(400);
        error.retry_after = Duration::from_secs(3);
        let job = JobError::from(error);
        assert_eq!((job.code, job.status, job.retry_after), ("rejected", Some(400), Duration::from_secs(3)));
        assert_eq!(job.details["api"]["code"], "bad.request");
    }

    #[test]
    fn the_correlation_id_counts_before_the_request_id() {
        let mut headers = HeaderMap::new();
        headers.insert("x-request-id", "second".parse().unwrap());
        assert_eq!(request_id(&headers).as_deref(), Some("second"));
        headers.insert("inin-correlation-id", "first".parse().unwrap());
        assert_eq!(request_id(&headers).as_deref(), Some("first"));
    }
}
