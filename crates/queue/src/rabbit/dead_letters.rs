//! The shelves of [`crate::shelf`] on `RabbitMQ`: read over a connection that looks; what is published goes over
//! the connection that every worker publishes by, which knows how to get a message confirmed.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    RabbitQueue, RabbitSettings,
    browse::{BrowsedDelivery, QueueReader},
    headers,
    inspect::RabbitInspector,
    origin,
};
use crate::{
    Publication, QueueError,
    dead_letters::{DeadLetterQueue, RabbitPlace, Removal, StoredMessage, StoredPlace},
    topology,
};
use genfleet_job::{clock::SharedClock, message::Message};

/// Messages in memory at a time, at most, where that is enough for those undecided.
const PORTION: u16 = 200;

/// See the module.
pub struct RabbitDeadLetters {
    settings: RabbitSettings,
    inspector: tokio::sync::Mutex<Option<RabbitInspector>>,
    publisher: Arc<DeadLetterPublisher>,
}

impl RabbitDeadLetters {
    /// Connects: an error where no broker answers now.
    pub async fn connect(settings: RabbitSettings, clock: SharedClock) -> Result<Self, QueueError> {
        let inspector = Some(RabbitInspector::connect(settings.clone()).await?).into();
        let publisher = DeadLetterPublisher {
            settings: settings.clone(),
            clock,
            queue: Mutex::default(),
            unfinished: Mutex::default(),
        };
        Ok(Self { settings, inspector, publisher: Arc::new(publisher) })
    }

    /// The connection that looks: the one there is, or a new one where that is gone.
    pub async fn inspector(&self) -> Result<RabbitInspector, QueueError> {
        let mut held = self.inspector.lock().await;
        if let Some(inspector) = held.as_ref().filter(|inspector| inspector.is_usable()) {
            return Ok(inspector.clone());
        }
        let inspector = RabbitInspector::connect(self.settings.clone()).await?;
        *held = Some(inspector.clone());
        Ok(inspector)
    }

    /// See [`crate::dead_letters::DeadLetters::count`].
    pub async fn count(&self, which: DeadLetterQueue) -> Result<u64, QueueError> {
        match self.queue(which) {
            Some(queue) => Ok(self.inspector().await?.count(&queue).await?.into()),
            None => Ok(0),
        }
    }

    /// See [`crate::dead_letters::DeadLetters::browse`].
    pub async fn browse(&self, which: DeadLetterQueue, undecided: usize) -> Result<RabbitBrowser, QueueError> {
        let portion = u16::try_from(undecided.saturating_mul(2)).unwrap_or(u16::MAX).max(PORTION);
        let reader = match self.queue(which) {
            Some(queue) => Some(QueueReader::begin(self.inspector().await?, &queue, portion).await?),
            None => None,
        };
        let (prefix, publisher) = (self.settings.prefix.clone(), self.publisher.clone());
        Ok(RabbitBrowser { queue: which, prefix, reader, position: 0, publisher, claimed: Vec::new() })
    }

    /// See [`crate::dead_letters::DeadLetters::trouble`].
    pub fn trouble(&self) -> Option<String> {
        let health = self.publisher.started().as_ref()?.health();
        let blocked = health.publishing_blocked.then(|| "the broker takes no publications (memory or disk)".to_owned());
        health.problems.into_iter().next().or(blocked)
    }

    /// See [`crate::dead_letters::DeadLetters::close`].
    pub async fn close(&self) {
        let publisher = self.publisher.started().take();
        if let Some(publisher) = publisher {
            publisher.close().await;
        }
        if let Some(inspector) = self.inspector.lock().await.take() {
            inspector.close().await;
        }
    }

    fn queue(&self, which: DeadLetterQueue) -> Option<String> {
        match which {
            DeadLetterQueue::Dead(kind) => Some(topology::dead_queue(&self.settings.prefix, kind)),
            DeadLetterQueue::Unrouted => Some(topology::unrouted(&self.settings.prefix)),
            DeadLetterQueue::Unknown => None,
        }
    }
}

impl fmt::Debug for RabbitDeadLetters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitDeadLetters").field("prefix", &self.settings.prefix).finish_non_exhaustive()
    }
}

/// The publishing side, connected once something is published.
struct DeadLetterPublisher {
    settings: RabbitSettings,
    clock: SharedClock,
    queue: Mutex<Option<RabbitQueue>>,
    /// Published, and not known to be taken off: what of it comes again is taken off, and no more.
    unfinished: Mutex<Vec<Message>>,
}

impl DeadLetterPublisher {
    async fn publish(&self, publications: Vec<Publication>) -> Result<(), QueueError> {
        let queue = {
            let mut started = self.started();
            match &*started {
                Some(queue) => queue.clone(),
                None => started.insert(RabbitQueue::connect(self.settings.clone(), self.clock.clone())?).clone(),
            }
        };
        queue.publish(publications).await
    }

    fn started(&self) -> MutexGuard<'_, Option<RabbitQueue>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unfinished(&self) -> MutexGuard<'_, Vec<Message>> {
        self.unfinished.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this very message is unfinished; there is one less then.
    fn claim(&self, message: &Message) -> bool {
        let mut unfinished = self.unfinished();
        let found = unfinished.iter().position(|one| one == message);
        found.map(|index| unfinished.swap_remove(index)).is_some()
    }
}

/// See [`crate::dead_letters::Browser`].
pub struct RabbitBrowser {
    queue: DeadLetterQueue,
    prefix: String,
    reader: Option<QueueReader>,
    position: u64,
    publisher: Arc<DeadLetterPublisher>,
    /// What was unfinished and is in hand again. Unfinished still, should it not be taken off now.
    claimed: Vec<Message>,
}

impl RabbitBrowser {
    /// See [`crate::dead_letters::Browser::total`].
    pub fn total(&self) -> u64 {
        self.reader.as_ref().map_or(0, |reader| reader.total().into())
    }

    /// See [`crate::dead_letters::Browser::next`].
    pub async fn next(&mut self) -> Result<Option<StoredMessage>, QueueError> {
        let Some(reader) = &mut self.reader else { return Ok(None) };
        let Some(held) = reader.next().await? else { return Ok(None) };
        self.position += 1;
        let redelivered = held.delivery.redelivered;
        let mut stored = self.stored(held);
        if redelivered && self.publisher.claim(&stored.message) {
            self.claimed.push(stored.message.clone());
            stored.published_before = true;
        }
        Ok(Some(stored))
    }

    /// See [`crate::dead_letters::Browser::keep`].
    pub(crate) fn keep(&mut self, place: RabbitPlace) {
        if let Some(reader) = &mut self.reader {
            reader.keep(place);
        }
    }

    /// See [`crate::dead_letters::Browser::remove`].
    pub async fn remove(&mut self, these: Vec<Removal>) -> Result<usize, QueueError> {
        let Some(reader) = &mut self.reader else { return Ok(0) };
        let (mut publications, mut places, mut messages) = (Vec::new(), Vec::new(), Vec::new());
        for Removal { stored, publication } in these {
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

    /// See [`crate::dead_letters::Browser::close`].
    pub async fn close(mut self) -> Result<(), QueueError> {
        match self.reader.take() {
            Some(reader) => reader.close().await,
            None => Ok(()),
        }
    }

    fn stored(&self, held: BrowsedDelivery) -> StoredMessage {
        let BrowsedDelivery { delivery, place } = held;
        let origin = origin::origin(&self.prefix, self.queue, &delivery);
        StoredMessage {
            queue: self.queue,
            position: self.position,
            defect: headers::defect(&delivery.properties),
            headers: origin::headers(delivery.properties.headers().as_ref()),
            exchange: delivery.exchange.to_string(),
            routing_key: delivery.routing_key.to_string(),
            is_ours: origin.is_ours,
            is_foreign: origin.is_foreign,
            stored_at: origin.death.as_ref().and_then(|death| death.time),
            death: origin.death,
            message: origin::message(delivery, origin.is_ours),
            published_before: false,
            place: StoredPlace::Rabbit(place),
        }
    }
}

impl Drop for RabbitBrowser {
    fn drop(&mut self) {
        self.publisher.unfinished().append(&mut self.claimed);
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
