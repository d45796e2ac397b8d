//! What a worker asks the API for, on whose behalf, and what it gets back. Sends nothing: that is
//! [`crate::client`].

use bytes::Bytes;
use reqwest::{
    Method,
    header::{HeaderMap, HeaderName, HeaderValue, IF_MATCH},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use crate::{
    classify::{ExpectedAnswer, ExpectedBody},
    error::ApiError,
};
use genfleet_job::{JobId, Kind, lease::Lease, trace_context::TraceContext};

/// May a request whose answer was lost be sent again without looking?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RepeatSafety {
    /// Sending it twice does no more than sending it once.
    Safe,
    /// It creates something: a lost answer is [`Ambiguous`](genfleet_job::error::ErrorClass::Ambiguous), and whoever sent
    /// it looks before sending it again.
    LookUpFirst,
}

/// How often one call is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RetryMode {
    /// With short retries of what is safe to repeat.
    Several,
    /// Whoever sent it decides whether to ask again.
    One,
}

/// What a look brings, unless the request says otherwise.
const READ: ExpectedAnswer = ExpectedAnswer { statuses: &[200], body: ExpectedBody::Json };
/// What a change brings: what was made of it.
const WRITTEN: ExpectedAnswer = ExpectedAnswer { statuses: &[200, 201, 202], body: ExpectedBody::Json };
/// What a removal brings: hardly ever a word.
const REMOVED: ExpectedAnswer = ExpectedAnswer { statuses: &[200, 202, 204], body: ExpectedBody::JsonOrNothing };

/// One call of the API. What it is promised, status and body, is one of three by its method; where a request is promised
/// something else, it says so with [`expect`](Self::expect) and [`may_say_nothing`](Self::may_say_nothing). What the JSON
/// has to hold is read by [`ApiAnswer::json`].
#[derive(Clone, Debug)]
pub struct ApiRequest {
    pub(super) method: Method,
    pub(super) endpoint: &'static str,
    pub(super) path: Option<String>,
    pub(super) query: Vec<(String, String)>,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<Bytes>,
    pub(super) repeat: RepeatSafety,
    pub(super) promise: ExpectedAnswer,
    pub(super) tries: RetryMode,
    /// What its answer may say that it is about.
    pub(super) about: Vec<(&'static str, String)>,
    /// What of it cannot be put into a request at all.
    pub(super) flaw: Option<String>,
}

impl ApiRequest {
    /// Reads. `endpoint` is the path's template (`/api/v2/files/{fileId}/scans`), also the metric label, and the
    /// path itself where [`at`](Self::at) gives none.
    pub fn get(endpoint: &'static str) -> Self {
        Self::new(Method::GET, endpoint, RepeatSafety::Safe, READ)
    }

    /// Replaces.
    pub fn put(endpoint: &'static str) -> Self {
        Self::new(Method::PUT, endpoint, RepeatSafety::Safe, WRITTEN)
    }

    /// Creates, unless [`safe_to_repeat`](Self::safe_to_repeat) says otherwise.
    pub fn post(endpoint: &'static str) -> Self {
        Self::new(Method::POST, endpoint, RepeatSafety::LookUpFirst, WRITTEN)
    }

    /// Removes.
    pub fn delete(endpoint: &'static str) -> Self {
        Self::new(Method::DELETE, endpoint, RepeatSafety::Safe, REMOVED)
    }

    fn new(method: Method, endpoint: &'static str, repeat: RepeatSafety, promise: ExpectedAnswer) -> Self {
        Self {
            method,
            endpoint,
            path: None,
            query: Vec::new(),
            headers: HeaderMap::new(),
            body: None,
            repeat,
            promise,
            tries: RetryMode::Short,
            about: Vec::new(),
            flaw: None,
        }
    }

    /// The path, sent as it is: what it is made of is percent-encoded by the caller where it needs to be.
    #[must_use]
    pub fn at(mut self, path: impl Into<String>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// A pair of the query, encoded here.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "texts and numbers alike")]
    pub fn query(mut self, name: &str, value: impl ToString) -> Self {
        self.query.push((name.to_owned(), value.to_string()));
        self
    }

    /// A header. A value that no header can hold fails the call with `rejected`, unsent.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: &str) -> Self {
        match HeaderValue::from_bytes(value.as_bytes()) {
            Ok(value) => drop(self.headers.insert(name, value)),
            Err(_) => self.flaw = Some(format!("header {name} cannot hold {value:?}")),
        }
        self
    }

    /// `If-Match`: an `ETag` as it was told, or `*`.
    #[must_use]
    pub fn if_match(self, etag: &str) -> Self {
        self.header(IF_MATCH, etag)
    }

    /// The body.
    #[must_use]
    pub fn json(mut self, body: &impl Serialize) -> Self {
        match serde_json::to_vec(body) {
            Ok(json) => self.body = Some(json.into()),
            Err(error) => self.flaw = Some(format!("the body cannot be written as JSON: {error}")),
        }
        self
    }

    /// Sending it twice does no more than sending it once, whatever its method.
    #[must_use]
    pub fn safe_to_repeat(mut self) -> Self {
        self.repeat = RepeatSafety::Safe;
        self
    }

    /// No short retries: a failure is the caller's at once, who asks again by a plan of its own, as a poll does. A pause
    /// that the API asks for, and a new token, are no failures.
    #[must_use]
    pub fn once(mut self) -> Self {
        self.tries = RetryMode::None;
        self
    }

    /// The statuses that are an answer, in place of those of its method: `&[200, 404]` where "not there" is one. 401 and
    /// what throttles are never one.
    #[must_use]
    pub fn expect(mut self, statuses: &'static [u16]) -> Self {
        self.promise.statuses = statuses;
        self
    }

    /// A success may come without a body.
    #[must_use]
    pub fn may_say_nothing(mut self) -> Self {
        self.promise.body = ExpectedBody::JsonOrNothing;
        self
    }

    /// What it asks about: a success whose `member` names something else than `id` is somebody else's answer, and counts as
    /// a proxy's page does. One that does not name it is taken.
    #[must_use]
    pub fn about(mut self, member: &'static str, id: impl Into<String>) -> Self {
        self.about.push((member, id.into()));
        self
    }

    /// What a success with this `body` is about, where that is not what was asked for.
    pub(super) fn mistaken(&self, body: &[u8]) -> Option<String> {
        let said: Map<String, Value> =
            if self.about.is_empty() { return None } else { serde_json::from_slice(body).ok()? };
        self.about.iter().find_map(|(member, asked)| {
            let found = match said.get(*member)? {
                Value::Null => return None,
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let is_other = !found.eq_ignore_ascii_case(asked);
            is_other.then(|| format!("; it is about another {member} ({found:.80?}) than was asked for ({asked:?}): see whether a cache or a gateway answers in its place"))
        })
    }

    /// Whether it changes something: all but GET do.
    pub fn changes(&self) -> bool {
        self.method != Method::GET
    }

    /// The path's template.
    pub fn endpoint(&self) -> &'static str {
        self.endpoint
    }

    /// For logs and messages: method and template.
    pub(super) fn name(&self) -> String {
        format!("{} {}", self.method, self.endpoint)
    }
}

/// On whose behalf a request is sent.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// The kind of job, whose permissions count.
    pub kind: Kind,
    /// The jobs it is sent for: many where a request is shared.
    pub jobs: &'a [JobId],
    /// Where in their traces they are: the first is gone on from, the others are linked.
    pub traces: &'a [TraceContext],
    /// Cancelled when the attempt is over or the process drains: no further request is begun; one in flight is
    /// finished.
    pub stop: &'a CancellationToken,
    /// Of a kind that one process at a time works: no change is sent unless it is known that this is the one.
    pub lease: Option<&'a Lease>,
}

/// A successful answer.
#[derive(Clone, Debug)]
pub struct ApiAnswer {
    /// One of the statuses that were expected.
    pub status: u16,
    /// The API's id of the request: `ININ-Correlation-Id`, else `x-request-id`.
    pub request_id: Option<String>,
    /// All headers.
    pub headers: HeaderMap,
    /// At most 4 MiB.
    pub body: Bytes,
    /// HTTP requests sent for this call, retries included.
    pub requests: u32,
    /// Where in a trace the one that was answered is, where traces are exported.
    pub trace: Option<TraceContext>,
}

impl ApiAnswer {
    /// The body as what was promised; JSON of another form is a permanent `unexpected_response`.
    #[expect(clippy::result_large_err, reason = "once per call, and it goes no further than the worker")]
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        serde_json::from_slice(&self.body).map_err(|error| ApiError::unpromised_body(self, &error.to_string()))
    }

    /// The body as the thing with this `id`; one about something else is a permanent `unexpected_response`.
    #[expect(clippy::result_large_err, reason = "once per call, and it goes no further than the worker")]
    pub fn json_of(&self, id: &str) -> Result<Map<String, Value>, ApiError> {
        let body: Map<String, Value> = self.json()?;
        match body.get("id").and_then(Value::as_str) {
            Some(found) if found.eq_ignore_ascii_case(id) => Ok(body),
            Some(_) => Err(ApiError::unpromised_body(self, &format!("it is about another id than {id}"))),
            None => Err(ApiError::unpromised_body(self, &format!("it does not say that it is about {id}"))),
        }
    }

    /// The body as JSON of any form, `Null` where it is none.
    pub fn value(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_post_has_to_be_looked_up_and_can_say_otherwise() {
        let endpoint = "/api/v2/things";
        for request in [ApiRequest::get(endpoint), ApiRequest::put(endpoint), ApiRequest::delete(endpoint)] {
            assert_eq!(request.repeat, RepeatSafety::Safe, "{}", request.method);
        }
        assert_eq!(ApiRequest::post(endpoint).repeat, RepeatSafety::LookUpFirst);
        assert_eq!(ApiRequest::post(endpoint).safe_to_repeat().repeat, RepeatSafety::Safe);
    }

    #[test]
    fn everything_but_reading_changes_something() {
        let endpoint = "/api/v2/things";
        assert!(!ApiRequest::get(endpoint).changes());
        for request in [ApiRequest::put(endpoint), ApiRequest::post(endpoint), ApiRequest::delete(endpoint)] {
            assert!(request.changes(), "{}", request.method);
        }
        assert!(ApiRequest::post(endpoint).safe_to_repeat().changes());
    }

    #[test]
    fn an_answer_about_something_else_is_known_and_one_that_does_not_say_is_taken() {
        let request = ApiRequest::get("/api/v2/things").about("id", "A-1").about("fileId", "7");
        for taken in [r#"{"id":"a-1","fileId":7}"#, r#"{"id":null}"#, "{}", "[]", "", "<html>", r#"{"other":"b"}"#] {
            assert_eq!(request.mistaken(taken.as_bytes()), None, "{taken}");
        }
        for (other, told) in [(r#"{"id":"b"}"#, "another id"), (r#"{"id":"a-1","fileId":{}}"#, "another fileId")] {
            assert!(request.mistaken(other.as_bytes()).is_some_and(|said| said.contains(told)), "{other}");
        }
    }

    #[test]
    fn a_header_that_cannot_be_sent_is_a_flaw_and_no_panic() {
        let request = ApiRequest::put("/api/v2/things").header(IF_MATCH, "one\r\ntwo: three");
        assert!(request.flaw.is_some_and(|flaw| flaw.contains("if-match")));
        assert!(request.headers.is_empty());
    }
}
