//! Inspections over a short-lived connection: events as they happen, the window of past events, counts. Takes no message
//! away.

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

/// Events on their way to a follower, at most.
const AHEAD: u16 = 500;
/// Events of the window in memory beside those that are kept, at most.
const PORTION: u16 = 2_000;

/// A connection for inspections. Clones are the same one.
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

    /// All events from now on, by a queue of our own that goes with the connection.
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

    /// The latest `limit` events of the window, oldest first; they stay.
    ///
    /// A queue cannot be read from its end: all of the window is read, and given back. At its fullest (a million events)
    /// that takes a minute or so, of the broker more than of us: only the latest are kept here.
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

    /// Passes every event of the window to `visit`, oldest first; they stay.
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

    /// Number of messages that wait in each of `queues`; `None` where there is no such queue.
    pub async fn counts(&self, queues: &[String]) -> Result<Vec<Option<u32>>, QueueError> {
        let (mut channel, mut counted) = (self.channel().await?, Vec::with_capacity(queues.len()));
        for queue in queues {
            convert::short(queue)?;
            counted.push(match depth::ready(&channel, queue).await.map_err(queue_error) {
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

    /// Closes the connection; dropping it cuts it.
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

/// Events as they happen.
pub(super) struct EventStream {
    consumer: Consumer,
}

impl EventStream {
    /// The next event's body. `None` once the broker ended it.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, QueueError>> {
        let delivery = match self.consumer.next().await? {
            Ok(delivery) => delivery,
            Err(error) => return Some(Err(queue_error(error))),
        };
        // Where this fails the next call returns the error; the event is here all the same.
        let _ = delivery.acker.ack(BasicAckOptions::default()).await;
        Some(Ok(delivery.data.into()))
    }
}
