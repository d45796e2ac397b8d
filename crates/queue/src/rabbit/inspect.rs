//! Inspections over a short-lived connection: new events, past events, and counts. Removes no message.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use futures_util::StreamExt;
use lapin::{
    Channel, Consumer,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions},
    types::FieldTable,
};

use super::{
    browse::{BrowseConnection, QueueReader},
    connect::{BrokerHost, BrokerHosts},
    convert, depth,
    error::queue_error,
    link::OpenConnection,
    settings::RabbitSettings,
};
use crate::{message::QueueError, topology};

/// Maximum number of buffered events of a follower.
const AHEAD: u16 = 500;
/// Maximum number of past events in memory, besides those that are returned.
const PORTION: u16 = 2_000;

/// A connection for inspections. Clones share it.
#[derive(Clone)]
pub struct RabbitInspector {
    connection: Arc<BrowseConnection>,
    broker: Arc<BrokerHosts>,
    host: Arc<BrokerHost>,
    prefix: String,
}

impl RabbitInspector {
    /// Tries each host once; the error is that of the last one.
    pub async fn connect(settings: RabbitSettings) -> Result<Self, QueueError> {
        let broker = Arc::new(BrokerHosts::new(&settings)?);
        let mut last = QueueError::Closed;
        for host in broker.rotation().take(settings.urls.len()) {
            match broker.connect(&host, "inspect").await {
                Ok(open) => {
                    let connection = Arc::new(BrowseConnection::new(open));
                    return Ok(Self { connection, broker, host: Arc::new(host), prefix: settings.prefix });
                }
                Err(reason) => last = QueueError::Broker(reason),
            }
        }
        Err(last)
    }

    /// Opens another connection to the same host.
    pub(super) async fn connect_again(&self, role: &str) -> Result<OpenConnection, QueueError> {
        self.broker.connect(&self.host, role).await.map_err(QueueError::Broker)
    }

    /// Follows all events from now on, with a queue that is deleted with the connection.
    pub(super) async fn follow_events(&self) -> Result<EventStream, QueueError> {
        let channel = self.channel().await?;
        let own = QueueDeclareOptions { exclusive: true, auto_delete: true, ..Default::default() };
        let queue = channel.queue_declare("".into(), own, FieldTable::default()).await.map_err(queue_error)?;
        let (name, events) = (queue.name().clone(), convert::short(&topology::events(&self.prefix))?);
        let (bind, none) = (QueueBindOptions::default(), FieldTable::default());
        channel.queue_bind(name.clone(), events, "#".into(), bind, none.clone()).await.map_err(queue_error)?;
        channel.basic_qos(AHEAD, BasicQosOptions::default()).await.map_err(queue_error)?;
        let consumer = channel.basic_consume(name, "".into(), BasicConsumeOptions::default(), none).await;
        Ok(EventStream { consumer: consumer.map_err(queue_error)? })
    }

    /// Returns the latest `limit` past events, oldest first. They stay in their queue.
    ///
    /// A queue cannot be read from its end, so all past events are read and returned to the queue. With a million
    /// events that takes about a minute, mostly in the broker. Only the latest are kept in memory.
    pub(crate) async fn window_events(&self, limit: usize) -> Result<Vec<Bytes>, QueueError> {
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

    /// Passes every past event to `visit`, oldest first. They stay in their queue.
    pub(crate) async fn each_event(&self, mut visit: impl FnMut(Bytes)) -> Result<(), QueueError> {
        let mut reader = QueueReader::begin(&self.connection, &topology::events(&self.prefix), PORTION).await?;
        while let Some(browsed) = reader.next().await? {
            reader.keep(browsed.place);
            visit(browsed.delivery.data.into());
        }
        reader.close().await
    }

    /// Number of messages of `queue` that wait to be delivered.
    pub(crate) async fn count(&self, queue: &str) -> Result<u32, QueueError> {
        convert::short(queue)?;
        depth::ready(&self.channel().await?, queue).await.map_err(queue_error)
    }

    /// Number of messages that wait in each of `queues`; `None` for a missing queue.
    pub async fn counts(&self, queues: &[String]) -> Result<Vec<Option<u32>>, QueueError> {
        let (mut channel, mut counted) = (self.channel().await?, Vec::with_capacity(queues.len()));
        for queue in queues {
            convert::short(queue)?;
            counted.push(match depth::ready(&channel, queue).await.map_err(queue_error) {
                Ok(ready) => Some(ready),
                Err(QueueError::Missing(_)) => {
                    // The refusal has closed the channel.
                    channel = self.channel().await?;
                    None
                }
                Err(error) => return Err(error),
            });
        }
        let _ = channel.close(200, "done".into()).await;
        Ok(counted)
    }

    /// Closes the connection in order.
    pub async fn close(self) {
        self.connection.close().await;
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(super) fn connection(&self) -> &Arc<BrowseConnection> {
        &self.connection
    }

    pub(super) async fn channel(&self) -> Result<Channel, QueueError> {
        self.connection.channel().await
    }
}

/// Follows events as they are published.
pub(super) struct EventStream {
    consumer: Consumer,
}

impl EventStream {
    /// Waits for the body of the next event. `None` after the broker has closed the connection.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, QueueError>> {
        let delivery = match self.consumer.next().await? {
            Ok(delivery) => delivery,
            Err(error) => return Some(Err(queue_error(error))),
        };
        // If this fails, the next call returns the error; the event is valid.
        let _ = delivery.acker.ack(BasicAckOptions::default()).await;
        Some(Ok(delivery.data.into()))
    }
}
