//! Shelves: where messages lie that nobody works. Looked at without taking, and taken off one by one, the same way on
//! both queues.
//!
//! Does not know what a message means: that is [`crate::letter`]. Does not decide what is taken off.

use std::fmt;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{Flaw, Publication, QueueError, rabbit, sqlite};
use genfleet_job::Kind;
use genfleet_job::message::Message;

/// One shelf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Shelf {
    /// The dead letters of a kind.
    Dead(Kind),
    /// The dead letters whose kind could not be read: lines of a batch. The embedded queue's.
    Unknown,
    /// What matched no queue. `RabbitMQ`'s.
    Unrouted,
}

impl Shelf {
    /// All shelves that hold dead letters.
    pub const DEAD: [Self; 7] = [
        Self::Dead(Kind::CdnPurge),
        Self::Dead(Kind::StreamConfigure),
        Self::Dead(Kind::ChannelProvision),
        Self::Dead(Kind::VniProvision),
        Self::Dead(Kind::FileScan),
        Self::Dead(Kind::WebhookDeliver),
        Self::Unknown,
    ];

    /// The kind, `unknown` or `unrouted`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dead(kind) => kind.as_str(),
            Self::Unknown => "unknown",
            Self::Unrouted => "unrouted",
        }
    }
}

impl fmt::Display for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A message as it lies on a shelf.
#[derive(Clone, Debug, PartialEq)]
pub struct Shelved {
    /// Where it lies.
    pub shelf: Shelf,
    /// Its place among those there were when the look began, from 1.
    pub position: u64,
    /// The message. Of its headers those that count: the trace context, and ours where we set them.
    pub message: Message,
    /// All its headers, as they can be shown.
    pub headers: Map<String, Value>,
    /// The exchange it came by; empty on the embedded queue.
    pub exchange: String,
    /// Its routing key; empty on the embedded queue.
    pub routing_key: String,
    /// Whether no producer can have set the headers that count.
    pub is_ours: bool,
    /// Whether it lies on the shelf of a kind that it never was of, or was made for an internal kind by nobody of us: the
    /// broker dead-letters by a producer's `CC` and `BCC`, too. Never to be run again.
    pub is_foreign: bool,
    /// Where the broker itself put it here: from which queue, why and when.
    pub death: Option<Death>,
    /// When it was put here, where the queue knows it.
    pub put_at: Option<Timestamp>,
    /// What is wrong with its properties, so that they are not shown as they came.
    pub flaw: Option<Flaw>,
    /// This process has published it before and could not take it off: to be taken off, and not published again.
    pub published_before: bool,
    pub(crate) place: Place,
}

#[cfg(test)]
impl Shelved {
    /// One that only tests know.
    pub(crate) fn for_test(shelf: Shelf, message: Message) -> Self {
        Self {
            shelf,
            position: 1,
            message,
            headers: Map::new(),
            exchange: String::new(),
            routing_key: String::new(),
            is_ours: true,
            is_foreign: false,
            death: None,
            put_at: None,
            flaw: None,
            published_before: false,
            place: Place::Sqlite(1),
        }
    }
}

/// Why the broker gave a message up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    /// `delivery_limit`, `expired`, `rejected` or `maxlen`.
    pub reason: String,
    /// From which queue.
    pub queue: String,
    /// When.
    pub time: Option<Timestamp>,
}

/// How a queue finds a message in hand again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Rabbit(rabbit::shelves::Place),
    Sqlite(i64),
}

/// A message to be taken off its shelf.
#[derive(Clone, Debug, PartialEq)]
pub struct TakenOff {
    /// Which.
    pub shelved: Shelved,
    /// What is published first: nothing where it is thrown away.
    pub publication: Option<Publication>,
}

/// The shelves of one queue.
#[derive(Debug)]
pub enum Shelves {
    /// `RabbitMQ`'s.
    Rabbit(rabbit::shelves::Shelves),
    /// The embedded queue's.
    Sqlite(sqlite::SqliteQueue),
}

impl Shelves {
    /// Whether this queue has such a shelf at all.
    pub fn has(&self, which: Shelf) -> bool {
        match (self, which) {
            (Self::Rabbit(_), Shelf::Unknown) | (Self::Sqlite(_), Shelf::Unrouted) => false,
            (Self::Rabbit(_), Shelf::Dead(_) | Shelf::Unrouted)
            | (Self::Sqlite(_), Shelf::Dead(_) | Shelf::Unknown) => true,
        }
    }

    /// How many messages lie on a shelf; those that somebody looks at right now are not counted on `RabbitMQ`.
    pub async fn count(&self, which: Shelf) -> Result<u64, QueueError> {
        match self {
            Self::Rabbit(shelves) => shelves.count(which).await,
            Self::Sqlite(store) => sqlite::shelves::count(store, which).await,
        }
    }

    /// Looks at what lies on a shelf now, first what came first. While it lasts nobody else sees, on `RabbitMQ`, what
    /// this one has come by. At most `undecided` messages are in hand at a time that are neither left nor taken off.
    pub async fn look(&self, which: Shelf, undecided: usize) -> Result<Look, QueueError> {
        Ok(match self {
            Self::Rabbit(shelves) => Look::Rabbit(Box::new(shelves.look(which, undecided).await?)),
            Self::Sqlite(store) => Look::Sqlite(Box::new(sqlite::shelves::Look::begin(store, which).await?)),
        })
    }

    /// What keeps this process from publishing now, where something does.
    pub fn trouble(&self) -> Option<String> {
        match self {
            Self::Rabbit(shelves) => shelves.trouble(),
            Self::Sqlite(store) => store.health().problems.into_iter().next(),
        }
    }

    /// Ends all connections.
    pub async fn close(&self) {
        match self {
            Self::Rabbit(shelves) => shelves.close().await,
            Self::Sqlite(store) => store.close().await,
        }
    }
}

/// A look at one shelf.
#[derive(Debug)]
pub enum Look {
    /// At one of `RabbitMQ`'s.
    Rabbit(Box<rabbit::shelves::Look>),
    /// At one of the embedded queue's.
    Sqlite(Box<sqlite::shelves::Look>),
}

impl Look {
    /// How many lay there when it began.
    pub fn there(&self) -> u64 {
        match self {
            Self::Rabbit(look) => look.there(),
            Self::Sqlite(look) => look.there(),
        }
    }

    /// The next one; none at the end of what lay there, or where somebody else holds the rest. An error ends the look,
    /// and nothing is lost by it.
    pub async fn next(&mut self) -> Result<Option<Shelved>, QueueError> {
        match self {
            Self::Rabbit(look) => look.next().await,
            Self::Sqlite(look) => look.next().await,
        }
    }

    /// This one stays.
    pub fn leave(&mut self, shelved: &Shelved) {
        match (self, shelved.place) {
            (Self::Rabbit(look), Place::Rabbit(place)) => look.leave(place),
            (Self::Rabbit(_), Place::Sqlite(_)) | (Self::Sqlite(_), _) => {}
        }
    }

    /// Publishes what is to be published, and then takes all of these off: embedded in one transaction each. How many
    /// were still there. After an error, or killed on the way, those published and not taken off lie there still.
    pub async fn take_off(&mut self, these: Vec<TakenOff>) -> Result<usize, QueueError> {
        match self {
            Self::Rabbit(look) => look.take_off(these).await,
            Self::Sqlite(look) => look.take_off(these).await,
        }
    }

    /// Ends the look: all that was not taken off is in its place.
    pub async fn close(self) -> Result<(), QueueError> {
        match self {
            Self::Rabbit(look) => look.close().await,
            Self::Sqlite(_) => Ok(()),
        }
    }
}
