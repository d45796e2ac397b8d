//! Stored messages that no worker receives any more, and their queues.

use std::fmt;

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::{defect::MessageDefect, message::Publication};
use genfleet_job::{Kind, message::Message};

/// A queue of messages that no worker receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DeadLetterQueue {
    /// The dead letters of a kind.
    Dead(Kind),
    /// Dead letters of unknown kind (lines of a batch). Exists on the embedded queue only.
    Unknown,
    /// Messages that matched no queue. Exists on `RabbitMQ` only.
    Unrouted,
}

impl DeadLetterQueue {
    /// Returns all queues of dead letters of both backends.
    pub fn dead() -> impl Iterator<Item = Self> {
        Kind::ALL.into_iter().map(Self::Dead).chain([Self::Unknown])
    }

    /// The name: a kind, `unknown` or `unrouted`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dead(kind) => kind.as_str(),
            Self::Unknown => "unknown",
            Self::Unrouted => "unrouted",
        }
    }
}

impl fmt::Display for DeadLetterQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A message of a [`DeadLetterQueue`].
#[derive(Clone, Debug, PartialEq)]
pub struct StoredMessage {
    /// The queue that contains it.
    pub queue: DeadLetterQueue,
    /// Position in the queue when browsing began, counted from 1.
    pub position: u64,
    /// The message with its trusted headers: the trace context, and `genfleet-*` headers if a worker set them.
    pub message: Message,
    /// All headers of the message, for display.
    pub headers: Map<String, Value>,
    /// The exchange to which it was published; empty on the embedded queue.
    pub exchange: String,
    /// The routing key; empty on the embedded queue.
    pub routing_key: String,
    /// True if no producer can have set its `genfleet-*` headers.
    pub is_ours: bool,
    /// True if it never was a job of its queue's kind, or has an internal kind but was not published by a worker. The
    /// broker also dead-letters by a producer's `CC` and `BCC`. Such a message must never run.
    pub is_foreign: bool,
    /// The broker's reason, if the broker itself dead-lettered it.
    pub death: Option<Death>,
    /// Time of its arrival in the queue, if it is known.
    pub stored_at: Option<Timestamp>,
    /// A defect of its properties, which are then not shown as they were sent.
    pub defect: Option<MessageDefect>,
    /// True if this process has already published it and could not remove it. It must be removed and not published
    /// again.
    pub published_before: bool,
    pub(crate) place: StoredPlace,
}

/// The broker's record of a dead-lettering.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    /// `delivery_limit`, `expired`, `rejected` or `maxlen`.
    pub reason: String,
    /// The queue in which the message was.
    pub queue: String,
    /// Time of the dead-lettering.
    pub time: Option<Timestamp>,
}

/// The backend's reference to a browsed message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoredPlace {
    Rabbit(RabbitPlace),
    Sqlite(i64),
}

/// A delivery that a browsing channel holds unacknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RabbitPlace {
    /// Index of the channel.
    pub(crate) channel: usize,
    /// Delivery tag on the channel.
    pub(crate) tag: u64,
}

/// The removal of a message from its queue.
#[derive(Clone, Debug, PartialEq)]
pub struct Removal {
    /// The message.
    pub stored: StoredMessage,
    /// The publication before the removal; `None` to discard the message.
    pub publication: Option<Publication>,
}

#[cfg(test)]
impl StoredMessage {
    pub(crate) fn for_test(queue: DeadLetterQueue, message: Message) -> Self {
        Self {
            queue,
            position: 1,
            message,
            headers: Map::new(),
            exchange: String::new(),
            routing_key: String::new(),
            is_ours: true,
            is_foreign: false,
            death: None,
            stored_at: None,
            defect: None,
            published_before: false,
            place: StoredPlace::Sqlite(1),
        }
    }
}
