//! Decoding: turns bytes into a [`Job`], or into a [`Rejection`] with all violations at once.

use std::{borrow::Cow, collections::HashMap};

use jiff::{Timestamp, civil};
use serde_json::Value;

pub use super::extract::{extract_id, extract_webhook};
use super::{
    DEFAULT_MAX_ATTEMPTS, Job, JobId, MAX_BODY_BYTES, MAX_NESTING, MAX_VALUES, Rejection, Violation, Violations,
    scan::{LimitExceeded, scan},
    schema::{JobSchema, Repair, SchemaErrors},
    text,
};

/// A job with the violations that its schema finds. An invalid job is repaired to fit its types, so that the worker's
/// own rules can be checked, too.
#[derive(Clone, Debug)]
pub struct DecodedJob {
    /// The job.
    pub job: Job,
    /// The payload, without optional members that are `null`.
    pub payload: Value,
    /// The violations of the bytes, of the schema and of the envelope's rules.
    pub violations: Violations,
    /// The places of the violations; true if the payload there is not what was sent: repaired, or missing. Further
    /// violations at these places are not reported.
    pub places: HashMap<String, bool>,
    /// True if the payload is repaired in all places; false if there are too many of them.
    pub repaired: bool,
}

/// A body that cannot be read as JSON within the limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadableBody {
    /// `undecodable` or `too_large`.
    pub code: &'static str,
    /// The reason, as a sentence.
    pub message: String,
    /// The place, if it is known.
    pub violations: Violations,
}

impl UnreadableBody {
    fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), violations: Violations::default() }
    }

    /// Converts to the rejection of the job `id`.
    pub fn reject(self, id: JobId) -> Rejection {
        let Self { code, message, violations } = self;
        Rejection { id, code, message, violations }
    }
}

/// Parses `body` as JSON; returns the violations that the value does not show. Length, depth and number of values are
/// limited before anything is deserialized.
pub fn parse_body(body: &[u8]) -> Result<(Value, Violations), UnreadableBody> {
    if body.len() > MAX_BODY_BYTES {
        let message = format!(
            "the body has {} bytes; a job has at most {MAX_BODY_BYTES}: send less, or several jobs",
            body.len()
        );
        return Err(UnreadableBody::new("too_large", message));
    }
    let json = text::strip_mark(body).map_err(|message| UnreadableBody::new("undecodable", message))?;
    let found = scan(json).map_err(over_limit)?;
    match serde_json::from_slice(json) {
        Ok(value) => Ok((value, found)),
        Err(error) => Err(UnreadableBody::new("undecodable", format!("the body is not JSON: {error}"))),
    }
}

fn over_limit(limit: LimitExceeded) -> UnreadableBody {
    match limit {
        LimitExceeded::Nesting(offset) => UnreadableBody::new(
            "undecodable",
            format!("byte {offset}: arrays and objects are nested deeper than {MAX_NESTING}"),
        ),
        LimitExceeded::Values(pointer) => {
            let message =
                format!("a job has at most {MAX_VALUES} values, and here are more: send less, or several jobs");
            let violations = Violations::from(vec![Violation::new(pointer, message)]);
            UnreadableBody { message: violations.summary(), violations, ..UnreadableBody::new("too_large", "") }
        }
    }
}

/// Decodes the job in `body`, a message on the queue of the schema's kind; a [`Rejection`] if the body cannot be read
/// or is of another kind. `message_id` and `timestamp` (Unix seconds) are the AMQP properties for the id of a job that
/// names none.
pub fn decode(
    schema: &JobSchema,
    body: &[u8],
    message_id: Option<&str>,
    timestamp: Option<u64>,
) -> Result<DecodedJob, Box<Rejection>> {
    let extracted = || extract_id(body, message_id, timestamp);
    let (value, found) = match parse_body(body) {
        Ok(read) => read,
        Err(unreadable) => return Err(Box::new(unreadable.reject(extracted()))),
    };
    // Of a member that is there twice, the parsed value has the other one.
    let given = value.get("id").and_then(Value::as_str).filter(|_| found.total() == 0);
    let id = given.and_then(JobId::parse).unwrap_or_else(extracted);
    let kind = schema.kind();
    if let Some(given) = value.get("kind").and_then(Value::as_str).filter(|given| *given != kind.as_str()) {
        let given: String = given.chars().take(64).collect();
        let message = format!("the job says kind {given:?} but came on the queue of {kind}");
        let violations = vec![Violation::new("/kind", format!("must be \"{kind}\" on this queue"))].into();
        return Err(Box::new(Rejection { id, code: "kind_mismatch", message, violations }));
    }
    Ok(check(schema, id, value, found))
}

fn check(schema: &JobSchema, id: JobId, mut value: Value, mut violations: Violations) -> DecodedJob {
    let too_long = schema.trim(&mut value);
    let SchemaErrors { errors, more } = schema.check(&value);
    let mut places: HashMap<String, bool> = too_long.iter().map(|list| (list.pointer.clone(), false)).collect();
    violations.extend(too_long);
    violations.extend(errors.iter().map(|error| error.violation.clone()));
    violations.count(more);
    for error in &errors {
        error.repair(&mut value);
    }
    for error in errors {
        *places.entry(error.violation.pointer).or_default() |= error.repair != Repair::Leave;
    }
    let mut instant = |member| parse_instant(&value, member, &places, &mut violations);
    let (not_before, deadline) = (instant("notBefore"), instant("deadline"));
    if not_before.zip(deadline).is_some_and(|(start, end)| end < start) {
        violations.push(Violation::new("/deadline", "lies before notBefore: the job could never start"));
    }
    let job = Job {
        id,
        kind: schema.kind(),
        webhook: value.get("webhook").and_then(|webhook| webhook.get("url")?.as_str()).map(str::to_owned),
        max_attempts: max_attempts(&value),
        not_before,
        deadline,
        payload_sha256: String::new(),
    };
    DecodedJob { job, payload: payload(value), violations, places, repaired: more == 0 }
}

fn payload(mut job: Value) -> Value {
    job.get_mut("payload").map(Value::take).unwrap_or_default()
}

fn max_attempts(job: &Value) -> u32 {
    let given = job.get("maxAttempts").and_then(Value::as_f64);
    // The schema limits it to whole numbers from 1 to 50; `8.0` is one in JSON Schema.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1–50 by the schema")]
    given.map_or(DEFAULT_MAX_ATTEMPTS, |attempts| attempts as u32)
}

/// Parses a time; one that the schema accepts but the calendar does not is a violation.
fn parse_instant(
    job: &Value,
    member: &str,
    places: &HashMap<String, bool>,
    violations: &mut Violations,
) -> Option<Timestamp> {
    let text = &to_nanoseconds(job.get(member)?.as_str()?);
    let pointer = format!("/{member}");
    match text.parse() {
        Ok(instant) => Some(instant),
        Err(_) if is_never(text) => Some(Timestamp::MAX),
        Err(_) if places.contains_key(&pointer) => None,
        Err(error) => {
            violations.push(Violation::new(pointer, format!("not an RFC 3339 time: {error}")));
            None
        }
    }
}

/// Cuts a fraction of a second to the nine digits of an instant; RFC 3339 allows any number.
fn to_nanoseconds(time: &str) -> Cow<'_, str> {
    const DIGITS: usize = 9;
    let Some((seconds, rest)) = time.split_once('.') else { return time.into() };
    match rest.find(|each: char| !each.is_ascii_digit()).unwrap_or(rest.len()) {
        ..=DIGITS => time.into(),
        end => format!("{seconds}.{}{}", &rest[..DIGITS], &rest[end..]).into(),
    }
}

/// Recognises the last days of the year 9999, written for "never", which lie beyond the range of an instant.
fn is_never(text: &str) -> bool {
    let offset = if text.ends_with(['Z', 'z']) { 1 } else { "+00:00".len() };
    let local = text.len().checked_sub(offset).and_then(|end| text.get(..end));
    local.and_then(|time| time.parse::<civil::DateTime>().ok()).is_some_and(|time| time.year() == 9999)
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};
    use serde_json::json;

    use super::*;
    use crate::Kind;

    #[derive(Debug, Deserialize, Serialize, schemars::JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Paths {
        #[schemars(length(min = 1, max = 3))]
        paths: Vec<String>,
        deep: Option<Value>,
    }

    fn schema() -> JobSchema {
        JobSchema::new::<Paths>(Kind::CdnPurge)
    }

    fn decode_json(job: &Value) -> Result<DecodedJob, Box<Rejection>> {
        decode(&schema(), job.to_string().as_bytes(), Some("the-message"), None)
    }

    fn code(body: &[u8]) -> (&'static str, String) {
        let rejection = decode(&schema(), body, Some("the-message"), None).unwrap_err();
        (rejection.code, rejection.id.to_string())
    }

    #[test]
    fn a_violation_says_in_words_what_is_allowed() {
        let good = json!({"paths": ["/a"]});
        for (job, message) in [
            (json!([]), "the job: must be an object, found an array"),
            (
                json!({"payload": good, "id": "no spaces"}),
                "/id: must be 1 to 128 characters of A-Z, a-z, 0-9 and . _ : -, e.g. release-42",
            ),
            (json!({"payload": {"paths": []}}), "/payload/paths: must have at least 1 entry"),
            (json!({"payload": good, "webhook": {"url": ""}}), "/webhook/url: must have at least 1 character"),
            (json!({"payload": good, "maxAttempts": "8"}), "/maxAttempts: must be an integer, found a string"),
        ] {
            assert_eq!(decode_json(&job).unwrap().violations.summary(), message, "{job}");
        }
        let published = schema().document().to_string();
        assert!(published.contains("\"default\":8") && !published.contains("x-rule"), "{published}");
    }

    #[test]
    fn every_violation_is_reported_at_its_place() {
        let good = json!({"paths": ["/a"]});
        for (job, pointers) in [
            (json!({"payload": good}), vec![]),
            (json!({"id": "a.b_c:d-1", "kind": "cdn.purge", "payload": good, "maxAttempts": 50}), vec![]),
            (json!({"id": null, "payload": good, "webhook": null}), vec![]),
            (json!({"kind": null, "payload": good, "notBefore": null, "deadline": null, "maxAttempts": null}), vec![]),
            (json!({"payload": good, "webhook": {"url": null}}), vec!["/webhook/url"]),
            (json!({"payload": good, "colour": null}), vec!["/colour"]),
            (json!({"payload": null}), vec!["/payload"]),
            (json!({"payload": {"paths": ["/a"], "deep": null}}), vec![]),
            (json!({}), vec!["/payload"]),
            (json!([]), vec![""]),
            (json!("job"), vec![""]),
            (json!({"payload": {}}), vec!["/payload/paths"]),
            (json!({"payload": {"paths": []}}), vec!["/payload/paths"]),
            (json!({"payload": {"paths": ["/a", "/b", "/c", "/d"]}}), vec!["/payload/paths"]),
            (json!({"payload": {"paths": ["/a", 5]}}), vec!["/payload/paths/1"]),
            (json!({"payload": good, "colour": 1, "a/b~": 2}), vec!["/a~1b~0", "/colour"]),
            (json!({"payload": {"paths": ["/a"], "path": 1}}), vec!["/payload/path"]),
            (json!({"payload": good, "id": "no spaces"}), vec!["/id"]),
            (json!({"payload": good, "id": "x".repeat(129)}), vec!["/id"]),
            (json!({"payload": good, "kind": 7}), vec!["/kind"]),
            (json!({"payload": good, "maxAttempts": 0}), vec!["/maxAttempts"]),
            (json!({"payload": good, "maxAttempts": 51}), vec!["/maxAttempts"]),
            (json!({"payload": good, "maxAttempts": 1.5}), vec!["/maxAttempts"]),
            (json!({"payload": good, "notBefore": "tomorrow"}), vec!["/notBefore"]),
            (json!({"payload": good, "deadline": "2026-02-30T00:00:00Z"}), vec!["/deadline"]),
            (
                json!({"payload": good, "notBefore": "2026-01-02T00:00:00Z", "deadline": "2026-01-01T00:00:00Z"}),
                vec!["/deadline"],
            ),
            (json!({"payload": good, "deadline": "9999-12-31T23:59:59Z"}), vec![]),
            (json!({"payload": good, "deadline": "9999-12-31T23:59:59.999999999-23:59"}), vec![]),
            (json!({"payload": good, "deadline": "9999-12-31T23:59:59.0000000000Z"}), vec![]),
            (json!({"payload": good, "deadline": "2026-12-31T23:59:59.0000000000Z"}), vec![]),
            (json!({"payload": good, "deadline": "2026-02-30T23:59:59.0000000000Z"}), vec!["/deadline"]),
            (json!({"payload": good, "deadline": "9999-12-32T23:59:59Z"}), vec!["/deadline"]),
            (json!({"payload": good, "webhook": {}}), vec!["/webhook/url"]),
            (json!({"payload": good, "webhook": "https://x"}), vec!["/webhook"]),
        ] {
            let mut reported: Vec<String> =
                decode_json(&job).unwrap().violations.into_iter().map(|one| one.pointer).collect();
            reported.sort();
            assert_eq!(reported, pointers, "{job}");
        }
    }

    #[test]
    fn a_time_finer_than_a_nanosecond_is_cut_to_it() {
        for (written, read) in [
            ("2026-12-31T23:59:59.12345678987654321+01:00", "2026-12-31T22:59:59.123456789Z"),
            ("2026-12-31t23:59:59.000000000999z", "2026-12-31T23:59:59Z"),
            ("2026-12-31T23:59:59.5Z", "2026-12-31T23:59:59.5Z"),
        ] {
            let job = json!({"payload": {"paths": ["/a"]}, "deadline": written});
            let decoded = decode_json(&job).unwrap();
            assert_eq!(*decoded.violations, [], "{written}");
            assert_eq!(decoded.job.deadline.unwrap().to_string(), read);
        }
    }

    #[test]
    fn an_invalid_job_is_repaired_so_that_the_rest_can_be_checked() {
        let job = json!({"payload": {"paths": ["bad", 5], "path": 1}, "colour": 1});
        let mended = decode_json(&job).unwrap().payload;
        assert_eq!(mended, json!({"paths": ["bad", ""]}));
    }

    #[test]
    fn bodies_that_are_no_jobs_are_distinguished() {
        assert_eq!(code(b"\xff"), ("undecodable", "the-message".into()));
        assert_eq!(code(b"{\"id\":\"cut-off\",\"payload\":{\"pa"), ("undecodable", "cut-off".into()));
        let other = br#"{"id":"j","kind":"file.scan","payload":{}}"#;
        assert_eq!(code(other), ("kind_mismatch", "j".into()));
        let padding = "x".repeat(MAX_BODY_BYTES);
        let large = format!(r#"{{"id":"large","payload":{{"paths":["{padding}"]}}}}"#);
        assert_eq!(code(large.as_bytes()), ("too_large", "large".into()));
    }

    #[test]
    fn nesting_is_bounded_at_64() {
        let nested = |depth: usize| {
            format!(r#"{{"payload":{{"paths":["[[["],"deep":{}{}}}}}"#, "[".repeat(depth), "]".repeat(depth))
        };
        assert!(decode(&schema(), nested(62).as_bytes(), None, None).is_ok());
        assert_eq!(decode(&schema(), nested(63).as_bytes(), None, None).unwrap_err().code, "undecodable");
        assert_eq!(decode(&schema(), nested(100_000).as_bytes(), None, None).unwrap_err().code, "undecodable");
    }

    #[test]
    fn too_many_values_are_too_large_whatever_they_are() {
        for value in ["0", "{}", "null", "[]"] {
            let values = vec![value; MAX_VALUES].join(",");
            let body = format!(r#"{{"id":"many","payload":{{"paths":[{values}]}}}}"#);
            let rejection = decode(&schema(), body.as_bytes(), None, None).unwrap_err();
            assert_eq!((rejection.code, rejection.id.as_str()), ("too_large", "many"));
            assert_eq!(rejection.violations[0].pointer, "/payload/paths");
        }
    }

    #[test]
    fn what_the_bytes_say_twice_or_not_exactly_is_a_violation_beside_the_others() {
        let body =
            br#"{"id":"j","payload":{"paths":["/a"],"paths":["/b"],"deep":{"n":12345678901234567890123}},"x":1}"#;
        let decoded = decode(&schema(), body, None, None).unwrap();
        let reported: Vec<_> = decoded.violations.into_iter().map(|one| one.pointer).collect();
        assert_eq!(reported, ["/payload/paths", "/payload/deep/n", "/x"]);
    }

    #[test]
    fn a_byte_order_mark_is_skipped_and_other_encodings_are_named() {
        let job = r#"{"id":"j","payload":{"paths":["/a"]}}"#;
        let marked = format!("\u{feff}{job}");
        assert_eq!(*decode(&schema(), marked.as_bytes(), None, None).unwrap().violations, []);
        let utf_16: Vec<u8> = marked.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let rejection = decode(&schema(), &utf_16, Some("m"), None).unwrap_err();
        assert_eq!((rejection.code, rejection.id.as_str()), ("undecodable", "m"));
        assert!(rejection.message.contains("UTF-16"), "{}", rejection.message);
    }

    #[test]
    fn every_mistake_is_counted_and_where_there_are_very_many_they_are_not_all_repaired() {
        let unknown = |count: usize| {
            let members: Vec<_> = (0..count).map(|n| format!("\"m{n}\":0")).collect();
            let body = format!(r#"{{"payload":{{"paths":["/a"]}},{}}}"#, members.join(","));
            let DecodedJob { violations, repaired, .. } = decode(&schema(), body.as_bytes(), None, None).unwrap();
            (violations.len(), violations.total(), repaired)
        };
        assert_eq!(unknown(1_300), (100, 1_300, true));
        assert_eq!(unknown(50_000), (100, 50_000, false));
    }
}
