//! Access to a queue for operators, the same on both backends: dead letters, events and waiting jobs. Removes nothing
//! unless requested.

use std::{
    collections::VecDeque,
    fmt,
    path::{Path, PathBuf},
};

use bytes::Bytes;

use crate::{
    dead_letters::{DeadLetterQueue, Removal, StoredMessage, StoredPlace},
    message::QueueError,
    queue::dispatch,
    rabbit::{FollowedEvent, RabbitBrowser, RabbitDeadLetters, RabbitEventFollower, RabbitSettings},
    sqlite::{Role, SqliteQueue, StoreBrowser, WaitingJob},
};
use genfleet_job::clock::SharedClock;

/// Number of events or jobs that are read from a store at once.
const PAGE: usize = 500;

/// The location of a queue.
#[derive(Clone, Debug)]
pub enum QueueLocation {
    /// A broker.
    Broker(Box<RabbitSettings>),
    /// The file of a store.
    Store(PathBuf),
}

/// Access to a queue for operators.
#[derive(Debug)]
pub struct QueueInspector(Backend);

#[derive(Debug)]
enum Backend {
    Rabbit(RabbitDeadLetters),
    Sqlite(SqliteQueue),
}

impl QueueInspector {
    /// Opens an existing store, which a worker may also have open. A broker is connected with the first use.
    pub fn open(location: QueueLocation, clock: SharedClock) -> Result<Self, QueueError> {
        Ok(Self(match location {
            QueueLocation::Broker(settings) => Backend::Rabbit(RabbitDeadLetters::new(*settings, clock)),
            QueueLocation::Store(file) => Backend::Sqlite(open_store(&file, clock)?),
        }))
    }

    /// Returns true if this backend has such a queue.
    pub fn has(&self, which: DeadLetterQueue) -> bool {
        let missing = match self.0 {
            Backend::Rabbit(_) => DeadLetterQueue::Unknown,
            Backend::Sqlite(_) => DeadLetterQueue::Unrouted,
        };
        which != missing
    }

    /// Number of messages in a queue, on `RabbitMQ` without those that are being browsed.
    pub async fn count(&self, which: DeadLetterQueue) -> Result<u64, QueueError> {
        match &self.0 {
            Backend::Rabbit(dead_letters) => dead_letters.count(which).await,
            Backend::Sqlite(store) => store.count_dead_letters(which).await,
        }
    }

    /// Browses the messages that are in a queue now, oldest first. On `RabbitMQ`, other processes do not see the
    /// messages that were read meanwhile. At most `undecided` messages may be neither kept nor removed at a time.
    pub async fn browse(&self, which: DeadLetterQueue, undecided: usize) -> Result<Browser, QueueError> {
        Ok(Browser(match &self.0 {
            Backend::Rabbit(dead_letters) => BrowserOf::Rabbit(Box::new(dead_letters.browse(which, undecided).await?)),
            Backend::Sqlite(store) => BrowserOf::Sqlite(Box::new(store.browse(which).await?)),
        }))
    }

    /// Returns the reason why this process cannot publish now; `None` if it can.
    pub fn trouble(&self) -> Option<String> {
        match &self.0 {
            Backend::Rabbit(dead_letters) => dead_letters.trouble(),
            Backend::Sqlite(store) => store.health().problems.into_iter().next(),
        }
    }

    /// Passes every stored event to `visit`, oldest first.
    pub async fn each_event(&self, visit: impl FnMut(Bytes)) -> Result<(), QueueError> {
        match &self.0 {
            Backend::Rabbit(dead_letters) => dead_letters.inspector().await?.each_event(visit).await,
            Backend::Sqlite(store) => each_event_after(store, 0, visit).await.map(drop),
        }
    }

    /// Returns the latest `limit` stored events, oldest first. All stored events are read.
    pub async fn latest_events(&self, limit: usize) -> Result<Vec<Bytes>, QueueError> {
        match &self.0 {
            Backend::Rabbit(dead_letters) => dead_letters.inspector().await?.window_events(limit).await,
            Backend::Sqlite(store) => Ok(latest(store, limit).await?.0.into()),
        }
    }

    /// Follows the events from now on; on a store the latest `limit` stored events come first.
    pub async fn follow_events(&self, limit: usize) -> Result<EventFollower, QueueError> {
        Ok(EventFollower(match &self.0 {
            Backend::Rabbit(dead_letters) => {
                FollowerOf::Rabbit(Box::new(RabbitEventFollower::connect(dead_letters.settings().clone()).await?))
            }
            Backend::Sqlite(store) if limit == 0 => {
                let sequence = store.events_end().await?;
                FollowerOf::Sqlite { store: store.clone(), sequence, ready: VecDeque::new() }
            }
            Backend::Sqlite(store) => {
                let (ready, sequence) = latest(store, limit).await?;
                FollowerOf::Sqlite { store: store.clone(), sequence, ready }
            }
        }))
    }

    /// Passes every unsettled job to `visit`. Returns false on `RabbitMQ`, where jobs cannot be read without consuming
    /// them.
    pub async fn each_waiting_job(&self, mut visit: impl FnMut(WaitingJob)) -> Result<bool, QueueError> {
        let Backend::Sqlite(store) = &self.0 else { return Ok(false) };
        let mut sequence = 0;
        loop {
            let page = store.waiting_after(sequence, PAGE).await?;
            let Some(last) = page.last() else { return Ok(true) };
            sequence = last.sequence;
            page.into_iter().for_each(&mut visit);
        }
    }

    /// Ends all connections.
    pub async fn close(&self) {
        dispatch!(&self.0, Backend, backend => backend.close().await);
    }
}

fn open_store(file: &Path, clock: SharedClock) -> Result<SqliteQueue, QueueError> {
    if !file.exists() {
        return Err(QueueError::Configuration(format!("no store {}: name one that is there", file.display())));
    }
    SqliteQueue::open(file, Role::Tool, clock)
}

/// Passes the events after `sequence` to `visit`, and returns the sequence of the last one.
async fn each_event_after(
    store: &SqliteQueue,
    mut sequence: i64,
    mut visit: impl FnMut(Bytes),
) -> Result<i64, QueueError> {
    loop {
        let page = store.events_after(sequence, PAGE).await?;
        let Some(last) = page.last() else { return Ok(sequence) };
        sequence = last.sequence;
        for event in page {
            visit(event.body);
        }
    }
}

/// Returns the latest `limit` events of a store, and the sequence of the last one.
async fn latest(store: &SqliteQueue, limit: usize) -> Result<(VecDeque<Bytes>, i64), QueueError> {
    let mut latest = VecDeque::new();
    let keep = |event| {
        latest.push_back(event);
        latest.drain(..latest.len().saturating_sub(limit));
    };
    let sequence = each_event_after(store, 0, keep).await?;
    Ok((latest, sequence))
}

/// Follows events as they are published.
pub struct EventFollower(FollowerOf);

enum FollowerOf {
    Rabbit(Box<RabbitEventFollower>),
    Sqlite { store: SqliteQueue, sequence: i64, ready: VecDeque<Bytes> },
}

impl EventFollower {
    /// Waits for the next event. An error of a store is final; a broker is connected again.
    pub async fn next(&mut self) -> Result<FollowedEvent, QueueError> {
        match &mut self.0 {
            FollowerOf::Rabbit(follower) => Ok(follower.next().await),
            FollowerOf::Sqlite { store, sequence, ready } => loop {
                if let Some(event) = ready.pop_front() {
                    return Ok(FollowedEvent::Event(event));
                }
                let page = store.events_after(*sequence, PAGE).await?;
                let Some(last) = page.last() else {
                    store.wait_for_event().await;
                    continue;
                };
                *sequence = last.sequence;
                ready.extend(page.into_iter().map(|event| event.body));
            },
        }
    }
}

impl fmt::Debug for EventFollower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventFollower").finish_non_exhaustive()
    }
}

/// A browser of a queue of dead letters.
#[derive(Debug)]
pub struct Browser(BrowserOf);

#[derive(Debug)]
enum BrowserOf {
    Rabbit(Box<RabbitBrowser>),
    Sqlite(Box<StoreBrowser>),
}

impl Browser {
    /// Number of messages when browsing began.
    pub fn total(&self) -> u64 {
        dispatch!(&self.0, BrowserOf, browser => browser.total())
    }

    /// Returns the next message; `None` at the end, or if another process holds the rest. An error ends the
    /// browser; nothing is lost.
    pub async fn next(&mut self) -> Result<Option<StoredMessage>, QueueError> {
        dispatch!(&mut self.0, BrowserOf, browser => browser.next().await)
    }

    /// Marks a message as one that stays.
    pub fn keep(&mut self, stored: &StoredMessage) {
        if let (BrowserOf::Rabbit(browser), StoredPlace::Rabbit(place)) = (&mut self.0, stored.place) {
            browser.keep(place);
        }
    }

    /// Publishes and then removes these messages, each in one transaction on the embedded queue. Returns
    /// how many were still there. After an error or a crash, messages may be published and not removed.
    pub async fn remove(&mut self, removals: Vec<Removal>) -> Result<usize, QueueError> {
        dispatch!(&mut self.0, BrowserOf, browser => browser.remove(removals).await)
    }

    /// Ends the browser. All messages that were not removed are in their places.
    pub async fn close(self) -> Result<(), QueueError> {
        match self.0 {
            BrowserOf::Rabbit(browser) => browser.close().await,
            BrowserOf::Sqlite(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{Destination, Publication};
    use genfleet_job::{clock::SystemClock, message::Message};

    #[tokio::test]
    async fn the_latest_events_of_a_store_are_read_in_order_and_followed() {
        let file = std::env::temp_dir().join(format!("genfleet-events-{}.db", std::process::id()));
        let store = SqliteQueue::open(&file, Role::Tool, Arc::new(SystemClock)).unwrap();
        let to = Destination::Event { kind: "cdn.purge".to_owned(), outcome: "succeeded" };
        let event = |number: usize| Publication {
            to: to.clone(),
            message: Message { body: number.to_string().into(), ..Message::default() },
        };
        store.publish((0..PAGE + 7).map(event).collect()).await.unwrap();
        let inspector = QueueInspector::open(QueueLocation::Store(file.clone()), Arc::new(SystemClock)).unwrap();
        assert_eq!(inspector.latest_events(3).await.unwrap(), ["504", "505", "506"]);
        assert_eq!(inspector.latest_events(PAGE * 2).await.unwrap().len(), PAGE + 7);
        let (mut from_now, mut with_latest) =
            (inspector.follow_events(0).await.unwrap(), inspector.follow_events(1).await.unwrap());
        store.publish(vec![event(1_000)]).await.unwrap();
        let event = |body: &'static str| FollowedEvent::Event(body.into());
        assert_eq!(from_now.next().await.unwrap(), event("1000"));
        assert_eq!(with_latest.next().await.unwrap(), event("506"));
        assert_eq!(with_latest.next().await.unwrap(), event("1000"));
        inspector.close().await;
        store.close().await;
        SqliteQueue::remove(&file).unwrap();
    }
}
