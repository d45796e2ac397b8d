//! A successful answer of the API.

use bytes::Bytes;
use reqwest::header::HeaderMap;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{answer_body::error_details, error::ApiError};
use genfleet_job::{error::ErrorClass, trace_context::TraceContext};

/// A successful answer.
#[derive(Clone, Debug)]
pub struct ApiAnswer {
    /// The status, which is one of the expected ones.
    pub status: u16,
    /// The API's id of the request: `ININ-Correlation-Id`, else `x-request-id`.
    pub request_id: Option<String>,
    /// The answer's headers.
    pub headers: HeaderMap,
    /// The body, at most 4 MiB.
    pub body: Bytes,
    /// HTTP requests sent for this call, retries included.
    pub requests: u32,
    /// The trace context of the request that was answered, if traces are exported.
    pub trace: Option<TraceContext>,
}

impl ApiAnswer {
    /// Parses the body; JSON of another form is a permanent `unexpected_response`.
    #[expect(clippy::result_large_err, reason = "once per call, and it goes no further than the worker")]
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        serde_json::from_slice(&self.body).map_err(|error| self.unexpected_body(&error.to_string()))
    }

    /// Parses the body as the object with this `id`; another object is a permanent `unexpected_response`.
    #[expect(clippy::result_large_err, reason = "once per call, and it goes no further than the worker")]
    pub fn json_of(&self, id: &str) -> Result<Map<String, Value>, ApiError> {
        let body: Map<String, Value> = self.json()?;
        match body.get("id").and_then(Value::as_str) {
            Some(found) if found.eq_ignore_ascii_case(id) => Ok(body),
            Some(_) => Err(self.unexpected_body(&format!("it is about another id than {id}"))),
            None => Err(self.unexpected_body(&format!("it does not say that it is about {id}"))),
        }
    }

    /// Returns a header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    fn unexpected_body(&self, why: &str) -> ApiError {
        let message = format!("the API answered {} with a body that is not what was promised: {why}", self.status);
        ApiError {
            status: Some(self.status),
            request_id: self.request_id.clone(),
            requests: self.requests,
            details: error_details(&self.body),
            ..ApiError::new(ErrorClass::Permanent, "unexpected_response", message)
        }
    }
}
