//! Reading a queue from its head without taking anything off it, and giving all of it back in its order.
//!
//! A quorum queue gives back what one consumer holds in order, when that consumer's channel closes; what is given back
//! message by message (`basic.nack`) or by several consumers of one channel comes back in any order
//! (`rabbit_fifo.erl` 3.10.8, `return` and `handle_down`: folds over maps). So what is held is held in leaves: a channel
//! with one consumer each, read one after the other and closed one after the other.
//!
//! lapin keeps what was handed out and not read yet in memory, without bound: a leaf's prefetch bounds it. That cannot
//! grow with what is held, so a leaf that holds much is ended, and the next one goes on where it stopped.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::{
    Channel, Consumer,
    message::Delivery,
    options::{
        BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicGetOptions, BasicNackOptions, BasicQosOptions,
    },
    types::{FieldTable, ShortString},
};
use tokio::time::{sleep, timeout};

use super::{
    convert, counts,
    inspect::{RabbitInspector, broker},
};
use crate::{QueueError, dead_letters::RabbitPlace};

/// Nothing came for this long: it is asked why.
const MOMENT: Duration = Duration::from_millis(250);
/// Moments without a message while none waits: somebody else holds the rest.
const QUIET: u32 = 8;
/// Moments without a message while some wait: something is wrong with the queue.
const STUCK: u32 = 120;
/// Looks at whether what was given back is there again, and the time between them.
const PATIENCE: u32 = 150;
const BETWEEN: Duration = Duration::from_millis(20);

/// A queue being read, from its head, as far as it reached when that began.
pub(super) struct QueueReader {
    inspector: RabbitInspector,
    queue: ShortString,
    portion: u16,
    there: u32,
    to_come: u32,
    channels: Vec<ReaderChannel>,
}

/// A message in hand: it stays in its place in the queue unless it is taken off.
pub(super) struct BrowsedDelivery {
    pub(super) delivery: Delivery,
    pub(super) place: RabbitPlace,
}

struct ReaderChannel {
    channel: Channel,
    consumer: Consumer,
    /// Handed out and not taken off.
    held: u32,
    /// Of those, the ones that will not be.
    left: u32,
    ended: bool,
}

impl QueueReader {
    /// Reads what is in `queue` now, and nothing that comes later. At most `portion` messages are in memory at a time:
    /// at least twice as many as are in hand undecided (neither left nor taken off) when [`Self::next`] is called.
    pub(super) async fn begin(inspector: RabbitInspector, queue: &str, portion: u16) -> Result<Self, QueueError> {
        let there = there(&inspector, queue).await?;
        let queue = convert::short(queue)?;
        Ok(Self { inspector, queue, portion, there, to_come: there, channels: Vec::new() })
    }

    /// How many there were when it began.
    pub(super) fn total(&self) -> u32 {
        self.there
    }

    /// The next one; none where all were read that were there, or somebody else holds the rest. An error ends the
    /// connection.
    pub(super) async fn next(&mut self) -> Result<Option<BrowsedDelivery>, QueueError> {
        self.read().await.inspect_err(|_| self.inspector.abandon())
    }

    async fn read(&mut self) -> Result<Option<BrowsedDelivery>, QueueError> {
        let (mut quiet, mut stuck) = (0, 0);
        while self.to_come > 0 && quiet < QUIET {
            self.turn_leaf().await?;
            let index = self.channels.len() - 1;
            let Some(channel) = self.channels.last_mut() else { break };
            match timeout(MOMENT, channel.consumer.next()).await {
                Ok(Some(Ok(delivery))) => {
                    channel.held += 1;
                    self.to_come -= 1;
                    let place = RabbitPlace { channel: index, tag: delivery.delivery_tag };
                    return Ok(Some(BrowsedDelivery { delivery, place }));
                }
                Ok(Some(Err(error))) => return Err(broker(&error)),
                Ok(None) if channel.ended => self.open().await?,
                Ok(None) => return Err(QueueError::Broker(format!("{} is gone", self.queue))),
                Err(_) if counts::ready(&channel.channel, self.queue.as_str()).await.map_err(|e| broker(&e))? == 0 => {
                    quiet += 1;
                }
                Err(_) if stuck < STUCK => stuck += 1,
                Err(_) => return Err(QueueError::Broker(format!("{} hands out nothing", self.queue))),
            }
        }
        Ok(None)
    }

    /// This one stays where it is.
    pub(super) fn keep(&mut self, place: RabbitPlace) {
        if let Some(channel) = self.channels.get_mut(place.channel) {
            channel.left += 1;
        }
    }

    /// Takes messages off the queue. When this returns, the queue has been told: whatever becomes of this process, they
    /// will not come again. An error ends the connection.
    pub(super) async fn remove(&mut self, places: &[RabbitPlace]) -> Result<(), QueueError> {
        self.acknowledge(places).await.inspect_err(|_| self.inspector.abandon())
    }

    async fn acknowledge(&mut self, places: &[RabbitPlace]) -> Result<(), QueueError> {
        for place in places {
            let Some(channel) = self.channels.get_mut(place.channel) else { continue };
            channel.channel.basic_ack(place.tag, BasicAckOptions::default()).await.map_err(|error| broker(&error))?;
            channel.held = channel.held.saturating_sub(1);
        }
        // An acknowledgement has no answer. The channel asks the queue for this count after it told it of them.
        let mut channels: Vec<_> = places.iter().map(|place| place.channel).collect();
        channels.dedup();
        for channel in channels.into_iter().filter_map(|channel| self.channels.get(channel)) {
            counts::ready(&channel.channel, self.queue.as_str()).await.map_err(|error| broker(&error))?;
        }
        Ok(())
    }

    /// Gives everything in hand back, in its order. Dropped without, it comes back as well, in an order near to it.
    pub(super) async fn close(mut self) -> Result<(), QueueError> {
        self.give_back().await.inspect_err(|_| self.inspector.abandon())
    }

    async fn give_back(&mut self) -> Result<(), QueueError> {
        let Some(last) = self.channels.last_mut() else { return Ok(()) };
        last.end().await?;
        while let Some(delivery) = last.consumer.next().await {
            delivery.map_err(|error| broker(&error))?;
            last.held += 1;
        }
        let looking = self.inspector.channel().await?;
        let mut patience = PATIENCE;
        for channel in std::mem::take(&mut self.channels) {
            let before = counts::ready(&looking, self.queue.as_str()).await.map_err(|error| broker(&error))?;
            channel.channel.close(200, "looked at".into()).await.map_err(|error| broker(&error))?;
            // The broker takes a moment to put them back: the next leaf's come after them, and whoever looks next
            // should see them. Somebody else may take them meanwhile: that is waited for once.
            while patience > 0
                && counts::ready(&looking, self.queue.as_str()).await.map_err(|error| broker(&error))?
                    < before + channel.held
            {
                patience -= 1;
                sleep(BETWEEN).await;
            }
            // It is all there: so will the next leaf's be.
            if patience > 0 {
                patience = PATIENCE;
            }
        }
        looking.close(200, "done".into()).await.map_err(|error| broker(&error))
    }

    /// Ends a leaf that holds much, and opens the first.
    async fn turn_leaf(&mut self) -> Result<(), QueueError> {
        match self.channels.last_mut() {
            None => self.open().await,
            Some(channel) if channel.left >= u32::from(self.portion / 2) => channel.end().await,
            Some(_) => Ok(()),
        }
    }

    async fn open(&mut self) -> Result<(), QueueError> {
        let channel = self.inspector.channel().await?;
        channel.basic_qos(self.portion, BasicQosOptions::default()).await.map_err(|error| broker(&error))?;
        let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
        let consumer = channel.basic_consume(self.queue.clone(), "".into(), options, none).await;
        let consumer = consumer.map_err(|error| broker(&error))?;
        self.channels.push(ReaderChannel { channel, consumer, held: 0, left: 0, ended: false });
        Ok(())
    }
}

impl ReaderChannel {
    /// It is handed no more; what it was handed until now can still be read.
    async fn end(&mut self) -> Result<(), QueueError> {
        if self.ended {
            return Ok(());
        }
        self.ended = true;
        let ended = self.channel.basic_cancel(self.consumer.tag(), BasicCancelOptions::default()).await;
        ended.map_err(|error| broker(&error))
    }
}

/// How many messages wait in `queue`. The broker says none, too, where it could not ask the queue in time.
async fn there(inspector: &RabbitInspector, queue: &str) -> Result<u32, QueueError> {
    let channel = inspector.channel().await?;
    let mut there = counts::ready(&channel, queue).await.map_err(|error| broker(&error))?;
    let name = convert::short(queue)?;
    for _ in 0..PATIENCE {
        if there > 0 {
            break;
        }
        // This one is answered by the queue itself, or not at all.
        let got = channel.basic_get(name.clone(), BasicGetOptions::default()).await;
        let Some(got) = got.map_err(|error| broker(&error))? else { break };
        let back = BasicNackOptions { requeue: true, multiple: false };
        channel.basic_nack(got.delivery.delivery_tag, back).await.map_err(|error| broker(&error))?;
        there = counts::ready(&channel, queue).await.map_err(|error| broker(&error))?;
    }
    channel.close(200, "counted".into()).await.map_err(|error| broker(&error))?;
    Ok(there)
}
