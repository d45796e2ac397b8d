//! The body of an unsuccessful answer: its author, and its description of the error.

use reqwest::header::HeaderMap;
use serde_json::{Map, Value};

/// The length that is kept of a body that is not JSON, in characters.
const LONGEST_TEXT: usize = 500;
/// The length that is kept of one member, in characters: an event has to stay small.
const LONGEST_MEMBER: usize = 2000;
/// The members of error bodies, the platform's and OAuth's.
const MEMBERS: [&str; 9] =
    ["message", "code", "contextId", "details", "errors", "limit", "error", "error_description", "description"];
/// Further members of the platform's error bodies. They are kept, but do not make a body one: other objects have them,
/// too.
pub(crate) const FURTHER_MEMBERS: [&str; 4] = ["messageWithParams", "messageParams", "entityId", "entityName"];

/// The author of a body, as far as it can be determined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnswerAuthor {
    /// The API: an error body, its own or OAuth's.
    Api,
    /// The API, or another service with JSON answers.
    Json,
    /// There is no body.
    Nobody,
    /// A proxy, a gateway, a sign-in page, a cache with the answer to another request: not the API, which speaks JSON
    /// about what it was asked for.
    Intermediary,
}

impl AnswerAuthor {
    pub(crate) fn of(body: &[u8]) -> Self {
        match serde_json::from_slice(body) {
            Ok(Value::Object(said)) if MEMBERS.iter().any(|member| said.contains_key(*member)) => Self::Api,
            Ok(_) => Self::Json,
            Err(_) if body.trim_ascii().is_empty() => Self::Nobody,
            Err(_) => Self::Intermediary,
        }
    }
}

/// Reads the API's id of a request.
pub(crate) fn request_id(headers: &HeaderMap) -> Option<String> {
    ["inin-correlation-id", "x-request-id"]
        .into_iter()
        .find_map(|name| headers.get(name)?.to_str().ok().filter(|id| !id.is_empty()))
        .map(|id| truncate(id, 256))
}

/// Reads the API's id of a request out of an error body, for an answer whose headers have none.
pub(crate) fn context_id(details: &Map<String, Value>) -> Option<String> {
    details.get("contextId").and_then(Value::as_str).filter(|id| !id.is_empty()).map(|id| truncate(id, 256))
}

/// Reads what a body says about an error: the known members, or the beginning of a text as `body`.
pub(crate) fn error_details(body: &[u8]) -> Map<String, Value> {
    if let Ok(Value::Object(mut said)) = serde_json::from_slice(body) {
        let member = |name: &str| Some((name.to_owned(), shorten(said.remove(name)?)));
        return MEMBERS.into_iter().chain(FURTHER_MEMBERS).filter_map(member).collect();
    }
    let start = body.get(..body.len().min(LONGEST_TEXT * 4)).unwrap_or_default();
    let text = truncate(String::from_utf8_lossy(start).trim(), LONGEST_TEXT);
    if text.is_empty() { Map::new() } else { Map::from_iter([("body".to_owned(), Value::String(text))]) }
}

/// Says the same in a sentence: the platform's code and message, or OAuth's, or the text.
pub(crate) fn error_sentence(details: &Map<String, Value>) -> String {
    let text = |name: &str| details.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let code = text("code").or_else(|| text("error"));
    let message = text("message").or_else(|| text("error_description")).or_else(|| text("description"));
    match (code, message.or_else(|| text("body"))) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(only), None) | (None, Some(only)) => only.to_owned(),
        (None, None) => "the answer has no error message".to_owned(),
    }
}

/// Turns a value that is too long into the beginning of its text.
fn shorten(value: Value) -> Value {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => value,
        Value::String(text) => Value::String(truncate(&text, LONGEST_MEMBER)),
        Value::Array(_) | Value::Object(_) => {
            let text = value.to_string();
            if text.len() <= LONGEST_MEMBER { value } else { Value::String(truncate(&text, LONGEST_MEMBER)) }
        }
    }
}

fn truncate(text: &str, characters: usize) -> String {
    text.chars().take(characters).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_platforms_body_oauths_and_one_that_is_not_json_are_all_error_details() {
        let platform = json!({"message": "no", "code": "bad.request", "status": 400, "contextId": "c", "details": [],
            "errors": [], "limit": {"key": "k", "namespace": "n", "value": 1}, "entityName": "x", "entityId": "e",
            "messageWithParams": "no {a}", "messageParams": {"a": "b"}, "other": 1});
        let said = error_details(platform.to_string().as_bytes());
        assert_eq!(
            said.keys().map(String::as_str).collect::<Vec<_>>(),
            [
                "message",
                "code",
                "contextId",
                "details",
                "errors",
                "limit",
                "messageWithParams",
                "messageParams",
                "entityId",
                "entityName"
            ]
        );
        assert_eq!(context_id(&said).as_deref(), Some("c"));
        assert_eq!(error_sentence(&said), "bad.request: no");
        let oauth = error_details(br#"{"error":"invalid_client","error_description":"authentication failed"}"#);
        assert_eq!(error_sentence(&oauth), "invalid_client: authentication failed");
        let html = error_details(format!("<html>{}", "é".repeat(600)).as_bytes());
        assert_eq!(html["body"].as_str().unwrap().chars().count(), LONGEST_TEXT);
        assert!(error_details(b"").is_empty());
    }

    #[test]
    fn the_apis_own_errors_are_told_from_what_others_write() {
        for (body, wrote) in [
            (r#"{"message":"no","code":"not.found","status":404,"contextId":"c"}"#, AnswerAuthor::Api),
            (r#"{"code":"not.found"}"#, AnswerAuthor::Api),
            (r#"{"error":"invalid_client"}"#, AnswerAuthor::Api),
            (r#"{"id":"a"}"#, AnswerAuthor::Json),
            (r#"{"entityId":"a","entityName":"b"}"#, AnswerAuthor::Json),
            ("{}", AnswerAuthor::Json),
            ("[]", AnswerAuthor::Json),
            ("", AnswerAuthor::Nobody),
            (" \r\n", AnswerAuthor::Nobody),
            ("default backend - 404", AnswerAuthor::Intermediary),
            ("<html><body>Sign in</body></html>", AnswerAuthor::Intermediary),
            (r#"{"message":"no""#, AnswerAuthor::Intermediary),
        ] {
            assert_eq!(AnswerAuthor::of(body.as_bytes()), wrote, "{body}");
        }
        assert_eq!(AnswerAuthor::of(b"\xff\xfe"), AnswerAuthor::Intermediary);
    }

    #[test]
    fn a_huge_member_does_not_make_a_huge_event() {
        let said =
            error_details(json!({"message": "m".repeat(100_000), "errors": vec!["e"; 100_000]}).to_string().as_bytes());
        assert!(Value::Object(said).to_string().len() < 3 * LONGEST_MEMBER);
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
