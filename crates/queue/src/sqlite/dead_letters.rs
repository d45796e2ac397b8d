//! The shelves of [`crate::shelf`] in the embedded store: its dead letters, read a page at a time, each taken off
//! in one transaction with what is published for it.

use std::collections::VecDeque;

use futures_util::future::try_join_all;
use serde_json::{Map, Value};

use super::{DeadLetterRow, SqliteQueue};
use crate::{
    QueueError,
    dead_letters::{DeadLetterQueue, Removal, StoredMessage, StoredPlace},
};
use genfleet_job::message::HeaderValue;

/// Letters read at once.
const PAGE: usize = 64;

/// How many letters lie on `shelf`.
pub(crate) async fn count(store: &SqliteQueue, queue: DeadLetterQueue) -> Result<u64, QueueError> {
    match kind(queue) {
        Some(kind) => store.dead_letters_end(Some(kind)).await.map(|(count, _)| count),
        None => Ok(0),
    }
}

/// Everything is somewhere in the store, so nothing is ever without a queue.
fn kind(queue: DeadLetterQueue) -> Option<&'static str> {
    match queue {
        DeadLetterQueue::Dead(_) | DeadLetterQueue::Unknown => Some(queue.as_str()),
        DeadLetterQueue::Unrouted => None,
    }
}

/// See [`crate::dead_letters::Browser`].
#[derive(Debug)]
pub struct StoreBrowser {
    store: SqliteQueue,
    queue: DeadLetterQueue,
    there: u64,
    /// What comes after this one came later than the look.
    last: i64,
    read: i64,
    position: u64,
    page: VecDeque<DeadLetterRow>,
}

impl StoreBrowser {
    pub(crate) async fn begin(store: &SqliteQueue, queue: DeadLetterQueue) -> Result<Self, QueueError> {
        let (there, last) = match kind(queue) {
            Some(kind) => store.dead_letters_end(Some(kind)).await?,
            None => (0, 0),
        };
        let (store, page) = (store.clone(), VecDeque::new());
        Ok(Self { store, queue, there, last, read: 0, position: 0, page })
    }

    /// See [`crate::dead_letters::Browser::total`].
    pub fn total(&self) -> u64 {
        self.there
    }

    /// See [`crate::dead_letters::Browser::next`].
    pub async fn next(&mut self) -> Result<Option<StoredMessage>, QueueError> {
        if self.page.is_empty() && self.read < self.last {
            let page = self.store.dead_letters(kind(self.queue), self.read, PAGE).await?;
            self.read = page.last().map_or(self.last, |row| row.sequence);
            self.page = page.into();
        }
        let Some(row) = self.page.pop_front().filter(|row| row.sequence <= self.last) else {
            return Ok(None);
        };
        self.position += 1;
        Ok(Some(stored(self.queue, self.position, row)))
    }

    /// See [`crate::dead_letters::Browser::remove`].
    pub async fn remove(&mut self, these: Vec<Removal>) -> Result<usize, QueueError> {
        let taken = these.into_iter().filter_map(|Removal { stored, publication }| match stored.place {
            StoredPlace::Sqlite(sequence) => Some(self.store.redrive(sequence, publication.into_iter().collect())),
            StoredPlace::Rabbit(_) => None,
        });
        let found = try_join_all(taken).await?;
        Ok(found.into_iter().filter(|found| *found).count())
    }
}

fn stored(queue: DeadLetterQueue, position: u64, row: DeadLetterRow) -> StoredMessage {
    let shown = |value: &HeaderValue| match value {
        HeaderValue::Number(number) => Value::from(*number),
        HeaderValue::Text(text) => text.as_str().into(),
    };
    let headers: Map<_, _> = row.message.headers.iter().map(|(name, value)| (name.clone(), shown(value))).collect();
    StoredMessage {
        queue,
        position,
        message: row.message,
        headers,
        exchange: String::new(),
        routing_key: String::new(),
        is_ours: true,
        is_foreign: false,
        death: None,
        stored_at: Some(row.died_at),
        defect: None,
        published_before: false,
        place: StoredPlace::Sqlite(row.sequence),
    }
}
