//! A message in a queue: its body, properties and headers.

use std::{collections::BTreeMap, fmt};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub mod enqueued;

/// A header value of the types that Genfleet sets; others are dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum HeaderValue {
    /// A whole number.
    Number(i64),
    /// Text.
    Text(String),
}

impl HeaderValue {
    /// The number, also if it came as text.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Text(text) => text.parse().ok(),
        }
    }

    /// The text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Number(_) => None,
        }
    }
}

impl From<&str> for HeaderValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for HeaderValue {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for HeaderValue {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<u32> for HeaderValue {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

/// Headers by name. A delivery has only `traceparent`, `tracestate` and trusted `genfleet-*` headers (SPEC 6.1).
pub type Headers = BTreeMap<String, HeaderValue>;

/// The longest headers of one message, names and values together, in bytes (SPEC 5.4).
pub const MAX_HEADER_BYTES: usize = 64 * 1024;

/// The approximate length of `headers` on the wire, in bytes.
pub fn header_bytes(headers: &Headers) -> usize {
    let value = |value: &HeaderValue| value.as_str().map_or(8, str::len);
    headers.iter().map(|(name, each)| name.len() + 6 + value(each)).sum()
}

/// A message as received or to be sent. A worker never rewrites the body.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Message {
    /// The job's bytes, as the producer sent them.
    pub body: Bytes,
    /// AMQP `message_id`.
    pub message_id: Option<String>,
    /// AMQP `correlation_id`.
    pub correlation_id: Option<String>,
    /// AMQP `reply_to`: the queue that also gets the final event.
    pub reply_to: Option<String>,
    /// AMQP `timestamp`, Unix seconds.
    pub timestamp: Option<u64>,
    /// AMQP `content_type`.
    pub content_type: Option<String>,
    /// The headers.
    pub headers: Headers,
}

/// The queue of its kind in which a job waits (SPEC 6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// Jobs that were not started yet.
    Jobs,
    /// Jobs that were started before. Their headers contain their state.
    Resume,
    /// Jobs that may have crashed the processes that ran them.
    Suspect,
}

impl Lane {
    /// The part of queue names.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Jobs => "jobs",
            Self::Resume => "resume",
            Self::Suspect => "suspect",
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
