//! What the operator's tool looks at, over a short-lived connection of its own: events as they happen, the
//! window of past events, counts. Takes no message away.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::StreamExt;
use lapin::{
    Channel, Connection, Consumer, ErrorKind,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions},
    protocol::{AMQPErrorKind, AMQPSoftError},
    types::FieldTable,
};
use tokio::time::timeout;

use super::{
    RabbitSettings,
    browse::QueueReader,
    connect::{BrokerHosts, describe},
    convert, counts,
    socket::SocketHandle,
};
use crate::{QueueError, topology};

mod follow;

pub use self::follow::{EventFollower, FollowedEvent};

/// Events on their way to a follower, at most.
const AHEAD: u16 = 500;
/// Events of the window in memory beside those that are kept, at most.
const PORTION: u16 = 2_000;
/// How long the broker may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(2);

/// A connection that looks. Clones are the same one.
#[derive(Clone)]
pub struct RabbitInspector {
    dialled: Arc<HostConnection>,
}

struct HostConnection {
    connection: Connection,
    prefix: String,
    abandoned: AtomicBool,
    _line: SocketHandle,
}

impl RabbitInspector {
    /// Dials each host once; what the last one said where none answers.
    pub async fn connect(settings: RabbitSettings) -> Result<Self, QueueError> {
        let broker = BrokerHosts::new(&settings)?;
        let mut last = QueueError::Closed;
        for host in broker.rotation().take(settings.urls.len()) {
            match broker.connect(&host, "inspect").await {
                Ok((connection, line)) => {
                    let (prefix, abandoned) = (settings.prefix, AtomicBool::new(false));
                    let dialled = HostConnection { connection, prefix, abandoned, _line: line };
                    return Ok(Self { dialled: Arc::new(dialled) });
                }
                Err(reason) => last = QueueError::Broker(reason),
            }
        }
        Err(last)
    }

    /// All events from now on, by a queue of our own that goes with the connection.
    pub async fn follow_events(&self) -> Result<EventStream, QueueError> {
        let channel = self.channel().await?;
        let own = QueueDeclareOptions { exclusive: true, auto_delete: true, ..Default::default() };
        let queue =
            channel.queue_declare("".into(), own, FieldTable::default()).await.map_err(|error| broker(&error))?;
        let (name, events) = (queue.name().clone(), convert::short(&topology::events(self.prefix()))?);
        let (bind, none) = (QueueBindOptions::default(), FieldTable::default());
        channel
            .queue_bind(name.clone(), events, "#".into(), bind, none.clone())
            .await
            .map_err(|error| broker(&error))?;
        channel.basic_qos(AHEAD, BasicQosOptions::default()).await.map_err(|error| broker(&error))?;
        let consumer = channel.basic_consume(name, "".into(), BasicConsumeOptions::default(), none).await;
        Ok(EventStream { consumer: consumer.map_err(|error| broker(&error))? })
    }

    /// The latest `limit` events of the window, oldest first; they stay.
    ///
    /// A queue has no end to begin at: all of the window is read, and given back. At its fullest (a million events)
    /// that takes a minute or so, of the broker more than of us: only the latest are kept here.
    pub async fn window_events(&self, limit: usize) -> Result<Vec<Bytes>, QueueError> {
        let mut latest = VecDeque::new();
        if limit > 0 {
            self.each_event(|event| {
                latest.push_back(event);
                latest.drain(..latest.len().saturating_sub(limit));
            })
            .await?;
        }
        Ok(latest.into())
    }

    /// Shows every event of the window, oldest first; they stay.
    pub async fn each_event(&self, mut show: impl FnMut(Bytes)) -> Result<(), QueueError> {
        let mut reader = QueueReader::begin(self.clone(), &topology::events(self.prefix()), PORTION).await?;
        while let Some(held) = reader.next().await? {
            reader.keep(held.place);
            show(held.delivery.data.into());
        }
        reader.close().await
    }

    /// Messages of `queue` that wait to be delivered.
    pub async fn count(&self, queue: &str) -> Result<u32, QueueError> {
        convert::short(queue)?;
        let channel = self.channel().await?;
        counts::ready(&channel, queue).await.map_err(|error| broker(&error))
    }

    /// As [`Self::count`], of each of `queues`; none where there is no such queue.
    pub async fn counts(&self, queues: &[String]) -> Result<Vec<Option<u32>>, QueueError> {
        let (mut channel, mut counted) = (self.channel().await?, Vec::with_capacity(queues.len()));
        for queue in queues {
            convert::short(queue)?;
            counted.push(match counts::ready(&channel, queue).await.map_err(|error| broker(&error)) {
                Ok(ready) => Some(ready),
                Err(QueueError::Missing(_)) => {
                    // The refusal closed it.
                    channel = self.channel().await?;
                    None
                }
                Err(error) => return Err(error),
            });
        }
        let _ = channel.close(200, "done".into()).await;
        Ok(counted)
    }

    /// Says goodbye; dropping does without.
    pub async fn close(self) {
        let _ = timeout(GOODBYE, self.dialled.connection.close(200, "closed".into())).await;
    }

    /// First part of all names.
    pub(super) fn prefix(&self) -> &str {
        &self.dialled.prefix
    }

    /// Whether the connection can still be used.
    pub(super) fn is_usable(&self) -> bool {
        self.dialled.connection.status().connected() && !self.dialled.abandoned.load(Ordering::Acquire)
    }

    /// Something on it failed: it is used no more, and ends with the last one that has it. All it holds goes back.
    pub(super) fn abandon(&self) {
        self.dialled.abandoned.store(true, Ordering::Release);
    }

    pub(super) async fn channel(&self) -> Result<Channel, QueueError> {
        self.dialled.connection.create_channel().await.map_err(|error| broker(&error))
    }
}

/// What the broker or the connection to it said.
pub(super) fn broker(error: &lapin::Error) -> QueueError {
    let ErrorKind::ProtocolError(refusal) = error.kind() else { return QueueError::Broker(describe(error)) };
    match refusal.kind() {
        AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND) => QueueError::Missing(describe(error)),
        AMQPErrorKind::Soft(_) | AMQPErrorKind::Hard(_) => QueueError::Broker(describe(error)),
    }
}

/// Events as they happen.
pub struct EventStream {
    consumer: Consumer,
}

impl EventStream {
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
