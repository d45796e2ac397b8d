//! The dead letters of the embedded store. They are read page by page, and each is removed in one transaction together
//! with its publications.

use std::collections::VecDeque;

use futures_util::future::try_join_all;
use serde_json::{Map, Value};

use super::{inspect::DeadLetterRow, store::SqliteQueue};
use crate::{
    dead_letters::{DeadLetterQueue, Removal, StoredMessage, StoredPlace},
    message::QueueError,
};
use genfleet_job::message::HeaderValue;

/// Number of rows that are read at once.
const PAGE: usize = 64;

impl SqliteQueue {
    /// Number of messages in `queue`. A store routes every message, so that none is in the queue of unrouted ones.
    pub(crate) async fn count_dead_letters(&self, queue: DeadLetterQueue) -> Result<u64, QueueError> {
        self.dead_letters_end(queue.as_str()).await.map(|(count, _)| count)
    }

    /// Browses the current messages of `queue`.
    pub(crate) async fn browse(&self, queue: DeadLetterQueue) -> Result<StoreBrowser, QueueError> {
        let (total, last) = self.dead_letters_end(queue.as_str()).await?;
        let (store, page) = (self.clone(), VecDeque::new());
        Ok(StoreBrowser { store, queue, total, last, read: 0, position: 0, page })
    }
}

/// A browser of one queue.
#[derive(Debug)]
pub(crate) struct StoreBrowser {
    store: SqliteQueue,
    queue: DeadLetterQueue,
    total: u64,
    /// Sequence of the last message at the beginning of browsing.
    last: i64,
    read: i64,
    position: u64,
    page: VecDeque<DeadLetterRow>,
}

impl StoreBrowser {
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    pub(crate) async fn next(&mut self) -> Result<Option<StoredMessage>, QueueError> {
        if self.page.is_empty() && self.read < self.last {
            let page = self.store.dead_letters(Some(self.queue.as_str()), self.read, PAGE).await?;
            self.read = page.last().map_or(self.last, |row| row.sequence);
            self.page = page.into();
        }
        let Some(row) = self.page.pop_front().filter(|row| row.sequence <= self.last) else {
            return Ok(None);
        };
        self.position += 1;
        Ok(Some(stored_message(self.queue, self.position, row)))
    }

    pub(crate) async fn remove(&mut self, these: Vec<Removal>) -> Result<usize, QueueError> {
        let taken = these.into_iter().filter_map(|Removal { stored, publication }| match stored.place {
            StoredPlace::Sqlite(sequence) => Some(self.store.redrive(sequence, publication.into_iter().collect())),
            StoredPlace::Rabbit(_) => None,
        });
        let found = try_join_all(taken).await?;
        Ok(found.into_iter().filter(|found| *found).count())
    }
}

fn stored_message(queue: DeadLetterQueue, position: u64, row: DeadLetterRow) -> StoredMessage {
    let to_json = |value: &HeaderValue| match value {
        HeaderValue::Number(number) => Value::from(*number),
        HeaderValue::Text(text) => text.as_str().into(),
    };
    let headers: Map<_, _> = row.message.headers.iter().map(|(name, value)| (name.clone(), to_json(value))).collect();
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
