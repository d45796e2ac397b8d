//! Reads a queue from its head without removing anything, and returns the messages in their order.
//!
//! A quorum queue returns the messages of a consumer in order when the consumer's channel closes. Messages that are
//! returned one by one (`basic.nack`), or by several consumers of a channel, are returned in any order
//! (`rabbit_fifo.erl` 3.10.8, `return` and `handle_down`: folds over maps). Therefore each channel has one consumer,
//! and channels are read and closed one after the other.
//!
//! lapin buffers deliveries in memory without a limit, except the channel's prefetch. The prefetch cannot be raised for
//! held messages, so a consumer that holds many is ended, and the next channel continues.
//!
//! A broker that has just started after a crash counts fewer messages than a quorum queue holds, until the queue has
//! applied its log (3.10.8, for up to half a second). A queue applies its log before it accepts a consumer. Therefore
//! the messages are counted once the first consumer has its share of them.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt, StreamExt};
use lapin::{
    Channel, Consumer,
    message::Delivery,
    options::{
        BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicGetOptions, BasicNackOptions, BasicQosOptions,
    },
    types::{FieldTable, ShortString},
};
use tokio::time::{sleep, timeout};

use super::{convert, depth, error::queue_error, link::OpenConnection};
use crate::{dead_letters::RabbitPlace, message::QueueError};

/// Maximum wait for a message before the queue's length is read.
const MOMENT: Duration = Duration::from_millis(250);
/// Number of waits without a message in an empty queue, after which another process must hold the rest.
const QUIET: u32 = 8;
/// Number of waits without a message although messages are in the queue, after which the queue must be faulty.
const STUCK: u32 = 120;
/// Number and interval of checks whether returned messages are in the queue again.
const CHECKS: u32 = 150;
const CHECK_EVERY: Duration = Duration::from_millis(20);
/// Maximum wait for the broker when the connection is closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) struct BrowseConnection {
    open: OpenConnection,
    abandoned: AtomicBool,
}

impl BrowseConnection {
    pub(super) fn new(open: OpenConnection) -> Self {
        Self { open, abandoned: AtomicBool::new(false) }
    }

    pub(super) fn is_usable(&self) -> bool {
        self.open.is_up() && !self.abandoned.load(Ordering::Acquire)
    }

    /// Marks the connection as unusable after a fault. It ends with its last user, and the broker returns its messages.
    fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
    }

    pub(super) async fn channel(&self) -> Result<Channel, QueueError> {
        self.open.channel().await.map_err(queue_error)
    }

    pub(super) async fn close(&self) {
        self.open.close(CLOSE_TIMEOUT).await;
    }
}

/// A reader of the messages that were in a queue when reading began, from its head.
pub(super) struct QueueReader {
    connection: Arc<BrowseConnection>,
    queue: ShortString,
    portion: u16,
    total: u32,
    to_come: u32,
    channels: Vec<ReaderChannel>,
    /// Deliveries of the first channel that were counted and are not yet read.
    received: VecDeque<Delivery>,
}

/// A held message. It stays in its place in the queue unless it is removed.
pub(super) struct BrowsedDelivery {
    pub(super) delivery: Delivery,
    pub(super) place: RabbitPlace,
}

struct ReaderChannel {
    channel: Channel,
    consumer: Consumer,
    /// Messages that were returned and not removed.
    held: u32,
    /// Those of them that will not be removed.
    kept: u32,
    ended: bool,
}

impl QueueReader {
    /// Reads the messages that are in `queue` now. At most `portion` messages are in memory at a time, at
    /// least twice as many as are neither kept nor removed when [`Self::next`] is called.
    pub(super) async fn begin(
        connection: &Arc<BrowseConnection>,
        queue: &str,
        portion: u16,
    ) -> Result<Self, QueueError> {
        let ready = ready(connection, queue).await?;
        let (connection, queue) = (connection.clone(), convert::short(queue)?);
        let (channels, received) = (Vec::new(), VecDeque::new());
        let mut reader = Self { connection, queue, portion, total: 0, to_come: 0, channels, received };
        if ready > 0 {
            let counted = reader.open_and_count().await.inspect_err(|_| reader.connection.abandon())?;
            reader.total = ready.max(counted);
            reader.to_come = reader.total;
        }
        Ok(reader)
    }

    /// Opens the first channel, and returns the number of messages that its consumer received or left in the queue.
    async fn open_and_count(&mut self) -> Result<u32, QueueError> {
        self.open().await?;
        let Some(first) = self.channels.last_mut() else { return Ok(0) };
        let left = depth::ready(&first.channel, self.queue.as_str()).await.map_err(queue_error)?;
        if left > 0 {
            return Ok(u32::from(self.portion).saturating_add(left));
        }
        // The broker has all deliveries at hand when it answers the first count, and sends them before the second.
        depth::ready(&first.channel, self.queue.as_str()).await.map_err(queue_error)?;
        while let Some(Some(delivery)) = first.consumer.next().now_or_never() {
            self.received.push_back(delivery.map_err(queue_error)?);
        }
        Ok(u32::try_from(self.received.len()).unwrap_or(u32::MAX))
    }

    /// Number of messages when reading began.
    pub(super) fn total(&self) -> u32 {
        self.total
    }

    /// Returns the next message; `None` if all were read, or another process holds the rest. An error ends the
    /// connection.
    pub(super) async fn next(&mut self) -> Result<Option<BrowsedDelivery>, QueueError> {
        self.read().await.inspect_err(|_| self.connection.abandon())
    }

    async fn read(&mut self) -> Result<Option<BrowsedDelivery>, QueueError> {
        let (mut quiet, mut stuck) = (0, 0);
        while self.to_come > 0 && quiet < QUIET {
            self.turn_channel().await?;
            let index = self.channels.len() - 1;
            let Some(last) = self.channels.last_mut() else { break };
            let next = match self.received.pop_front() {
                Some(delivery) => Ok(Some(Ok(delivery))),
                None => timeout(MOMENT, last.consumer.next()).await,
            };
            match next {
                Ok(Some(Ok(delivery))) => {
                    last.held += 1;
                    self.to_come -= 1;
                    let place = RabbitPlace { channel: index, tag: delivery.delivery_tag };
                    return Ok(Some(BrowsedDelivery { delivery, place }));
                }
                Ok(Some(Err(error))) => return Err(queue_error(error)),
                Ok(None) if last.ended => self.open().await?,
                Ok(None) => return Err(QueueError::Broker(format!("{} is gone", self.queue))),
                Err(_) if depth::ready(&last.channel, self.queue.as_str()).await.map_err(queue_error)? == 0 => {
                    quiet += 1;
                }
                Err(_) if stuck < STUCK => stuck += 1,
                Err(_) => return Err(QueueError::Broker(format!("{} hands out nothing", self.queue))),
            }
        }
        Ok(None)
    }

    /// Marks a message as one that stays in the queue.
    pub(super) fn keep(&mut self, place: RabbitPlace) {
        if let Some(channel) = self.channels.get_mut(place.channel) {
            channel.kept += 1;
        }
    }

    /// Removes messages from the queue. When this returns, the queue has the acknowledgements, so the messages will
    /// not be redelivered. An error ends the connection.
    pub(super) async fn remove(&mut self, places: &[RabbitPlace]) -> Result<(), QueueError> {
        self.acknowledge(places).await.inspect_err(|_| self.connection.abandon())
    }

    async fn acknowledge(&mut self, places: &[RabbitPlace]) -> Result<(), QueueError> {
        for place in places {
            let Some(channel) = self.channels.get_mut(place.channel) else { continue };
            channel.channel.basic_ack(place.tag, BasicAckOptions::default()).await.map_err(queue_error)?;
            channel.held = channel.held.saturating_sub(1);
        }
        // An acknowledgement has no answer. The channel requests this count from the queue after the acknowledgements.
        let mut channels: Vec<_> = places.iter().map(|place| place.channel).collect();
        channels.dedup();
        for channel in channels.into_iter().filter_map(|channel| self.channels.get(channel)) {
            depth::ready(&channel.channel, self.queue.as_str()).await.map_err(queue_error)?;
        }
        Ok(())
    }

    /// Returns all held messages to the queue in their order. If the reader is dropped, their order may change
    /// slightly.
    pub(super) async fn close(mut self) -> Result<(), QueueError> {
        self.give_back().await.inspect_err(|_| self.connection.abandon())
    }

    async fn give_back(&mut self) -> Result<(), QueueError> {
        let Some(last) = self.channels.last_mut() else { return Ok(()) };
        last.end().await?;
        last.held += u32::try_from(self.received.len()).unwrap_or(u32::MAX);
        while let Some(delivery) = last.consumer.next().await {
            delivery.map_err(queue_error)?;
            last.held += 1;
        }
        let counting = self.connection.channel().await?;
        let mut checks = CHECKS;
        for channel in std::mem::take(&mut self.channels) {
            let before = depth::ready(&counting, self.queue.as_str()).await.map_err(queue_error)?;
            channel.channel.close(200, "looked at".into()).await.map_err(queue_error)?;
            // The broker takes a moment to return them. The next channel's messages must follow, and the next browser
            // should see them. Another process may consume them meanwhile, so the wait happens only once.
            while checks > 0
                && depth::ready(&counting, self.queue.as_str()).await.map_err(queue_error)? < before + channel.held
            {
                checks -= 1;
                sleep(CHECK_EVERY).await;
            }
            // All are returned, so the next channel's will be, too.
            if checks > 0 {
                checks = CHECKS;
            }
        }
        counting.close(200, "done".into()).await.map_err(queue_error)
    }

    /// Ends a consumer that holds many messages.
    async fn turn_channel(&mut self) -> Result<(), QueueError> {
        match self.channels.last_mut() {
            Some(last) if last.kept >= u32::from(self.portion / 2) => last.end().await,
            _ => Ok(()),
        }
    }

    async fn open(&mut self) -> Result<(), QueueError> {
        let channel = self.connection.channel().await?;
        channel.basic_qos(self.portion, BasicQosOptions::default()).await.map_err(queue_error)?;
        let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
        let consumer = channel.basic_consume(self.queue.clone(), "".into(), options, none).await;
        let consumer = consumer.map_err(queue_error)?;
        self.channels.push(ReaderChannel { channel, consumer, held: 0, kept: 0, ended: false });
        Ok(())
    }
}

impl ReaderChannel {
    /// Ends the consumer. Messages that it has received can still be read.
    async fn end(&mut self) -> Result<(), QueueError> {
        if self.ended {
            return Ok(());
        }
        self.ended = true;
        self.channel.basic_cancel(self.consumer.tag(), BasicCancelOptions::default()).await.map_err(queue_error)
    }
}

/// Number of waiting messages in `queue`, 0 only if there is none; may be too low after a crash of the broker.
async fn ready(connection: &BrowseConnection, queue: &str) -> Result<u32, QueueError> {
    let channel = connection.channel().await?;
    let mut ready = depth::ready(&channel, queue).await.map_err(queue_error)?;
    let name = convert::short(queue)?;
    for _ in 0..CHECKS {
        if ready > 0 {
            break;
        }
        // The broker also counts 0 if it could not ask the queue in time. The queue itself answers this request.
        let got = channel.basic_get(name.clone(), BasicGetOptions::default()).await;
        let Some(got) = got.map_err(queue_error)? else { break };
        let back = BasicNackOptions { requeue: true, multiple: false };
        channel.basic_nack(got.delivery.delivery_tag, back).await.map_err(queue_error)?;
        ready = depth::ready(&channel, queue).await.map_err(queue_error)?;
    }
    channel.close(200, "counted".into()).await.map_err(queue_error)?;
    Ok(ready)
}
