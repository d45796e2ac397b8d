//! The `CloudEvent` every job ends in (SPEC 2).

use bytes::Bytes;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use self::shape::{EventData, EventError};
use crate::{JobId, derive_id, error::JobError, message::enqueued::QueueWait, trace_context::TraceContext};

mod shape;

pub use self::shape::CloudEvent;

/// A reference to one line of the audit: `data.audit` of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct AuditReference {
    /// The process that wrote it.
    pub process: String,
    /// Its number.
    pub seq: u64,
    /// Its hash.
    pub hash: String,
}

/// The longest event, in bytes.
pub const MAX_EVENT_BYTES: usize = 256 * 1024;
/// Initial capacity of the buffer of an event, in bytes.
const USUAL_BYTES: usize = 1024;
/// The content type of an event on its way.
pub const CONTENT_TYPE: &str = "application/cloudevents+json";

/// The outcome of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The job succeeded.
    Succeeded,
    /// The job failed.
    Failed,
    /// The deadline passed before the first start. Nothing was called.
    Expired,
}

impl Outcome {
    /// All outcomes.
    pub const ALL: [Self; 3] = [Self::Succeeded, Self::Failed, Self::Expired];

    /// The word in types, keys and labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Expired => "expired",
        }
    }
}

/// The end of a job, with everything that its event reports.
#[derive(Clone, Debug)]
pub struct Ending {
    /// `cdn.purge`, …, or `unknown` if it could not be read.
    pub kind: &'static str,
    /// The worker's name.
    pub worker: &'static str,
    /// The job.
    pub job: JobId,
    /// The outcome.
    pub outcome: Outcome,
    /// The worker's action, on success.
    pub action: Option<&'static str>,
    /// The region, or the API's host.
    pub environment: String,
    /// Attempts that count.
    pub attempts: u32,
    /// Redrives.
    pub generation: u32,
    /// The user who published the job, if known.
    pub producer: Option<String>,
    /// The operator who redrove it, if any; for the audit only.
    pub redriven_by: Option<String>,
    /// HTTP requests sent for this job.
    pub requests: u64,
    /// Milliseconds from the first start to the end.
    pub latency_ms: u64,
    /// The wait from being enqueued to the first start, if known.
    pub queued: Option<QueueWait>,
    /// The report; beside an error, what was achieved.
    pub report: Option<Value>,
    /// The `error` of the event.
    pub error: Option<Value>,
    /// The trace id, for the log.
    pub trace_id: Option<String>,
    /// The time of the end.
    pub time: Timestamp,
    /// The line of the audit; `None` without audit.
    pub audit: Option<AuditReference>,
}

/// An event, ready to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The same for every repeat.
    pub id: Uuid,
    /// Structured JSON.
    pub body: Bytes,
}

/// The id of the event for this outcome of a job, in this generation.
pub fn event_id(kind: &str, job: &JobId, generation: u32, outcome: Outcome) -> Uuid {
    derive_id(&format!("{kind}:{job}:{generation}:{}", outcome.as_str()))
}

impl Ending {
    /// Builds the event with the trace context `context`. Lists are cut until it fits into [`MAX_EVENT_BYTES`].
    pub fn event(&self, context: Option<&TraceContext>) -> Event {
        let id = event_id(self.kind, &self.job, self.generation, self.outcome);
        let event = CloudEvent {
            specversion: "1.0",
            id,
            source: format!("/genfleet/{}", self.worker),
            kind: format!("genfleet.{}.{}", self.kind, self.outcome.as_str()),
            subject: self.job.as_str(),
            time: format!("{:.3}", self.time),
            datacontenttype: "application/json",
            data: self.data(),
            traceparent: context.map(TraceContext::traceparent),
        };
        Event { id, body: fit(&event) }
    }

    fn data(&self) -> EventData<'_> {
        EventData {
            job_id: self.job.as_str(),
            kind: self.kind,
            outcome: self.outcome.as_str(),
            action: self.action,
            environment: &self.environment,
            attempts: self.attempts,
            generation: self.generation,
            producer: self.producer.as_deref(),
            requests: self.requests,
            latency_ms: self.latency_ms,
            queued_ms: self.queued.map(|waited| waited.ms),
            queued_rough: self.queued.is_some_and(|waited| waited.is_rough),
            audit: self.audit.as_ref(),
            report: self.report.as_ref(),
            error: self.error.as_ref(),
        }
    }
}

/// The `error` of a failed event.
pub fn error_object(error: &JobError, code: &str, cause: Option<&str>) -> Value {
    let total = error.violations.total();
    let written = EventError {
        code: code.to_owned(),
        message: error.message.clone(),
        cause: cause.map(str::to_owned),
        status: error.status,
        request_id: error.request_id.clone(),
        violations: error.violations.to_vec(),
        violations_total: (total > 0).then_some(total),
    };
    // As above.
    let Ok(Value::Object(mut members)) = serde_json::to_value(written) else { return Value::Null };
    for (member, value) in &error.details {
        members.entry(member.clone()).or_insert_with(|| value.clone());
    }
    Value::Object(members)
}

/// Writes an event; one that is too long is written again with less, until it fits.
fn fit(event: &CloudEvent<'_>) -> Bytes {
    // Neither this nor the next can fail: all members are texts, numbers and JSON values.
    let mut body = Vec::with_capacity(USUAL_BYTES);
    let _ = serde_json::to_writer(&mut body, event);
    if body.len() > MAX_EVENT_BYTES {
        let mut event = serde_json::to_value(event).unwrap_or_default();
        while body.len() > MAX_EVENT_BYTES && cut_longest(&mut event["data"]) {
            body = event.to_string().into_bytes();
        }
    }
    body.into()
}

/// Halves the longest list, or the longest text if there is no list. Returns false if nothing is left to cut.
fn cut_longest(data: &mut Value) -> bool {
    let mut paths = Vec::new();
    collect_sizes(data, String::new(), &mut paths);
    let lists = paths.iter().filter(|(_, _, list)| *list).max_by_key(|(_, size, _)| *size);
    let longest = lists.or_else(|| paths.iter().max_by_key(|(_, size, _)| *size)).map(|(path, ..)| path.clone());
    match longest.and_then(|path| data.pointer_mut(&path)) {
        Some(Value::Array(entries)) => entries.truncate(entries.len() / 2),
        Some(Value::String(text)) => *text = text.chars().take(text.chars().count() / 2).collect(),
        _ => return false,
    }
    true
}

/// Collects all lists with entries and all texts over 100 bytes: pointer, length as JSON, and true for a list.
fn collect_sizes(value: &Value, path: String, found: &mut Vec<(String, usize, bool)>) {
    match value {
        Value::Array(entries) if !entries.is_empty() => found.push((path, value.to_string().len(), true)),
        Value::String(text) if text.len() > 100 => found.push((path, text.len(), false)),
        Value::Object(members) => {
            for (member, inner) in members {
                let escaped = member.replace('~', "~0").replace('/', "~1");
                collect_sizes(inner, format!("{path}/{escaped}"), found);
            }
        }
        Value::Array(_) | Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ending(report: Value) -> Ending {
        Ending {
            kind: "cdn.purge",
            worker: "purger",
            job: JobId::parse("job-1").unwrap(),
            outcome: Outcome::Succeeded,
            action: Some("cache_invalidated"),
            environment: "mypurecloud.com".into(),
            attempts: 1,
            generation: 0,
            producer: None,
            redriven_by: None,
            requests: 1,
            latency_ms: 5,
            queued: None,
            report: Some(report),
            error: None,
            trace_id: None,
            time: Timestamp::UNIX_EPOCH,
            audit: None,
        }
    }

    #[test]
    fn the_id_is_the_uuid_of_kind_job_generation_and_outcome() {
        let expected = Uuid::new_v5(&Uuid::NAMESPACE_URL, b"genfleet:cdn.purge:job-1:0:succeeded");
        assert_eq!(ending(json!({})).event(None).id, expected);
    }

    #[test]
    fn an_event_is_a_cloud_event_with_its_data() {
        let event: Value = serde_json::from_slice(&ending(json!({"pathsCount": 1})).event(None).body).unwrap();
        assert_eq!(event["specversion"], "1.0");
        assert_eq!(event["type"], "genfleet.cdn.purge.succeeded");
        assert_eq!(event["source"], "/genfleet/purger");
        assert_eq!(event["subject"], "job-1");
        assert_eq!(event["data"]["report"]["pathsCount"], 1);
        assert!(event["data"].get("error").is_none());
    }

    #[test]
    fn an_event_names_its_line_of_the_audit_where_there_is_one() {
        let ending = ending(json!({}));
        let read = |ending: &Ending| serde_json::from_slice::<Value>(&ending.event(None).body).unwrap();
        assert!(read(&ending)["data"].get("audit").is_none());
        let stamp = AuditReference { process: "p".to_owned(), seq: 7, hash: "h".to_owned() };
        let reported = read(&Ending { audit: Some(stamp), ..ending });
        assert_eq!(reported["data"]["audit"], json!({"process": "p", "seq": 7, "hash": "h"}));
    }

    #[test]
    fn an_event_names_the_user_who_published_the_job_where_that_is_known() {
        let read = |ending: &Ending| serde_json::from_slice::<Value>(&ending.event(None).body).unwrap();
        assert!(read(&ending(json!({})))["data"].get("producer").is_none());
        let reported = read(&Ending { producer: Some("crm".to_owned()), ..ending(json!({})) });
        assert_eq!(reported["data"]["producer"], "crm");
    }

    #[test]
    fn lists_are_cut_until_the_event_fits() {
        let paths: Vec<String> = (0..1000).map(|n| format!("/{n}{}", "x".repeat(2000))).collect();
        let event = ending(json!({"paths": paths, "pathsCount": 1000})).event(None);
        assert!(event.body.len() <= MAX_EVENT_BYTES);
        let event: Value = serde_json::from_slice(&event.body).unwrap();
        assert!(event["data"]["report"]["paths"].as_array().unwrap().len() > 50);
        assert_eq!(event["data"]["report"]["pathsCount"], 1000);
    }

    #[test]
    fn a_hundred_violations_are_told_and_all_are_counted() {
        let violations = (0..250).map(|n| crate::Violation::new(format!("/payload/paths/{n}"), "bad"));
        let violations: Vec<_> = violations.collect();
        let reported = error_object(&JobError::invalid(violations.into()), "invalid_job", None);
        assert_eq!(reported["violations"].as_array().unwrap().len(), 100);
        assert_eq!(reported["violationsTotal"], 250);
    }
}
