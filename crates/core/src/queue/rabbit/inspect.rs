//! What the operator's tool looks at, over a short-lived connection of its own: events as they happen, the
//! window of past events, counts. Takes no message away.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt;
use lapin::{
    Channel, Connection, Consumer,
    options::{
        BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions, QueueBindOptions,
        QueueDeclareOptions,
    },
    types::{FieldTable, ShortString},
};
use tokio::time::{sleep, timeout};

use super::{
    RabbitSettings, convert, counts,
    dial::{Broker, why},
    line::Line,
};
use crate::queue::{QueueError, topology};

mod follow;

pub use self::follow::{Followed, Following};

/// Events on their way to a follower, at most.
const AHEAD: u16 = 500;
/// Events handed to one consumer that gives none back, at most: the largest prefetch there is. For more there are
/// more consumers.
const PORTION: u16 = u16::MAX;
/// Nothing comes for this long: somebody else holds the rest.
const SILENCE: Duration = Duration::from_secs(2);
/// How long the broker may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(2);

/// Looks at whether what was given back is there again, and the time between them.
const PATIENCE: u32 = 50;
const MOMENT: Duration = Duration::from_millis(20);

/// A connection that looks.
pub struct Inspector {
    connection: Connection,
    prefix: String,
    _line: Line,
}

impl Inspector {
    /// Dials each host once; what the last one said where none answers.
    pub async fn connect(settings: RabbitSettings) -> Result<Self, QueueError> {
        let broker = Broker::new(&settings)?;
        let mut last = QueueError::Closed;
        for host in broker.rotation().take(settings.urls.len()) {
            match broker.dial(&host, "inspect").await {
                Ok((connection, line)) => return Ok(Self { connection, prefix: settings.prefix, _line: line }),
                Err(reason) => last = QueueError::Broker(reason),
            }
        }
        Err(last)
    }

    /// All events from now on, by a queue of our own that goes with the connection.
    pub async fn follow_events(&self) -> Result<EventFollower, QueueError> {
        let channel = self.channel().await?;
        let own = QueueDeclareOptions { exclusive: true, auto_delete: true, ..Default::default() };
        let queue =
            channel.queue_declare("".into(), own, FieldTable::default()).await.map_err(|error| broker(&error))?;
        let (name, events) = (queue.name().clone(), convert::short(&topology::events(&self.prefix))?);
        let (bind, none) = (QueueBindOptions::default(), FieldTable::default());
        channel
            .queue_bind(name.clone(), events, "#".into(), bind, none.clone())
            .await
            .map_err(|error| broker(&error))?;
        channel.basic_qos(AHEAD, BasicQosOptions::default()).await.map_err(|error| broker(&error))?;
        let consumer = channel.basic_consume(name, "".into(), BasicConsumeOptions::default(), none).await;
        Ok(EventFollower { consumer: consumer.map_err(|error| broker(&error))? })
    }

    /// The latest `limit` events of the window, oldest first; they stay.
    ///
    /// A queue has no end to begin at: all of the window is read, and given back. At its fullest (a million events)
    /// that takes a minute or so, of the broker more than of us: only the latest are kept here.
    pub async fn window_events(&self, limit: usize) -> Result<Vec<Bytes>, QueueError> {
        let channel = self.channel().await?;
        let queue = convert::short(&topology::events(&self.prefix))?;
        channel.basic_qos(PORTION, BasicQosOptions::default()).await.map_err(|error| broker(&error))?;
        let there = counts::ready(&channel, queue.as_str()).await.map_err(|error| broker(&error))?;
        let mut window = Window { left: if limit == 0 { 0 } else { there }, limit, latest: VecDeque::new() };
        let (mut consumers, mut portion) = (Vec::new(), PORTION);
        while window.left > 0 && portion == PORTION {
            let consumer = channel
                .basic_consume(queue.clone(), "".into(), BasicConsumeOptions::default(), FieldTable::default())
                .await
                .map_err(|error| broker(&error))?;
            consumers.push(consumer.tag());
            portion = window.read(consumer).await?;
        }
        if !consumers.is_empty() {
            // First, or they would come again.
            for consumer in consumers {
                let ended = channel.basic_cancel(consumer, BasicCancelOptions::default()).await;
                ended.map_err(|error| broker(&error))?;
            }
            let all = BasicNackOptions { multiple: true, requeue: true };
            channel.basic_nack(0, all).await.map_err(|error| broker(&error))?;
            Self::until_back(&channel, &queue, there - window.left).await?;
        }
        channel.close(200, "done".into()).await.map_err(|error| broker(&error))?;
        Ok(window.latest.into())
    }

    /// The broker takes a moment to put them back: whoever looks next should see them.
    async fn until_back(channel: &Channel, queue: &ShortString, given: u32) -> Result<(), QueueError> {
        for _ in 0..PATIENCE {
            let ready = counts::ready(channel, queue.as_str()).await.map_err(|error| broker(&error))?;
            if ready >= given {
                break;
            }
            sleep(MOMENT).await;
        }
        Ok(())
    }

    /// Messages of `queue` that wait to be delivered.
    pub async fn count(&self, queue: &str) -> Result<u32, QueueError> {
        convert::short(queue)?;
        let channel = self.channel().await?;
        counts::ready(&channel, queue).await.map_err(|error| broker(&error))
    }

    /// Says goodbye; dropping does without.
    pub async fn close(self) {
        let _ = timeout(GOODBYE, self.connection.close(200, "closed".into())).await;
    }

    async fn channel(&self) -> Result<Channel, QueueError> {
        self.connection.create_channel().await.map_err(|error| broker(&error))
    }
}

fn broker(error: &lapin::Error) -> QueueError {
    QueueError::Broker(why(error))
}

/// A look at the window.
struct Window {
    /// So many are still to be read.
    left: u32,
    limit: usize,
    latest: VecDeque<Bytes>,
}

impl Window {
    /// Reads what one consumer is given; how many that were.
    async fn read(&mut self, mut consumer: Consumer) -> Result<u16, QueueError> {
        let mut read = 0;
        while self.left > 0 && read < PORTION {
            // Somebody else may look as well, and have the rest.
            let Ok(Some(delivery)) = timeout(SILENCE, consumer.next()).await else { break };
            self.latest.push_back(delivery.map_err(|error| broker(&error))?.data.into());
            if self.latest.len() > self.limit {
                self.latest.pop_front();
            }
            (self.left, read) = (self.left - 1, read + 1);
        }
        Ok(read)
    }
}

/// Events as they happen.
pub struct EventFollower {
    consumer: Consumer,
}

impl EventFollower {
    /// The next event's body. `None` once the broker ended it.
    pub async fn next(&mut self) -> Option<Result<Bytes, QueueError>> {
        let delivery = match self.consumer.next().await? {
            Ok(delivery) => delivery,
            Err(error) => return Some(Err(broker(&error))),
        };
        // Where this fails the next call tells so; the event is here all the same.
        let _ = delivery.acker.ack(BasicAckOptions::default()).await;
        Some(Ok(delivery.data.into()))
    }
}
