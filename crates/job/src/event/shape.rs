//! The types of an event: written by [`super::Ending::event`], and published as a JSON Schema. Consumers must expect further
//! members.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{Violation, event::AuditReference};

/// The event every job ends in: a `CloudEvent` 1.0 in structured JSON, at most 256 KiB.
///
/// It is delivered at least once; a repeat has the same `id`. Further members may be added: ignore what you do not
/// know.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct CloudEvent {
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
    pub subject: String,
    /// When the job ended.
    #[schemars(extend("format" = "date-time"))]
    pub time: String,
    /// What `data` is.
    #[schemars(extend("const" = "application/json"))]
    pub datacontenttype: &'static str,
    /// How it ended.
    pub data: EventData,
    /// W3C trace context: where it was sent from in the job's trace, else what the job came with.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub traceparent: Option<String>,
}

/// How a job ended.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventData {
    /// The job's id: its own, or the AMQP `message_id`, or derived from the message.
    #[schemars(length(min = 1, max = 128))]
    pub job_id: String,
    /// What the job asked for; `unknown` where that could not be read.
    pub kind: &'static str,
    /// `succeeded`; `failed` (it is among the dead letters, too); or `expired`: its deadline passed before it was first
    /// started, and nothing was called. Should a crash make two of one job visible, `succeeded` outranks.
    #[schemars(extend("enum" = ["succeeded", "failed", "expired"]))]
    pub outcome: &'static str,
    /// What was done, on success.
    pub action: Option<&'static str>,
    /// The region, or the API's host.
    pub environment: String,
    /// How often the job was handed to its worker; waiting for the API's limits does not count.
    pub attempts: u32,
    /// How often it was redriven from the dead letters.
    pub generation: u32,
    /// The broker's user who published the job: its message's `user_id`, which the broker checks. Absent where the
    /// producer set none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 255))]
    pub producer: Option<String>,
    /// HTTP requests sent for this job; one that was shared counts for each.
    pub requests: u64,
    /// From first start to end, over all attempts, in milliseconds.
    pub latency_ms: u64,
    /// From the message's `genfleet-enqueued-ms`, else its timestamp, to the first start, in milliseconds; null where it had
    /// neither, or none that can be true.
    pub queued_ms: Option<u64>,
    /// There, and true, where `queuedMs` counts from a timestamp of whole seconds: it is up to a second too long.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schemars(default)]
    pub queued_rough: bool,
    /// The line of the audit files that tells of this end, where they are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "AuditReference")]
    pub audit: Option<AuditReference>,
    /// On success; beside an error it says what was achieved. Each kind has its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Map<String, Value>")]
    pub report: Option<Value>,
    /// Why it did not succeed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "EventError")]
    pub error: Option<Value>,
}

/// Why a job did not succeed.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventError {
    /// What went wrong, for programs.
    pub code: String,
    /// What was wrong, where, and what to do, for people.
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
    /// Every rule that the job breaks, the first 100.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub violations: Vec<Violation>,
    /// How many rules it breaks.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "usize")]
    pub violations_total: Option<usize>,
}
