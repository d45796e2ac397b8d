//! The control channel: processes broadcast small messages to each other over the exchange `<prefix>.control` (SPEC
//! 6.4). These messages may be lost. The channel has its own connection, because it publishes: on the consuming
//! connection, an alarm of the broker would also stop acknowledgements, and a failed channel would end the session. The
//! connection is opened after those for jobs.

use std::{fmt, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt;
use lapin::{
    BasicProperties, Channel, Consumer,
    options::{BasicConsumeOptions, BasicPublishOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use tokio::time::{sleep, timeout};

use super::{
    connect::CONTROL,
    convert,
    error::{describe, queue_error},
    inspect::RabbitInspector,
    link::{ConnectionRole, OpenConnection, SessionError},
    queue::RabbitQueue,
};
use crate::{message::QueueError, topology};

/// Interval of checking whether the connections for jobs are open.
const CHECK_EVERY: Duration = Duration::from_millis(100);
/// Maximum wait for one step of the broker.
const PATIENCE: Duration = Duration::from_secs(10);
/// Maximum wait until the broker has accepted a request.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);
/// Maximum wait for the broker when the connection is closed.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);
/// Maximum number of unread messages; the oldest are dropped.
const MAX_MESSAGES: i32 = 2_000;
/// Maximum number of bytes of the unread messages.
const MAX_BYTES: i32 = 4 * 1024 * 1024;
/// Age in milliseconds at which an unread message is dropped.
const STALE_MILLIS: i32 = 5_000;

const SLOW: &str = "the broker did not answer in time";

/// A channel for broadcasts.
pub struct ControlChannel {
    channel: Channel,
    consumer: Consumer,
    exchange: String,
    /// The connection, which belongs to this channel only.
    own: OpenConnection,
}

impl RabbitQueue {
    /// Waits until the connections for jobs are open.
    pub async fn wait_until_connected(&self) {
        while !self.shared.health.is_up(ConnectionRole::Publish) {
            sleep(CHECK_EVERY).await;
        }
    }

    /// Opens a channel that receives all messages with one of `keys`. Waits until the connections for jobs are open.
    pub async fn control_channel(&self, keys: &[String]) -> Result<ControlChannel, SessionError> {
        self.wait_until_connected().await;
        let own = self.shared.broker.connect_any(CONTROL).await?;
        let channel = timeout(PATIENCE, own.channel()).await.map_err(|_| SLOW.to_owned())?.map_err(describe)?;
        let opened = ControlChannel::open(own, channel, &self.shared.prefix, keys).await;
        opened.map_err(|error| error.to_string())
    }
}

impl RabbitInspector {
    /// Opens a channel that receives all messages with one of `keys`, on its own connection: while the broker has an
    /// alarm, it does not answer on a connection that has published.
    pub async fn control_channel(&self, keys: &[String]) -> Result<ControlChannel, QueueError> {
        let own = self.connect_again(CONTROL).await?;
        let slow = |_| QueueError::Broker(SLOW.to_owned());
        let channel = timeout(PATIENCE, own.confirming_channel()).await.map_err(slow)?.map_err(queue_error)?;
        ControlChannel::open(own, channel, self.prefix(), keys).await
    }
}

impl ControlChannel {
    async fn open(own: OpenConnection, channel: Channel, prefix: &str, keys: &[String]) -> Result<Self, QueueError> {
        let exchange = topology::control(prefix);
        let slow = |_| QueueError::Broker(SLOW.to_owned());
        let consumer = timeout(PATIENCE, consume(&channel, &exchange, keys)).await.map_err(slow)??;
        Ok(Self { channel, consumer, exchange, own })
    }

    /// Publishes `body` with `key`. Does nothing while the broker blocks publications.
    pub async fn publish(&self, key: &str, body: String) -> Result<(), SessionError> {
        if self.is_blocked() {
            return Ok(());
        }
        let (exchange, key) = (self.exchange.as_str().into(), key.into());
        let properties = BasicProperties::default().with_content_type("application/json".into());
        let sent =
            self.channel.basic_publish(exchange, key, BasicPublishOptions::default(), body.as_bytes(), properties);
        match timeout(PATIENCE, sent).await {
            Ok(Ok(_unconfirmed)) => Ok(()),
            Ok(Err(error)) => Err(describe(error)),
            Err(_) => Err(SLOW.to_owned()),
        }
    }

    /// Returns true while the broker blocks publications (alarm). The broker reports this only after the first
    /// publication.
    pub fn is_blocked(&self) -> bool {
        self.own.connection.status().blocked()
    }

    /// Publishes a request with `key`, on a channel of an inspector. Returns true when the broker has accepted it, and
    /// false if it does not within 3 s or has an alarm.
    pub async fn ask(&self, key: &str, body: String) -> Result<bool, SessionError> {
        if self.is_blocked() {
            return Ok(false);
        }
        let asking = async {
            let (exchange, key) = (self.exchange.as_str().into(), key.into());
            let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
            self.channel.basic_publish(exchange, key, options, body.as_bytes(), properties).await?.await
        };
        tokio::select! {
            taken = timeout(ASK_TIMEOUT, asking) => match taken {
                Ok(Ok(_confirmed)) => Ok(true),
                Ok(Err(error)) => Err(describe(error)),
                Err(_) => Ok(false),
            },
            () = self.own.wait_until_blocked() => Ok(false),
        }
    }

    /// Receives the next message. Cancel-safe.
    pub async fn next(&mut self) -> Result<Bytes, SessionError> {
        match self.consumer.next().await {
            Some(Ok(delivery)) => Ok(delivery.data.into()),
            Some(Err(error)) => Err(describe(error)),
            None => Err("the broker ended the control channel".to_owned()),
        }
    }

    /// Returns true if the channel is lost. Call it about every second: not every loss of a connection causes an event.
    pub fn is_lost(&self) -> bool {
        !self.own.is_up() || !self.channel.status().connected()
    }

    /// Closes the connection. Dropping it closes only the socket.
    pub async fn close(self) {
        self.own.close(CLOSE_TIMEOUT).await;
    }
}

/// Consumes a queue of its own, to which `exchange` passes all messages with one of `keys`.
async fn consume(channel: &Channel, exchange: &str, keys: &[String]) -> Result<Consumer, QueueError> {
    let own = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    let queue = channel.queue_declare("".into(), own, limits()).await.map_err(queue_error)?;
    for key in keys {
        let (name, from, key) = (queue.name().clone(), convert::short(exchange)?, convert::short(key)?);
        let bound = channel.queue_bind(name, from, key, QueueBindOptions::default(), FieldTable::default());
        bound.await.map_err(queue_error)?;
    }
    let unacknowledged = BasicConsumeOptions { no_ack: true, exclusive: true, ..BasicConsumeOptions::default() };
    let consumer = channel.basic_consume(queue.name().clone(), "".into(), unacknowledged, FieldTable::default());
    consumer.await.map_err(queue_error)
}

/// Returns the limits of the queue. Messages that are not read in time are dropped.
fn limits() -> FieldTable {
    let mut limits = FieldTable::default();
    limits.insert("x-max-length".into(), AMQPValue::LongInt(MAX_MESSAGES));
    limits.insert("x-max-length-bytes".into(), AMQPValue::LongInt(MAX_BYTES));
    limits.insert("x-message-ttl".into(), AMQPValue::LongInt(STALE_MILLIS));
    limits.insert("x-overflow".into(), AMQPValue::LongString("drop-head".into()));
    limits.insert("x-queue-type".into(), AMQPValue::LongString("classic".into()));
    limits
}

impl fmt::Debug for ControlChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlChannel").field("exchange", &self.exchange).finish_non_exhaustive()
    }
}
