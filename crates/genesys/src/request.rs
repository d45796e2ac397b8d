//! A call of the API: the request, the jobs for which it is sent, and the expected answer. [`crate::client`] sends it.

use bytes::Bytes;
use reqwest::{
    Method,
    header::{HeaderMap, HeaderName, HeaderValue, IF_MATCH},
};
use serde::Serialize;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use genfleet_job::{JobId, Kind, lease::Lease, trace_context::TraceContext};

/// The rule for a request whose answer was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RepeatSafety {
    /// Sending it twice does no more than sending it once.
    Safe,
    /// It creates something: if the answer is lost, the error is
    /// [`Ambiguous`](genfleet_job::error::ErrorClass::Ambiguous), and the caller checks whether the object exists before
    /// it sends the request again.
    LookUpFirst,
}

/// The retries of one call within the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RetryMode {
    /// Short retries of what is safe to repeat.
    Short,
    /// No retries. The caller decides whether to send the request again.
    None,
}

/// The answer that a call expects: a success has one of these statuses and such a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExpectedAnswer {
    /// These, and no other. One that is no 2xx is an answer, too, if the API says it itself.
    pub statuses: &'static [u16],
    pub body: ExpectedBody,
}

/// The body of a success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExpectedBody {
    Json,
    JsonOrNothing,
}

const READ: ExpectedAnswer = ExpectedAnswer { statuses: &[200], body: ExpectedBody::Json };
const WRITTEN: ExpectedAnswer = ExpectedAnswer { statuses: &[200, 201, 202], body: ExpectedBody::Json };
const REMOVED: ExpectedAnswer = ExpectedAnswer { statuses: &[200, 202, 204], body: ExpectedBody::JsonOrNothing };

/// One call of the API. Its method determines the status and body that it expects, unless
/// [`expect`](Self::expect) or [`allow_empty_body`](Self::allow_empty_body) says otherwise.
#[derive(Clone, Debug)]
pub struct ApiRequest {
    pub(super) method: Method,
    pub(super) endpoint: &'static str,
    pub(super) path: Option<String>,
    pub(super) query: Vec<(String, String)>,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<Bytes>,
    pub(super) repeat: RepeatSafety,
    pub(super) expected: ExpectedAnswer,
    pub(super) retries: RetryMode,
    /// Members of the answer that name what was asked for.
    pub(super) expected_members: Vec<(&'static str, String)>,
    /// The reason why no request can be built.
    pub(super) flaw: Option<String>,
}

impl ApiRequest {
    /// Reads. `endpoint` is the path's template (`/api/v2/files/{fileId}/scans`), also the metric label, and the
    /// path itself if [`at`](Self::at) gives none.
    pub fn get(endpoint: &'static str) -> Self {
        Self::new(Method::GET, endpoint, RepeatSafety::Safe, READ)
    }

    /// Replaces.
    pub fn put(endpoint: &'static str) -> Self {
        Self::new(Method::PUT, endpoint, RepeatSafety::Safe, WRITTEN)
    }

    /// Changes some members. Sent twice it sets the same values.
    pub fn patch(endpoint: &'static str) -> Self {
        Self::new(Method::PATCH, endpoint, RepeatSafety::Safe, WRITTEN)
    }

    /// Creates, unless [`safe_to_repeat`](Self::safe_to_repeat) says otherwise.
    pub fn post(endpoint: &'static str) -> Self {
        Self::new(Method::POST, endpoint, RepeatSafety::LookUpFirst, WRITTEN)
    }

    /// Removes.
    pub fn delete(endpoint: &'static str) -> Self {
        Self::new(Method::DELETE, endpoint, RepeatSafety::Safe, REMOVED)
    }

    fn new(method: Method, endpoint: &'static str, repeat: RepeatSafety, expected: ExpectedAnswer) -> Self {
        Self {
            method,
            endpoint,
            path: None,
            query: Vec::new(),
            headers: HeaderMap::new(),
            body: None,
            repeat,
            expected,
            retries: RetryMode::Short,
            expected_members: Vec::new(),
            flaw: None,
        }
    }

    /// Sets the path, which is sent as it is: the caller percent-encodes its parts where needed.
    #[must_use]
    pub fn at(mut self, path: impl Into<String>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// Fills the placeholders of the path's template with `ids`, in their order, each encoded as one segment.
    #[must_use]
    pub fn ids(self, ids: &[&str]) -> Self {
        let mut ids = ids.iter();
        let segment = |part: &str| match part.strip_prefix('{').and_then(|_| ids.next()) {
            Some(id) => encode_segment(id),
            None => part.to_owned(),
        };
        let segments: Vec<String> = self.endpoint.split('/').map(segment).collect();
        self.at(segments.join("/"))
    }

    /// Adds a pair to the query; it is encoded here.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "texts and numbers alike")]
    pub fn query(mut self, name: &str, value: impl ToString) -> Self {
        self.query.push((name.to_owned(), value.to_string()));
        self
    }

    /// Sets a header. A value that no header can hold fails the call with `rejected`, unsent.
    #[must_use]
    pub(crate) fn header(mut self, name: HeaderName, value: &str) -> Self {
        match HeaderValue::from_bytes(value.as_bytes()) {
            Ok(value) => drop(self.headers.insert(name, value)),
            Err(_) => self.flaw = Some(format!("header {name} cannot hold {value:?}")),
        }
        self
    }

    /// Sets `If-Match` to an `ETag` as it was received, or `*`.
    #[must_use]
    pub fn if_match(self, etag: &str) -> Self {
        self.header(IF_MATCH, etag)
    }

    /// Sets the body.
    #[must_use]
    pub fn json(mut self, body: &impl Serialize) -> Self {
        match serde_json::to_vec(body) {
            Ok(json) => self.body = Some(json.into()),
            Err(error) => self.flaw = Some(format!("the body cannot be written as JSON: {error}")),
        }
        self
    }

    /// Declares that sending it twice does no more than sending it once, whatever its method.
    #[must_use]
    pub fn safe_to_repeat(mut self) -> Self {
        self.repeat = RepeatSafety::Safe;
        self
    }

    /// Switches short retries off: the caller gets a failure at once and asks again by a plan of its own, as a poll
    /// does. A pause that the API asks for, and a new token, are no failures.
    #[must_use]
    pub fn without_retries(mut self) -> Self {
        self.retries = RetryMode::None;
        self
    }

    /// Replaces the statuses that its method expects: `&[200, 404]` if "not there" is an answer. 401 and 429 are
    /// never one.
    #[must_use]
    pub fn expect(mut self, statuses: &'static [u16]) -> Self {
        self.expected.statuses = statuses;
        self
    }

    /// Accepts a success without a body.
    #[must_use]
    pub fn allow_empty_body(mut self) -> Self {
        self.expected.body = ExpectedBody::JsonOrNothing;
        self
    }

    /// Names the object that the answer has to be about: a success whose `member` is not `id` is the answer to another
    /// request, and counts like a proxy's page. One without that member is accepted.
    #[must_use]
    pub fn expect_member(mut self, member: &'static str, id: impl Into<String>) -> Self {
        self.expected_members.push((member, id.into()));
        self
    }

    /// Describes how `body` is about something else than what was asked for, if it is.
    pub(super) fn find_mismatch(&self, body: &[u8]) -> Option<String> {
        let answer: Map<String, Value> =
            if self.expected_members.is_empty() { return None } else { serde_json::from_slice(body).ok()? };
        self.expected_members.iter().find_map(|(member, asked)| {
            let found = match answer.get(*member)? {
                Value::Null => return None,
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let is_other = !found.eq_ignore_ascii_case(asked);
            is_other.then(|| format!("; it is about another {member} ({found:.80?}) than was asked for ({asked:?}): see whether a cache or a gateway answers in its place"))
        })
    }

    /// Returns true if it changes something: all methods but GET do.
    pub(crate) fn changes(&self) -> bool {
        self.method != Method::GET
    }

    /// Names the call in logs and messages: method and template.
    pub(super) fn name(&self) -> String {
        format!("{} {}", self.method, self.endpoint)
    }
}

/// Percent-encodes everything but unreserved characters.
fn encode_segment(id: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    id.bytes().map(|byte| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// The jobs for which a request is sent.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// The kind of job, whose permissions count.
    pub kind: Kind,
    /// The jobs it is sent for: many if a request is shared.
    pub jobs: &'a [JobId],
    /// The trace contexts of the jobs: the first is continued, the others are linked.
    pub traces: &'a [TraceContext],
    /// Cancelled when the attempt is over or the process drains: no further request is begun; one in flight is
    /// finished.
    pub stop: &'a CancellationToken,
    /// The lease of an exclusive kind. No change is sent unless the lease is certainly held.
    pub lease: Option<&'a Lease>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_post_has_to_be_looked_up_and_can_say_otherwise() {
        let endpoint = "/api/v2/things";
        for request in [ApiRequest::get, ApiRequest::put, ApiRequest::patch, ApiRequest::delete].map(|of| of(endpoint))
        {
            assert_eq!(request.repeat, RepeatSafety::Safe, "{}", request.method);
        }
        assert_eq!(ApiRequest::post(endpoint).repeat, RepeatSafety::LookUpFirst);
        assert_eq!(ApiRequest::post(endpoint).safe_to_repeat().repeat, RepeatSafety::Safe);
    }

    #[test]
    fn an_id_is_one_segment_of_a_path_whatever_is_in_it() {
        let path = |endpoint, ids: &[&str]| ApiRequest::get(endpoint).ids(ids).path.unwrap();
        assert_eq!(
            path("/api/v2/emails/{conversationId}/messages/{messageId}", &["c-1", "<a/../b?c@d>"]),
            "/api/v2/emails/c-1/messages/%3Ca%2F..%2Fb%3Fc%40d%3E"
        );
        for (id, written) in [
            ("8a1f-x_y~z.1", "8a1f-x_y~z.1"),
            ("..x", "..x"),
            ("a/../b?c#d é", "a%2F..%2Fb%3Fc%23d%20%C3%A9"),
            ("a b?c#d%", "a%20b%3Fc%23d%25"),
            ("ü", "%C3%BC"),
        ] {
            assert_eq!(path("/api/v2/things/{id}", &[id]), format!("/api/v2/things/{written}"));
        }
    }

    #[test]
    fn everything_but_reading_changes_something() {
        let endpoint = "/api/v2/things";
        assert!(!ApiRequest::get(endpoint).changes());
        for request in [ApiRequest::put, ApiRequest::patch, ApiRequest::post, ApiRequest::delete].map(|of| of(endpoint))
        {
            assert!(request.changes(), "{}", request.method);
        }
        assert!(ApiRequest::post(endpoint).safe_to_repeat().changes());
    }

    #[test]
    fn an_answer_about_something_else_is_known_and_one_that_does_not_say_is_taken() {
        let request = ApiRequest::get("/api/v2/things").expect_member("id", "A-1").expect_member("fileId", "7");
        for taken in [r#"{"id":"a-1","fileId":7}"#, r#"{"id":null}"#, "{}", "[]", "", "<html>", r#"{"other":"b"}"#] {
            assert_eq!(request.find_mismatch(taken.as_bytes()), None, "{taken}");
        }
        for (other, told) in [(r#"{"id":"b"}"#, "another id"), (r#"{"id":"a-1","fileId":{}}"#, "another fileId")] {
            assert!(request.find_mismatch(other.as_bytes()).is_some_and(|said| said.contains(told)), "{other}");
        }
    }

    #[test]
    fn a_header_that_cannot_be_sent_is_a_flaw_and_no_panic() {
        let request = ApiRequest::put("/api/v2/things").header(IF_MATCH, "one\r\ntwo: three");
        assert!(request.flaw.is_some_and(|flaw| flaw.contains("if-match")));
        assert!(request.headers.is_empty());
    }
}
