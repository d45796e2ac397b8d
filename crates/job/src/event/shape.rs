//! The types of an event: written by [`super::Ending::event`], and published as a JSON Schema. Consumers must expect
//! further members.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{Violation, event::AuditReference};

/// The event in which every job ends: a `CloudEvent` 1.0 in structured JSON, at most 256 KiB.
///
/// It is delivered at least once; a repeat has the same `id`. Ignore unknown members: later versions may add some.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct CloudEvent<'a> {
    /// The version of `CloudEvents`.
    #[schemars(extend("const" = "1.0"))]
    pub specversion: &'static str,
    /// The same for every repeat: `UUIDv5` in the URL namespace over `genfleet:<kind>:<jobId>:<generation>:<outcome>`.
    #[schemars(with = "String", extend("format" = "uuid"))]
    pub id: Uuid,
    /// `/genfleet/` and the worker that ended the job.
    #[schemars(regex(pattern = "^/genfleet/[a-z-]+$"))]
    pub source: String,
    /// `genfleet.`, the job's kind and its outcome; but for `genfleet.` also the routing key.
    #[serde(rename = "type")]
    #[schemars(regex(pattern = r"^genfleet\.[a-z]+(\.[a-z]+)?\.(succeeded|failed|expired)$"))]
    pub kind: String,
    /// The job's id.
    pub subject: &'a str,
    /// The time at which the job ended.
    #[schemars(extend("format" = "date-time"))]
    pub time: String,
    /// The content type of `data`.
    #[schemars(extend("const" = "application/json"))]
    pub datacontenttype: &'static str,
    /// The end of the job.
    pub(crate) data: EventData<'a>,
    /// W3C trace context: the span that sent the event, or else the context that came with the job.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub traceparent: Option<&'a str>,
}

/// The end of a job.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EventData<'a> {
    /// The job's id: its own, or the AMQP `message_id`, or derived from the message.
    #[schemars(length(min = 1, max = 128))]
    pub job_id: &'a str,
    /// The job's kind; `unknown` if it could not be read.
    pub kind: &'static str,
    /// `succeeded`; `failed` (the job is also a dead letter); or `expired`: its deadline passed before its first start,
    /// and nothing was called. If a crash causes two events of one job, `succeeded` takes precedence.
    #[schemars(extend("enum" = ["succeeded", "failed", "expired"]))]
    pub outcome: &'static str,
    /// The action of the worker, on success.
    pub action: Option<&'static str>,
    /// The region, or the API's host.
    pub environment: &'a str,
    /// The number of attempts; waiting for the API's limits does not count.
    pub attempts: u32,
    /// The number of redrives from the dead letters.
    pub generation: u32,
    /// The broker's user who published the job: the message's `user_id`, which the broker checks. Absent if the
    /// producer set none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 255))]
    pub producer: Option<&'a str>,
    /// HTTP requests sent for this job; a shared request counts for each of its jobs.
    pub requests: u64,
    /// Milliseconds from the first start to the end, over all attempts.
    pub latency_ms: u64,
    /// Milliseconds from the message's `genfleet-enqueued-ms`, else its timestamp, or from the job's `notBefore` if
    /// that is later, to the first start; null if it had no plausible one.
    pub queued_ms: Option<u64>,
    /// Present and true if `queuedMs` counts from a timestamp of whole seconds: it is up to a second too long.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schemars(default)]
    pub queued_rough: bool,
    /// The line of the audit files about this end, if there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "AuditReference")]
    pub audit: Option<&'a AuditReference>,
    /// The report on success; beside an error, what was achieved. Each kind has its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Map<String, Value>")]
    pub report: Option<&'a Value>,
    /// The reason why it did not succeed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "EventError")]
    pub error: Option<&'a Value>,
}

/// The reason why a job did not succeed.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EventError {
    /// The error code, for programs.
    pub code: String,
    /// The problem, its place and its remedy, for people.
    pub message: String,
    /// The code of the last attempt, behind `attempts_exhausted`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub cause: Option<String>,
    /// The HTTP status the API answered with.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u16", range(min = 100, max = 599))]
    pub status: Option<u16>,
    /// The API's own id of the request: `ININ-Correlation-Id`, else `x-request-id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub request_id: Option<String>,
    /// The first 100 violations of the job.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub violations: Vec<Violation>,
    /// The number of all violations.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "usize")]
    pub violations_total: Option<usize>,
}
