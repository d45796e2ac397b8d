//! What upstream systems send: the job, its kinds and its ids (SPEC 1).
//!
//! Owns turning bytes into a [`Job`] or into a [`Rejection`] that names every violation. Payload rules that
//! no schema can state belong to the workers (`JobHandler::validate`).

/// A line on stderr; where nobody reads it any more, none, and the process goes on to its own exit code. What could
/// steer a terminal is written out.
#[macro_export]
macro_rules! tell {
    ($($told:tt)*) => {
        $crate::escape::tell(format_args!($($told)*))
    };
}

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

pub use self::violation::{MAX_VIOLATIONS_TOLD, Violation, Violations};

pub mod clock;
pub mod decode;
pub mod error;
pub mod escape;
pub mod event;
mod extract;
pub mod file;
pub mod hash;
pub mod job_headers;
pub mod lease;
pub mod message;
pub mod metric;
mod number;
pub mod options;
pub mod retry;
mod scan;
pub mod schema;
mod shape;
pub mod suggestion;
pub mod supervisor;
pub mod text;
pub mod trace_context;
mod violation;

/// A body longer than this is `too_large`, in bytes.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;
/// Arrays and objects inside each other, at most.
pub const MAX_NESTING: usize = 64;
/// Values in a body, at most: texts, numbers, truth values, nulls, arrays and objects.
pub const MAX_VALUES: usize = 100_000;
/// Entries that the lists of a payload have together, at most; what is free-form in it does not count.
pub const MAX_ENTRIES: usize = 10_000;
/// Attempts of a job that names no `maxAttempts`.
pub const DEFAULT_MAX_ATTEMPTS: u32 = 8;

/// In place of a kind, in events of jobs whose kind does not exist or cannot be read.
pub const UNKNOWN_KIND: &str = "unknown";

/// What a job asks for; also its routing key and its metric label. A closed set: labels stay bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Invalidates CDN cache paths.
    CdnPurge,
    /// Registers an `EventBridge` source definition.
    StreamConfigure,
    /// Creates a web messaging channel.
    ChannelProvision,
    /// Creates a virtual network interface and syncs its routing table.
    VniProvision,
    /// Orders a virus scan and follows it to its verdict.
    FileScan,
    /// Delivers one event to one URL (internal).
    WebhookDeliver,
}

impl Kind {
    /// All kinds, in the order of SPEC 1.
    pub const ALL: [Self; 6] = [
        Self::CdnPurge,
        Self::StreamConfigure,
        Self::ChannelProvision,
        Self::VniProvision,
        Self::FileScan,
        Self::WebhookDeliver,
    ];

    /// The routing key and label, e.g. `cdn.purge`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CdnPurge => "cdn.purge",
            Self::StreamConfigure => "stream.configure",
            Self::ChannelProvision => "channel.provision",
            Self::VniProvision => "vni.provision",
            Self::FileScan => "file.scan",
            Self::WebhookDeliver => "webhook.deliver",
        }
    }

    /// The binary that works this kind; webhooks are delivered by every worker.
    pub const fn worker(self) -> &'static str {
        match self {
            Self::CdnPurge => "purger",
            Self::StreamConfigure => "stream-configurator",
            Self::ChannelProvision => "channel-provisioner",
            Self::VniProvision => "vni-provisioner",
            Self::FileScan => "scan-monitor",
            Self::WebhookDeliver => "webhook",
        }
    }
}

impl Kind {
    /// Worked by one process of the fleet at a time, the one that holds the kind's lock (SPEC 6.1); the others
    /// stand by.
    pub const fn is_exclusive(self) -> bool {
        match self {
            Self::ChannelProvision | Self::VniProvision => true,
            Self::CdnPurge | Self::StreamConfigure | Self::FileScan | Self::WebhookDeliver => false,
        }
    }

    /// Those that producers may ask for.
    pub fn of_producers() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|kind| !kind.is_internal())
    }

    /// This product's own, not a producer's: calls no Genesys API, tells nobody when it succeeds, and no webhook when
    /// it fails.
    pub const fn is_internal(self) -> bool {
        match self {
            Self::WebhookDeliver => true,
            Self::CdnPurge | Self::StreamConfigure | Self::ChannelProvision | Self::VniProvision | Self::FileScan => {
                false
            }
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A kind that no worker knows.
#[derive(Debug, thiserror::Error)]
#[error("no such kind: {given:?}{}; the kinds are {}", hint(given), Kind::ALL.map(Kind::as_str).join(", "))]
pub struct UnknownKind {
    given: String,
}

fn hint(given: &str) -> String {
    suggestion::suggest_kind(given).map(|kind| format!(" (did you mean {kind}?)")).unwrap_or_default()
}

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(given: &str) -> Result<Self, UnknownKind> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == given)
            .ok_or_else(|| UnknownKind { given: given.chars().take(64).collect() })
    }
}

/// 1–128 of `A-Za-z0-9._:-`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct JobId(String);

impl JobId {
    /// An id has at most this many characters.
    pub const LONGEST: usize = 128;

    /// The id, where `given` has the form of one.
    pub fn parse(given: &str) -> Option<Self> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
        ((1..=Self::LONGEST).contains(&given.len()) && given.bytes().all(allowed)).then(|| Self(given.to_owned()))
    }

    /// The id of a job that brought none: the same for every delivery of the same message, since it is made
    /// of the body and the time the producer stamped on it. Of a body that is too large to be a job, what is beyond that
    /// size counts by its length.
    pub fn derived(body: &[u8], timestamp: Option<u64>) -> Self {
        let stamp = timestamp.map(|seconds| seconds.to_string()).unwrap_or_default();
        let (body, beyond) = body.split_at(body.len().min(MAX_BODY_BYTES));
        let beyond = if beyond.is_empty() { String::new() } else { format!("+{}", beyond.len()) };
        let name = [b"genfleet:job:", stamp.as_bytes(), b":", body, beyond.as_bytes()].concat();
        Self(Uuid::new_v5(&Uuid::NAMESPACE_URL, &name).to_string())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id of something derived from a job (SPEC 2): `UUIDv5` in the URL namespace over `genfleet:<name>`.
pub fn derived_id(name: &str) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("genfleet:{name}").as_bytes())
}

/// A job that can be worked: the envelope's rules hold; the payload's schema is checked, its meaning not yet.
#[derive(Clone, Debug)]
pub struct Job {
    /// Given, or the message id, or derived from the message.
    pub id: JobId,
    /// What it asks for.
    pub kind: Kind,
    /// SHA-256 of the worker's own part as it was sent, as canonical JSON.
    pub payload_sha256: String,
    /// Where this job's events are also sent.
    pub webhook: Option<String>,
    /// Not started earlier.
    pub not_before: Option<Timestamp>,
    /// Not first started later.
    pub deadline: Option<Timestamp>,
    /// 1–50.
    pub max_attempts: u32,
}

/// A body that is no job this worker can run: what to tell, and under which id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The job's id where one could be read, else the derived one.
    pub id: JobId,
    /// `undecodable`, `too_large`, `invalid_job` or `kind_mismatch`.
    pub code: &'static str,
    /// What is wrong, in a sentence.
    pub message: String,
    /// What it violates, in the order found.
    pub violations: Violations,
}

impl Rejection {
    /// A body of which no rule can be told that it breaks.
    pub fn new(id: JobId, code: &'static str, message: impl Into<String>) -> Self {
        Self { id, code, message: message.into(), violations: Violations::default() }
    }

    /// A job that breaks rules.
    pub fn invalid(id: JobId, violations: Violations) -> Self {
        Self { id, code: "invalid_job", message: violations.summary(), violations }
    }
}
