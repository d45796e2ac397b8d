//! A message that no worker takes any more, as it lies in its queue, and the queues that hold such messages.

use std::fmt;

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::{defect::MessageDefect, message::Publication};
use genfleet_job::{Kind, message::Message};

/// A queue of messages that no worker takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DeadLetterQueue {
    /// The dead letters of a kind.
    Dead(Kind),
    /// Dead letters whose kind could not be read (lines of a batch). Exists on the embedded queue only.
    Unknown,
    /// Messages that matched no queue. Exists on `RabbitMQ` only.
    Unrouted,
}

impl DeadLetterQueue {
    /// All queues of dead letters, on either backend.
    pub fn dead() -> impl Iterator<Item = Self> {
        Kind::ALL.into_iter().map(Self::Dead).chain([Self::Unknown])
    }

    /// The kind, `unknown` or `unrouted`.
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
    /// The queue that holds it.
    pub queue: DeadLetterQueue,
    /// Position in the queue when browsing began, from 1.
    pub position: u64,
    /// The message. Of its headers those that are believed: the trace context, and ours where we set them.
    pub message: Message,
    /// All its headers, for display.
    pub headers: Map<String, Value>,
    /// The exchange it came by; empty on the embedded queue.
    pub exchange: String,
    /// Its routing key; empty on the embedded queue.
    pub routing_key: String,
    /// No producer can have set the headers that are believed.
    pub is_ours: bool,
    /// It lies in the queue of a kind that it never was of, or is of an internal kind and was not published by us: the broker
    /// dead-letters by a producer's `CC` and `BCC`, too. It must never run.
    pub is_foreign: bool,
    /// The broker's reason, where the broker itself dead-lettered it.
    pub death: Option<Death>,
    /// Time of its arrival here, where the queue knows it.
    pub stored_at: Option<Timestamp>,
    /// Defect of its properties, which are then not shown as they came.
    pub defect: Option<MessageDefect>,
    /// This process has published it before and could not remove it: it is to be removed, and not published again.
    pub published_before: bool,
    pub(crate) place: StoredPlace,
}

/// The broker's account of a message that it dead-lettered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    /// `delivery_limit`, `expired`, `rejected` or `maxlen`.
    pub reason: String,
    /// The queue that it was in.
    pub queue: String,
    /// Time of the dead-lettering.
    pub time: Option<Timestamp>,
}

/// The backend's reference to a message that is being browsed.
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
    /// Delivery tag on it.
    pub(crate) tag: u64,
}

/// The removal of a message from its queue.
#[derive(Clone, Debug, PartialEq)]
pub struct Removal {
    /// The message.
    pub stored: StoredMessage,
    /// Published before the removal; `None` where the message is discarded.
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
