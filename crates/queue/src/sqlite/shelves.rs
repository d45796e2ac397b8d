//! The shelves of [`crate::shelf`] in the embedded store: its dead letters, read a page at a time, each taken off
//! in one transaction with what is published for it.

use std::collections::VecDeque;

use futures_util::future::try_join_all;
use serde_json::{Map, Value};

use super::{DeadLetter, SqliteQueue};
use crate::{
    QueueError,
    shelf::{Place, Shelf, Shelved, TakenOff},
};
use genfleet_job::message::HeaderValue;

/// Letters read at once.
const PAGE: usize = 64;

/// How many letters lie on `shelf`.
pub(crate) async fn count(store: &SqliteQueue, shelf: Shelf) -> Result<u64, QueueError> {
    match kind(shelf) {
        Some(kind) => store.dead_letters_end(Some(kind)).await.map(|(count, _)| count),
        None => Ok(0),
    }
}

/// Everything is somewhere in the store, so nothing is ever without a queue.
fn kind(shelf: Shelf) -> Option<&'static str> {
    match shelf {
        Shelf::Dead(_) | Shelf::Unknown => Some(shelf.as_str()),
        Shelf::Unrouted => None,
    }
}

/// See [`crate::shelf::Look`].
#[derive(Debug)]
pub struct Look {
    store: SqliteQueue,
    shelf: Shelf,
    there: u64,
    /// What comes after this one came later than the look.
    last: i64,
    read: i64,
    position: u64,
    page: VecDeque<DeadLetter>,
}

impl Look {
    pub(crate) async fn begin(store: &SqliteQueue, shelf: Shelf) -> Result<Self, QueueError> {
        let (there, last) = match kind(shelf) {
            Some(kind) => store.dead_letters_end(Some(kind)).await?,
            None => (0, 0),
        };
        let (store, page) = (store.clone(), VecDeque::new());
        Ok(Self { store, shelf, there, last, read: 0, position: 0, page })
    }

    /// See [`crate::shelf::Look::there`].
    pub fn there(&self) -> u64 {
        self.there
    }

    /// See [`crate::shelf::Look::next`].
    pub async fn next(&mut self) -> Result<Option<Shelved>, QueueError> {
        if self.page.is_empty() && self.read < self.last {
            let page = self.store.dead_letters(kind(self.shelf), self.read, PAGE).await?;
            self.read = page.last().map_or(self.last, |letter| letter.sequence);
            self.page = page.into();
        }
        let Some(letter) = self.page.pop_front().filter(|letter| letter.sequence <= self.last) else {
            return Ok(None);
        };
        self.position += 1;
        Ok(Some(shelved(self.shelf, self.position, letter)))
    }

    /// See [`crate::shelf::Look::take_off`].
    pub async fn take_off(&mut self, these: Vec<TakenOff>) -> Result<usize, QueueError> {
        let taken = these.into_iter().filter_map(|TakenOff { shelved, publication }| match shelved.place {
            Place::Sqlite(sequence) => Some(self.store.redrive(sequence, publication.into_iter().collect())),
            Place::Rabbit(_) => None,
        });
        let found = try_join_all(taken).await?;
        Ok(found.into_iter().filter(|found| *found).count())
    }
}

fn shelved(shelf: Shelf, position: u64, letter: DeadLetter) -> Shelved {
    let shown = |value: &HeaderValue| match value {
        HeaderValue::Number(number) => Value::from(*number),
        HeaderValue::Text(text) => text.as_str().into(),
    };
    let headers: Map<_, _> = letter.message.headers.iter().map(|(name, value)| (name.clone(), shown(value))).collect();
    Shelved {
        shelf,
        position,
        message: letter.message,
        headers,
        exchange: String::new(),
        routing_key: String::new(),
        is_ours: true,
        is_foreign: false,
        death: None,
        put_at: Some(letter.died_at),
        flaw: None,
        published_before: false,
        place: Place::Sqlite(letter.sequence),
    }
}
