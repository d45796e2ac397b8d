//! Bytes → [`Job`], or a [`Rejection`] that says everything wrong with them at once.

use std::{borrow::Cow, cell::RefCell, fmt};

use jiff::{Timestamp, civil};
use serde::{
    Deserialize,
    de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor},
};
use serde_json::Value;

use super::{
    DEFAULT_MAX_ATTEMPTS, Job, JobId, MAX_BODY_BYTES, MAX_NESTING, Rejection, Violation,
    schema::{JobSchema, Mend},
};

/// A job, and everything that is wrong with it as far as its schema goes. With violations, it is mended to fit
/// its types, for the worker's own rules to be checked, too.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// The job.
    pub job: Job,
    /// What its schema and its envelope's rules refuse.
    pub violations: Vec<Violation>,
    /// Places at which `job` is not what was sent: mended, or missing. What else is found wrong there is not told.
    pub made_up: Vec<String>,
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
    let id = readable_id(body, message_id, timestamp);
    let reject = |code, message| Box::new(Rejection { id: id.clone(), code, message, violations: vec![] });
    if body.len() > MAX_BODY_BYTES {
        let told = format!(
            "the body has {} bytes; a job has at most {MAX_BODY_BYTES}: send less, or several jobs",
            body.len()
        );
        return Err(reject("too_large", told));
    }
    if let Some(offset) = nested_too_deep(body) {
        let told = format!("byte {offset}: arrays and objects are nested deeper than {MAX_NESTING}");
        return Err(reject("undecodable", told));
    }
    let value: Value = serde_json::from_slice(body)
        .map_err(|error| reject("undecodable", format!("the body is not JSON: {error}")))?;
    let kind = schema.kind();
    if let Some(given) = value.get("kind").and_then(Value::as_str).filter(|given| *given != kind.as_str()) {
        let given: String = given.chars().take(64).collect();
        let told = format!("the job says kind {given:?} but came on the queue of {kind}");
        let violations = vec![Violation::new("/kind", format!("must be \"{kind}\" on this queue"))];
        return Err(Box::new(Rejection { violations, ..*reject("kind_mismatch", told) }));
    }
    Ok(checked(schema, id, value))
}

fn checked(schema: &JobSchema, id: JobId, mut value: Value) -> Decoded {
    let refusals = schema.check(&value);
    let mut violations: Vec<Violation> = refusals.iter().map(|refusal| refusal.violation.clone()).collect();
    let not_before = instant_of(&value, "notBefore", &mut violations);
    let deadline = instant_of(&value, "deadline", &mut violations);
    if not_before.zip(deadline).is_some_and(|(start, end)| end < start) {
        violations.push(Violation::new("/deadline", "lies before notBefore: the job could never start"));
    }
    for refusal in &refusals {
        refusal.mend(&mut value);
    }
    let job = Job {
        id,
        kind: schema.kind(),
        webhook: value.pointer("/webhook/url").and_then(Value::as_str).map(str::to_owned),
        max_attempts: max_attempts(&value),
        not_before,
        deadline,
        payload: payload(value),
    };
    let made_up = refusals.into_iter().filter(|refusal| refusal.mend != Mend::Leave);
    Decoded { job, violations, made_up: made_up.map(|refusal| refusal.violation.pointer).collect() }
}

/// The sentence that stands for a list of violations.
pub fn summary(violations: &[Violation]) -> String {
    let first = violations.first().map(|one| format!("{}: {}", one.pointer, one.message)).unwrap_or_default();
    match violations.len() {
        0 | 1 => first,
        more => format!("{more} violations; the first: {first}"),
    }
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
fn instant_of(job: &Value, member: &str, violations: &mut Vec<Violation>) -> Option<Timestamp> {
    let text = &to_nanoseconds(job.get(member)?.as_str()?);
    let pointer = format!("/{member}");
    match text.parse() {
        Ok(instant) => Some(instant),
        Err(_) if never(text) => Some(Timestamp::MAX),
        Err(_) if violations.iter().any(|known| known.pointer == pointer) => None,
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

/// Where the nesting first passes the limit, as a byte offset. Looks at brackets outside strings only, so it
/// is right for JSON and harmless for anything else.
fn nested_too_deep(body: &[u8]) -> Option<usize> {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for (offset, byte) in body.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                if depth > MAX_NESTING {
                    return Some(offset);
                }
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}

/// The id in the body, also of a body that breaks off or breaks rules; else the message id; else derived.
pub fn readable_id(body: &[u8], message_id: Option<&str>, timestamp: Option<u64>) -> JobId {
    let found: RefCell<Option<String>> = RefCell::new(None);
    // A body that breaks off after its id fails here, and has told its id before it did.
    let _ = TopLevelId { found: &found }.deserialize(&mut serde_json::Deserializer::from_slice(body));
    let given = found.into_inner();
    given
        .as_deref()
        .and_then(JobId::parse)
        .or_else(|| message_id.and_then(JobId::parse))
        .unwrap_or_else(|| JobId::derived(body, timestamp))
}

/// The URL that `body` names for its events, where one can be read: also of a job that is refused.
pub fn readable_webhook(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Readable {
        webhook: Option<Named>,
    }
    #[derive(Deserialize)]
    struct Named {
        url: String,
    }
    serde_json::from_slice::<Readable>(body).ok()?.webhook.map(|named| named.url)
}

struct TopLevelId<'a> {
    found: &'a RefCell<Option<String>>,
}

impl<'de> DeserializeSeed<'de> for TopLevelId<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for TopLevelId<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a job")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(member) = map.next_key::<String>()? {
            if member == "id" {
                *self.found.borrow_mut() = map.next_value::<Value>()?.as_str().map(str::to_owned);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde::Serialize;
    use serde_json::json;

    use super::*;
    use crate::job::Kind;

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
            (json!({"id": null, "payload": good, "webhook": null}), vec!["/id", "/webhook"]),
            (
                json!({"kind": null, "payload": good, "notBefore": null, "deadline": null, "maxAttempts": null}),
                vec!["/deadline", "/kind", "/maxAttempts", "/notBefore"],
            ),
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
            assert_eq!(decoded.violations, [], "{written}");
            assert_eq!(decoded.job.deadline.unwrap().to_string(), read);
        }
    }

    #[test]
    fn a_refused_job_is_mended_so_that_the_rest_can_be_checked() {
        let job = json!({"payload": {"paths": ["bad", 5], "path": 1}, "colour": 1});
        let mended = decoded(&job).unwrap().job.payload;
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
    fn a_webhook_is_read_from_a_job_that_is_refused_but_not_from_garbage() {
        for (body, url) in [
            (r#"{"payload":7,"colour":1,"webhook":{"url":"https://a.example","x":1}}"#, Some("https://a.example")),
            (r#"{"webhook":{"url":7}}"#, None),
            (r#"{"webhook":null}"#, None),
            (r#"{"payload":{}}"#, None),
            (r#"{"webhook":{"url":"https://a.example"}"#, None),
            ("[]", None),
        ] {
            assert_eq!(readable_webhook(body.as_bytes()).as_deref(), url, "{body}");
        }
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
    fn a_redelivery_keeps_its_id_and_another_message_gets_another() {
        let id = |body: &[u8], message_id, timestamp| readable_id(body, message_id, timestamp);
        assert_eq!(id(b"{}", None, Some(1)), id(b"{}", None, Some(1)));
        assert_ne!(id(b"{}", None, Some(1)), id(b"{}", None, Some(2)));
        assert_ne!(id(b"{}", None, None), id(b"{} ", None, None));
        assert_eq!(id(b"{}", Some("m"), None).as_str(), "m");
        assert_eq!(id(br#"{"id":"own"}"#, Some("m"), None).as_str(), "own");
        assert_eq!(id(b"{}", Some("not valid"), None), id(b"{}", None, None));
    }
}
