//! The dead letters of either backend: counted, browsed without being taken, and removed one by one.
//!
//! The meaning of a message is in [`letter`]. Which messages are removed is the caller's decision.

use super::{QueueError, rabbit, sqlite};

mod letter;
mod stored;

pub(crate) use self::stored::{RabbitPlace, StoredPlace};
pub use self::{
    letter::{DeadLetter, FOREIGN, UNKNOWN, UNROUTED},
    stored::{DeadLetterQueue, Death, Removal, StoredMessage},
};

/// The shelves of one queue.
#[derive(Debug)]
pub enum DeadLetters {
    /// `RabbitMQ`'s.
    Rabbit(rabbit::RabbitDeadLetters),
    /// The embedded queue's.
    Sqlite(sqlite::SqliteQueue),
}

impl DeadLetters {
    /// Whether this queue has such a shelf at all.
    pub fn has(&self, which: DeadLetterQueue) -> bool {
        match (self, which) {
            (Self::Rabbit(_), DeadLetterQueue::Unknown) | (Self::Sqlite(_), DeadLetterQueue::Unrouted) => false,
            (Self::Rabbit(_), DeadLetterQueue::Dead(_) | DeadLetterQueue::Unrouted)
            | (Self::Sqlite(_), DeadLetterQueue::Dead(_) | DeadLetterQueue::Unknown) => true,
        }
    }

    /// How many messages lie on a shelf; those that somebody looks at right now are not counted on `RabbitMQ`.
    pub async fn count(&self, which: DeadLetterQueue) -> Result<u64, QueueError> {
        match self {
            Self::Rabbit(dead_letters) => dead_letters.count(which).await,
            Self::Sqlite(store) => sqlite::count_dead_letters(store, which).await,
        }
    }

    /// Looks at what lies on a shelf now, first what came first. While it lasts nobody else sees, on `RabbitMQ`, what
    /// this one has come by. At most `undecided` messages are in hand at a time that are neither left nor taken off.
    pub async fn browse(&self, which: DeadLetterQueue, undecided: usize) -> Result<Browser, QueueError> {
        Ok(match self {
            Self::Rabbit(dead_letters) => Browser::Rabbit(Box::new(dead_letters.browse(which, undecided).await?)),
            Self::Sqlite(store) => Browser::Sqlite(Box::new(sqlite::StoreBrowser::begin(store, which).await?)),
        })
    }

    /// What keeps this process from publishing now, where something does.
    pub fn trouble(&self) -> Option<String> {
        match self {
            Self::Rabbit(dead_letters) => dead_letters.trouble(),
            Self::Sqlite(store) => store.health().problems.into_iter().next(),
        }
    }

    /// Ends all connections.
    pub async fn close(&self) {
        match self {
            Self::Rabbit(dead_letters) => dead_letters.close().await,
            Self::Sqlite(store) => store.close().await,
        }
    }
}

/// A look at one shelf.
#[derive(Debug)]
pub enum Browser {
    /// At one of `RabbitMQ`'s.
    Rabbit(Box<rabbit::RabbitBrowser>),
    /// At one of the embedded queue's.
    Sqlite(Box<sqlite::StoreBrowser>),
}

impl Browser {
    /// How many lay there when it began.
    pub fn total(&self) -> u64 {
        match self {
            Self::Rabbit(look) => look.total(),
            Self::Sqlite(look) => look.total(),
        }
    }

    /// The next one; none at the end of what lay there, or where somebody else holds the rest. An error ends the look,
    /// and nothing is lost by it.
    pub async fn next(&mut self) -> Result<Option<StoredMessage>, QueueError> {
        match self {
            Self::Rabbit(look) => look.next().await,
            Self::Sqlite(look) => look.next().await,
        }
    }

    /// This one stays.
    pub fn keep(&mut self, stored: &StoredMessage) {
        match (self, stored.place) {
            (Self::Rabbit(look), StoredPlace::Rabbit(place)) => look.keep(place),
            (Self::Rabbit(_), StoredPlace::Sqlite(_)) | (Self::Sqlite(_), _) => {}
        }
    }

    /// Publishes what is to be published, and then takes all of these off: embedded in one transaction each. How many
    /// were still there. After an error, or killed on the way, those published and not taken off lie there still.
    pub async fn remove(&mut self, these: Vec<Removal>) -> Result<usize, QueueError> {
        match self {
            Self::Rabbit(look) => look.remove(these).await,
            Self::Sqlite(look) => look.remove(these).await,
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
