//! The vocabulary of Genfleet: jobs, their kinds and ids (SPEC 1), messages, errors and events.
//!
//! Decodes bytes into a [`Job`], or into a [`Rejection`] that names every violation. Payload rules beyond JSON Schema
//! belong to the workers (`JobHandler::validate`).

/// Writes a line to stderr, with control characters escaped. A closed stderr is ignored, so that the process ends with
/// its own exit code.
#[macro_export]
macro_rules! eprint_line {
    ($($message:tt)*) => {
        $crate::escape::print_to_stderr(format_args!($($message)*))
    };
}

use std::{fmt, sync::Arc};

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use uuid::Uuid;

pub use self::{
    kind::{Kind, UnknownKind},
    number::whole_number,
    violation::{Violation, Violations},
};

pub mod clock;
pub mod decode;
pub mod error;
pub mod escape;
pub mod event;
mod extract;
pub mod file;
mod fit;
pub mod hash;
pub mod job_headers;
mod kind;
pub mod lease;
pub mod message;
pub mod metric;
mod number;
pub mod options;
pub mod retry;
mod scan;
pub mod schema;
mod shape;
pub mod supervisor;
pub mod text;
pub mod trace_context;
mod violation;

/// The longest body, in bytes; a longer one is `too_large`.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;
/// The deepest nesting of arrays and objects.
pub(crate) const MAX_NESTING: usize = 64;
/// The highest number of values in a body: strings, numbers, booleans, nulls, arrays and objects.
pub(crate) const MAX_VALUES: usize = 100_000;
/// The highest number of entries of all lists of a payload together; free-form parts do not count.
pub(crate) const MAX_ENTRIES: usize = 10_000;
/// The attempts of a job without `maxAttempts`.
pub const DEFAULT_MAX_ATTEMPTS: u32 = 8;

/// The kind in events of jobs whose kind does not exist or cannot be read.
pub const UNKNOWN_KIND: &str = "unknown";

/// The id of a job: 1–128 characters of `A-Za-z0-9._:-`. Clones share the text.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(Arc<str>);

impl JobId {
    /// The longest id, in characters.
    pub(crate) const LONGEST: usize = 128;

    /// Parses an id; `None` if it is invalid.
    pub fn parse(given: &str) -> Option<Self> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
        ((1..=Self::LONGEST).contains(&given.len()) && given.bytes().all(allowed)).then(|| Self(given.into()))
    }

    /// Derives the id of a job that has none from its body and the producer's timestamp, so that it is the same for
    /// every delivery of the message. Of a body that is too large, the part beyond the limit counts by its length.
    pub fn derive(body: &[u8], timestamp: Option<u64>) -> Self {
        let stamp = timestamp.map(|seconds| seconds.to_string()).unwrap_or_default();
        let (body, beyond) = body.split_at(body.len().min(MAX_BODY_BYTES));
        let beyond = if beyond.is_empty() { String::new() } else { format!("+{}", beyond.len()) };
        let name = [b"genfleet:job:", stamp.as_bytes(), b":", body, beyond.as_bytes()].concat();
        Self(Uuid::new_v5(&Uuid::NAMESPACE_URL, &name).to_string().into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Serialize for JobId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id of something derived from a job (SPEC 2): `UUIDv5` in the URL namespace over `genfleet:<name>`.
pub fn derive_id(name: &str) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("genfleet:{name}").as_bytes())
}

/// A job whose envelope and payload match the schema; the worker's own rules are not checked yet.
#[derive(Clone, Debug)]
pub struct Job {
    /// The id: given, or the message id, or derived from the message.
    pub id: JobId,
    /// The kind.
    pub kind: Kind,
    /// The SHA-256 of the payload as it was sent, as canonical JSON.
    pub payload_sha256: String,
    /// The URL that also gets the job's event.
    pub webhook: Option<String>,
    /// The earliest start.
    pub not_before: Option<Timestamp>,
    /// The latest first start.
    pub deadline: Option<Timestamp>,
    /// The highest number of attempts, 1–50.
    pub max_attempts: u32,
}

/// The reason why a body is not a valid job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The id that could be read, else the derived one.
    pub id: JobId,
    /// `undecodable`, `too_large`, `invalid_job` or `kind_mismatch`.
    pub code: &'static str,
    /// The problem, as a sentence.
    pub message: String,
    /// The violations, in the order found.
    pub violations: Violations,
}

impl Rejection {
    /// A rejection without violations.
    pub fn new(id: JobId, code: &'static str, message: impl Into<String>) -> Self {
        Self { id, code, message: message.into(), violations: Violations::default() }
    }

    /// The rejection of an invalid job.
    pub fn invalid(id: JobId, violations: Violations) -> Self {
        Self { id, code: "invalid_job", message: violations.summary(), violations }
    }
}
