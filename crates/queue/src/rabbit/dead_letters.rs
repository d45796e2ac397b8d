//! Dead letters on `RabbitMQ`. They are read over an inspector's connection, and published like a worker's messages,
//! with publisher confirms.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    browse::{BrowsedDelivery, QueueReader},
    convert, headers,
    inspect::RabbitInspector,
    origin,
    queue::RabbitQueue,
    settings::{RabbitSettings, TopologyMode},
};
use crate::{
    dead_letters::{DeadLetterQueue, RabbitPlace, Removal, StoredMessage, StoredPlace},
    message::{Publication, QueueError},
    topology,
};
use genfleet_job::{Kind, clock::SharedClock, message::Message};

/// Maximum number of messages in memory, unless more are neither kept nor removed.
const PORTION: u16 = 200;

/// The dead letters of a broker.
pub(crate) struct RabbitDeadLetters {
    inspector: tokio::sync::Mutex<Option<RabbitInspector>>,
    publisher: Arc<DeadLetterPublisher>,
}

impl RabbitDeadLetters {
    /// Creates a handle that connects at its first use.
    pub(crate) fn new(settings: RabbitSettings, clock: SharedClock) -> Self {
        let publisher = DeadLetterPublisher { settings, clock, queue: Mutex::default(), unfinished: Mutex::default() };
        Self { inspector: tokio::sync::Mutex::default(), publisher: Arc::new(publisher) }
    }

    pub(crate) fn settings(&self) -> &RabbitSettings {
        &self.publisher.settings
    }

    /// Returns the inspector, or a new one if there is none or its connection is lost. Fails if no broker
    /// answers.
    pub(crate) async fn inspector(&self) -> Result<RabbitInspector, QueueError> {
        let mut current = self.inspector.lock().await;
        if let Some(inspector) = current.as_ref().filter(|inspector| inspector.connection().is_usable()) {
            return Ok(inspector.clone());
        }
        let inspector = RabbitInspector::connect(self.settings().clone()).await?;
        *current = Some(inspector.clone());
        Ok(inspector)
    }

    pub(crate) async fn count(&self, which: DeadLetterQueue) -> Result<u64, QueueError> {
        match self.queue(which) {
            Some(queue) => Ok(self.inspector().await?.count(&queue).await?.into()),
            None => Ok(0),
        }
    }

    pub(crate) async fn browse(&self, which: DeadLetterQueue, undecided: usize) -> Result<RabbitBrowser, QueueError> {
        let portion = u16::try_from(undecided.saturating_mul(2)).unwrap_or(u16::MAX).max(PORTION);
        let reader = match self.queue(which) {
            Some(queue) => {
                let inspector = self.inspector().await?;
                Some(QueueReader::begin(inspector.connection(), &queue, portion).await?)
            }
            None => None,
        };
        let (prefix, publisher) = (self.settings().prefix.clone(), self.publisher.clone());
        Ok(RabbitBrowser { queue: which, prefix, reader, position: 0, publisher, claimed: Vec::new() })
    }

    pub(crate) fn trouble(&self) -> Option<String> {
        let health = self.publisher.lock_started().as_ref()?.0.health();
        let blocked = health.publishing_blocked.then(|| "the broker takes no publications (memory or disk)".to_owned());
        health.problems.into_iter().next().or(blocked)
    }

    pub(crate) async fn close(&self) {
        let publisher = self.publisher.lock_started().take();
        if let Some((publisher, _)) = publisher {
            publisher.close().await;
        }
        if let Some(inspector) = self.inspector.lock().await.take() {
            inspector.close().await;
        }
    }

    fn queue(&self, which: DeadLetterQueue) -> Option<String> {
        match which {
            DeadLetterQueue::Dead(kind) => Some(topology::dead_queue(&self.settings().prefix, kind)),
            DeadLetterQueue::Unrouted => Some(topology::unrouted(&self.settings().prefix)),
            DeadLetterQueue::Unknown => None,
        }
    }
}

impl fmt::Debug for RabbitDeadLetters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitDeadLetters").field("prefix", &self.settings().prefix).finish_non_exhaustive()
    }
}

/// A publisher that connects at its first publication.
struct DeadLetterPublisher {
    settings: RabbitSettings,
    clock: SharedClock,
    queue: Mutex<Option<(RabbitQueue, BTreeSet<Kind>)>>,
    /// Messages that were published and may not be removed. If they are read again, they are only removed.
    unfinished: Mutex<Vec<Message>>,
}

impl DeadLetterPublisher {
    async fn publish(&self, publications: Vec<Publication>) -> Result<(), QueueError> {
        let (queue, replaced) = self.queue_for(&publications)?;
        if let Some(replaced) = replaced {
            replaced.close().await;
        }
        queue.publish(publications).await
    }

    /// Returns a queue that needs the queues of all kinds to which `publications` go, and the one that it replaces.
    fn queue_for(&self, publications: &[Publication]) -> Result<(RabbitQueue, Option<RabbitQueue>), QueueError> {
        let mut started = self.lock_started();
        let mut kinds: BTreeSet<Kind> = publications.iter().filter_map(|publication| publication.to.kind()).collect();
        if let Some((queue, needed)) = &*started {
            if self.settings.topology != TopologyMode::Verify || needed.is_superset(&kinds) {
                return Ok((queue.clone(), None));
            }
            kinds.extend(needed);
        }
        let settings = RabbitSettings { kinds: kinds.iter().copied().collect(), ..self.settings.clone() };
        let queue = RabbitQueue::connect(settings, self.clock.clone())?;
        let replaced = started.replace((queue.clone(), kinds));
        Ok((queue, replaced.map(|(queue, _)| queue)))
    }

    fn lock_started(&self) -> MutexGuard<'_, Option<(RabbitQueue, BTreeSet<Kind>)>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_unfinished(&self) -> MutexGuard<'_, Vec<Message>> {
        self.unfinished.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes a message from the unfinished ones; returns false if it is none.
    fn claim(&self, message: &Message) -> bool {
        let mut unfinished = self.lock_unfinished();
        let found = unfinished.iter().position(|one| one == message);
        found.map(|index| unfinished.swap_remove(index)).is_some()
    }
}

/// A browser of one queue.
pub(crate) struct RabbitBrowser {
    queue: DeadLetterQueue,
    prefix: String,
    reader: Option<QueueReader>,
    position: u64,
    publisher: Arc<DeadLetterPublisher>,
    /// Unfinished messages that are held again. They stay unfinished unless they are removed now.
    claimed: Vec<Message>,
}

impl RabbitBrowser {
    pub(crate) fn total(&self) -> u64 {
        self.reader.as_ref().map_or(0, |reader| reader.total().into())
    }

    pub(crate) async fn next(&mut self) -> Result<Option<StoredMessage>, QueueError> {
        let Some(reader) = &mut self.reader else { return Ok(None) };
        let Some(browsed) = reader.next().await? else { return Ok(None) };
        self.position += 1;
        let redelivered = browsed.delivery.redelivered;
        let mut stored = self.stored_message(browsed);
        if redelivered && self.publisher.claim(&stored.message) {
            self.claimed.push(stored.message.clone());
            stored.published_before = true;
        }
        Ok(Some(stored))
    }

    pub(crate) fn keep(&mut self, place: RabbitPlace) {
        if let Some(reader) = &mut self.reader {
            reader.keep(place);
        }
    }

    pub(crate) async fn remove(&mut self, removals: Vec<Removal>) -> Result<usize, QueueError> {
        let Some(reader) = &mut self.reader else { return Ok(0) };
        let (mut publications, mut places, mut messages) = (Vec::new(), Vec::new(), Vec::new());
        for Removal { stored, publication } in removals {
            if let Some(publication) = publication {
                publications.push(publication);
                self.claimed.push(stored.message.clone());
            }
            if let StoredPlace::Rabbit(place) = stored.place {
                places.push(place);
            }
            messages.push(stored.message);
        }
        if !publications.is_empty() {
            self.publisher.publish(publications).await?;
        }
        reader.remove(&places).await?;
        self.claimed.retain(|claimed| !messages.contains(claimed));
        Ok(places.len())
    }

    pub(crate) async fn close(mut self) -> Result<(), QueueError> {
        match self.reader.take() {
            Some(reader) => reader.close().await,
            None => Ok(()),
        }
    }

    fn stored_message(&self, browsed: BrowsedDelivery) -> StoredMessage {
        let BrowsedDelivery { delivery, place } = browsed;
        let origin = origin::origin(&self.prefix, self.queue, &delivery);
        StoredMessage {
            queue: self.queue,
            position: self.position,
            defect: headers::defect(&delivery.properties),
            headers: origin::headers_as_json(delivery.properties.headers().as_ref()),
            exchange: delivery.exchange.to_string(),
            routing_key: delivery.routing_key.to_string(),
            is_ours: origin.is_ours,
            is_foreign: origin.is_foreign,
            stored_at: origin.death.as_ref().and_then(|death| death.time),
            death: origin.death,
            message: convert::with_trusted_headers(delivery, origin.is_ours),
            published_before: false,
            place: StoredPlace::Rabbit(place),
        }
    }
}

impl Drop for RabbitBrowser {
    fn drop(&mut self) {
        self.publisher.lock_unfinished().append(&mut self.claimed);
    }
}

impl fmt::Debug for RabbitBrowser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitBrowser")
            .field("queue", &self.queue)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}
