//! Bytes → [`Job`], or a [`Rejection`] that says everything wrong with them at once.

use std::{borrow::Cow, collections::HashMap};

use jiff::{Timestamp, civil};
use serde_json::Value;

pub use super::extract::{extract_id, extract_webhook};
use super::{
    DEFAULT_MAX_ATTEMPTS, Job, JobId, MAX_BODY_BYTES, MAX_NESTING, MAX_VALUES, Rejection, Violation, Violations,
    scan::{Beyond, scan},
    schema::{JobSchema, Mend, Refused},
    text,
};

/// A job, and everything that is wrong with it as far as its schema goes. With violations, it is mended to fit
/// its types, for the worker's own rules to be checked, too.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// The job.
    pub job: Job,
    /// The worker's own part: without what is `null` and might as well not be there.
    pub payload: Value,
    /// What is wrong with the bytes, what the schema and the envelope's rules refuse.
    pub violations: Violations,
    /// Where that is; true where the payload is not what was sent there: mended, or missing. What else is found wrong
    /// at these places is not told.
    pub places: HashMap<String, bool>,
    /// Whether the payload is mended in all places. Where there are too many of them it is not.
    pub mended: bool,
}

/// A body that is not looked into, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// `undecodable` or `too_large`.
    pub code: &'static str,
    /// In a sentence.
    pub message: String,
    /// Where, where that can be told.
    pub violations: Violations,
}

impl Unread {
    fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), violations: Violations::default() }
    }

    /// The same of the job `id`.
    pub fn of(self, id: JobId) -> Rejection {
        let Self { code, message, violations } = self;
        Rejection { id, code, message, violations }
    }
}

/// What `body` says as JSON, and what is wrong with how it says it. The bounds on its length, its depth and the number
/// of its values are looked at before anything is made of it.
pub fn read(body: &[u8]) -> Result<(Value, Violations), Unread> {
    if body.len() > MAX_BODY_BYTES {
        let told = format!(
            "the body has {} bytes; a job has at most {MAX_BODY_BYTES}: send less, or several jobs",
            body.len()
        );
        return Err(Unread::new("too_large", told));
    }
    let json = text::unmarked(body).map_err(|told| Unread::new("undecodable", told))?;
    let found = scan(json).map_err(beyond)?;
    match serde_json::from_slice(json) {
        Ok(value) => Ok((value, found)),
        Err(error) => Err(Unread::new("undecodable", format!("the body is not JSON: {error}"))),
    }
}

fn beyond(bound: Beyond) -> Unread {
    match bound {
        Beyond::Nesting(offset) => Unread::new(
            "undecodable",
            format!("byte {offset}: arrays and objects are nested deeper than {MAX_NESTING}"),
        ),
        Beyond::Values(pointer) => {
            let told = format!("a job has at most {MAX_VALUES} values, and here are more: send less, or several jobs");
            let violations = Violations::from(vec![Violation::new(pointer, told)]);
            Unread { message: violations.summary(), violations, ..Unread::new("too_large", "") }
        }
    }
}

/// The job in `body`, a message on the queue of `schema`'s kind; a [`Rejection`] where it cannot be looked into
/// any further. `message_id` and `timestamp` (Unix seconds) are the message's AMQP properties, used where the body
/// names no id.
pub fn decode(
    schema: &JobSchema,
    body: &[u8],
    message_id: Option<&str>,
    timestamp: Option<u64>,
) -> Result<Decoded, Box<Rejection>> {
    let id = extract_id(body, message_id, timestamp);
    let (value, found) = match read(body) {
        Ok(read) => read,
        Err(unread) => return Err(Box::new(unread.of(id))),
    };
    let kind = schema.kind();
    if let Some(given) = value.get("kind").and_then(Value::as_str).filter(|given| *given != kind.as_str()) {
        let given: String = given.chars().take(64).collect();
        let message = format!("the job says kind {given:?} but came on the queue of {kind}");
        let violations = vec![Violation::new("/kind", format!("must be \"{kind}\" on this queue"))].into();
        return Err(Box::new(Rejection { id, code: "kind_mismatch", message, violations }));
    }
    Ok(checked(schema, id, value, found))
}

fn checked(schema: &JobSchema, id: JobId, mut value: Value, mut violations: Violations) -> Decoded {
    let too_long = schema.trim(&mut value);
    let Refused { refusals, more } = schema.check(&value);
    let mut places: HashMap<String, bool> = too_long.iter().map(|list| (list.pointer.clone(), false)).collect();
    violations.extend(too_long);
    violations.extend(refusals.iter().map(|refusal| refusal.violation.clone()));
    violations.count(more);
    for refusal in &refusals {
        refusal.mend(&mut value);
    }
    for refusal in refusals {
        *places.entry(refusal.violation.pointer).or_default() |= refusal.mend != Mend::Leave;
    }
    let mut instant = |member| instant_of(&value, member, &places, &mut violations);
    let (not_before, deadline) = (instant("notBefore"), instant("deadline"));
    if not_before.zip(deadline).is_some_and(|(start, end)| end < start) {
        violations.push(Violation::new("/deadline", "lies before notBefore: the job could never start"));
    }
    let job = Job {
        id,
        kind: schema.kind(),
        webhook: value.pointer("/webhook/url").and_then(Value::as_str).map(str::to_owned),
        max_attempts: max_attempts(&value),
        not_before,
        deadline,
        payload_sha256: String::new(),
    };
    Decoded { job, payload: payload(value), violations, places, mended: more == 0 }
}

fn payload(mut job: Value) -> Value {
    job.get_mut("payload").map(Value::take).unwrap_or_default()
}

fn max_attempts(job: &Value) -> u32 {
    let given = job.get("maxAttempts").and_then(Value::as_f64);
    // The schema holds it to 1–50, whole; `8.0` is a whole number in JSON Schema.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1–50 by the schema")]
    given.map_or(DEFAULT_MAX_ATTEMPTS, |attempts| attempts as u32)
}

/// A time that the schema let pass but the calendar does not is a violation like any other.
fn instant_of(
    job: &Value,
    member: &str,
    places: &HashMap<String, bool>,
    violations: &mut Violations,
) -> Option<Timestamp> {
    let text = &to_nanoseconds(job.get(member)?.as_str()?);
    let pointer = format!("/{member}");
    match text.parse() {
        Ok(instant) => Some(instant),
        Err(_) if never(text) => Some(Timestamp::MAX),
        Err(_) if places.contains_key(&pointer) => None,
        Err(error) => {
            violations.push(Violation::new(pointer, format!("not an RFC 3339 time: {error}")));
            None
        }
    }
}

/// RFC 3339 knows no end of a second's fraction; an instant has nine digits of it.
fn to_nanoseconds(time: &str) -> Cow<'_, str> {
    const DIGITS: usize = 9;
    let Some((seconds, rest)) = time.split_once('.') else { return time.into() };
    match rest.find(|each: char| !each.is_ascii_digit()).unwrap_or(rest.len()) {
        ..=DIGITS => time.into(),
        end => format!("{seconds}.{}{}", &rest[..DIGITS], &rest[end..]).into(),
    }
}

/// The last days of the year 9999, which people write for "never", lie beyond what an instant can be.
fn never(text: &str) -> bool {
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

    fn decoded(job: &Value) -> Result<Decoded, Box<Rejection>> {
        decode(&schema(), job.to_string().as_bytes(), Some("the-message"), None)
    }

    fn code(body: &[u8]) -> (&'static str, String) {
        let rejection = decode(&schema(), body, Some("the-message"), None).unwrap_err();
        (rejection.code, rejection.id.to_string())
    }

    #[test]
    fn every_violation_is_told_at_its_place() {
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
            let mut told: Vec<String> = decoded(&job).unwrap().violations.into_iter().map(|one| one.pointer).collect();
            told.sort();
            assert_eq!(told, pointers, "{job}");
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
            let decoded = decoded(&job).unwrap();
            assert_eq!(*decoded.violations, [], "{written}");
            assert_eq!(decoded.job.deadline.unwrap().to_string(), read);
        }
    }

    #[test]
    fn a_refused_job_is_mended_so_that_the_rest_can_be_checked() {
        let job = json!({"payload": {"paths": ["bad", 5], "path": 1}, "colour": 1});
        let mended = decoded(&job).unwrap().payload;
        assert_eq!(mended, json!({"paths": ["bad", ""]}));
    }

    #[test]
    fn what_is_no_job_at_all_is_told_apart() {
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
        let told: Vec<_> = decoded.violations.into_iter().map(|one| one.pointer).collect();
        assert_eq!(told, ["/payload/paths", "/payload/deep/n", "/x"]);
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
    fn every_mistake_is_counted_and_where_there_are_very_many_they_are_not_all_mended() {
        let unknown = |count: usize| {
            let members: Vec<_> = (0..count).map(|n| format!("\"m{n}\":0")).collect();
            let body = format!(r#"{{"payload":{{"paths":["/a"]}},{}}}"#, members.join(","));
            let Decoded { violations, mended, .. } = decode(&schema(), body.as_bytes(), None, None).unwrap();
            (violations.len(), violations.total(), mended)
        };
        assert_eq!(unknown(1_300), (100, 1_300, true));
        assert_eq!(unknown(50_000), (100, 50_000, false));
    }
}
