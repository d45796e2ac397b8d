//! What the operator's tool looks at, over a short-lived connection of its own: events as they happen, the
//! window of past events, counts. Takes no message away.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use lapin::{
    Channel, Connection, Consumer,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicNackOptions, BasicQosOptions, QueueBindOptions,
        QueueDeclareOptions,
    },
    types::{FieldTable, ShortString},
};
use tokio::time::{sleep, timeout};

use super::{
    RabbitSettings, convert, counts,
    dial::{Broker, Line, why},
};
use crate::queue::{QueueError, topology};

/// Events on their way to a follower, at most.
const AHEAD: u16 = 500;
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

    /// The oldest `limit` events that are kept; they stay.
    pub async fn window_events(&self, limit: usize) -> Result<Vec<Bytes>, QueueError> {
        let channel = self.channel().await?;
        let queue = convert::short(&topology::events(&self.prefix))?;
        let (mut bodies, mut last) = (Vec::new(), None);
        while bodies.len() < limit {
            let got =
                channel.basic_get(queue.clone(), BasicGetOptions::default()).await.map_err(|error| broker(&error))?;
            let Some(got) = got else { break };
            last = Some(got.delivery.acker.clone());
            bodies.push(got.delivery.data.into());
        }
        if let Some(last) = last {
            let all = BasicNackOptions { multiple: true, requeue: true };
            last.nack(all).await.map_err(|error| broker(&error))?;
            Self::until_back(&channel, &queue, bodies.len()).await?;
        }
        channel.close(200, "done".into()).await.map_err(|error| broker(&error))?;
        Ok(bodies)
    }

    /// The broker takes a moment to put them back: whoever looks next should see them.
    async fn until_back(channel: &Channel, queue: &ShortString, given: usize) -> Result<(), QueueError> {
        for _ in 0..PATIENCE {
            let ready = counts::ready(channel, queue.as_str()).await.map_err(|error| broker(&error))?;
            if usize::try_from(ready).is_ok_and(|ready| ready >= given) {
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
        match delivery.acker.ack(BasicAckOptions::default()).await {
            Ok(_) => Some(Ok(delivery.data.into())),
            Err(error) => Some(Err(broker(&error))),
        }
    }
}
