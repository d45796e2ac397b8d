//! Bytes → [`Job`], or a [`Rejection`] that says everything wrong with them at once.

use std::{cell::RefCell, fmt};

use jiff::Timestamp;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::{DEFAULT_MAX_ATTEMPTS, Job, JobId, MAX_BODY_BYTES, MAX_NESTING, Rejection, Violation, schema::JobSchema};

/// The job in `body`, a message on the queue of `schema`'s kind. `message_id` and `timestamp` (Unix seconds)
/// are the message's AMQP properties, used where the body names no id.
pub fn decode(
    schema: &JobSchema,
    body: &[u8],
    message_id: Option<&str>,
    timestamp: Option<u64>,
) -> Result<Job, Box<Rejection>> {
    let id = readable_id(body, message_id, timestamp);
    let reject =
        |code, message: String, violations| Err(Box::new(Rejection { id: id.clone(), code, message, violations }));

    if body.len() > MAX_BODY_BYTES {
        let message = format!(
            "the body has {} bytes; a job has at most {MAX_BODY_BYTES}: send less, or several jobs",
            body.len()
        );
        return reject("too_large", message, vec![]);
    }
    if let Some(offset) = nested_too_deep(body) {
        return reject(
            "undecodable",
            format!("byte {offset}: arrays and objects are nested deeper than {MAX_NESTING}"),
            vec![],
        );
    }
    let value: Value = match serde_json::from_slice(body) {
        Ok(value) => value,
        Err(error) => return reject("undecodable", format!("the body is not JSON: {error}"), vec![]),
    };
    let kind = schema.kind();
    if let Some(given) = value.get("kind").and_then(Value::as_str).filter(|given| *given != kind.as_str()) {
        let given: String = given.chars().take(64).collect();
        let violation = Violation::new("/kind", format!("must be \"{kind}\" on this queue"));
        return reject(
            "kind_mismatch",
            format!("the job says kind {given:?} but came on the queue of {kind}"),
            vec![violation],
        );
    }
    let mut violations = schema.violations(&value);
    let not_before = instant_of(&value, "notBefore", &mut violations);
    let deadline = instant_of(&value, "deadline", &mut violations);
    if not_before.zip(deadline).is_some_and(|(start, end)| end < start) {
        violations.push(Violation::new("/deadline", "lies before notBefore: the job could never start"));
    }
    if !violations.is_empty() {
        return reject("invalid_job", summary(&violations), violations);
    }
    Ok(Job {
        id,
        kind,
        webhook: value.pointer("/webhook/url").and_then(Value::as_str).map(str::to_owned),
        max_attempts: max_attempts(&value),
        not_before,
        deadline,
        payload: payload(value),
    })
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
    let text = job.get(member)?.as_str()?;
    let pointer = format!("/{member}");
    match text.parse() {
        Ok(instant) => Some(instant),
        Err(_) if violations.iter().any(|known| known.pointer == pointer) => None,
        Err(error) => {
            violations.push(Violation::new(pointer, format!("not an RFC 3339 time: {error}")));
            None
        }
    }
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
