//! The control channel: what processes broadcast to each other over the exchange `<prefix>.control` (SPEC 6.4), small
//! messages that may be lost. On a connection of its own: it publishes, so that on the consuming one an alarm of the
//! broker would stop acknowledgements with it; and a fault of any channel ends its whole session. The connection is
//! made once the work has its own.

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
    connect::BROADCAST,
    convert,
    error::{describe, queue_error},
    inspect::RabbitInspector,
    link::{ConnectionRole, OpenConnection, SessionError},
    queue::RabbitQueue,
};
use crate::{message::QueueError, topology};

/// Interval of checking whether the work is connected.
const CHECK_EVERY: Duration = Duration::from_millis(100);
/// Maximum wait for one step of the broker.
const PATIENCE: Duration = Duration::from_secs(10);
/// Maximum wait until the broker has taken a question.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);
/// Maximum wait for the broker when the connection is closed.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);
/// Messages that wait to be read, at most; the oldest are dropped.
const MAX_MESSAGES: i32 = 2_000;
/// Bytes of the messages that wait to be read, at most.
const MAX_BYTES: i32 = 4 * 1024 * 1024;
/// Age in milliseconds at which a message is dropped unread.
const STALE_MILLIS: i32 = 5_000;

const SLOW: &str = "the broker did not answer in time";

/// A channel for broadcasts, until it is lost.
pub struct ControlChannel {
    channel: Channel,
    consumer: Consumer,
    exchange: String,
    /// Its connection, if that is its own.
    own: Option<OpenConnection>,
}

impl RabbitQueue {
    /// Waits until the work is connected.
    pub async fn connected(&self) {
        while !self.shared.health.is_up(ConnectionRole::Publish) {
            sleep(CHECK_EVERY).await;
        }
    }

    /// Opens a channel that receives what is published with one of `keys`. Waits until the work is connected.
    pub async fn control_channel(&self, keys: &[String]) -> Result<ControlChannel, SessionError> {
        self.connected().await;
        let own = self.shared.broker.connect_any(BROADCAST).await?;
        let channel = timeout(PATIENCE, own.channel()).await.map_err(|_| SLOW.to_owned())?.map_err(describe)?;
        let opened = ControlChannel::open(channel, &self.shared.prefix, keys).await;
        let opened = opened.map_err(|error| error.to_string())?;
        Ok(ControlChannel { own: Some(own), ..opened })
    }
}

impl RabbitInspector {
    /// Opens a channel that receives what is published with one of `keys`, on a connection of its own: one that has
    /// published is not answered any more while the broker has an alarm.
    pub async fn control_channel(&self, keys: &[String]) -> Result<ControlChannel, QueueError> {
        let own = self.connect_again(BROADCAST).await?;
        let slow = |_| QueueError::Broker(SLOW.to_owned());
        let channel = timeout(PATIENCE, own.confirming_channel()).await.map_err(slow)?.map_err(queue_error)?;
        let opened = ControlChannel::open(channel, self.prefix(), keys).await?;
        Ok(ControlChannel { own: Some(own), ..opened })
    }
}

impl ControlChannel {
    async fn open(channel: Channel, prefix: &str, keys: &[String]) -> Result<Self, QueueError> {
        let slow = |_| QueueError::Broker(SLOW.to_owned());
        timeout(PATIENCE, Self::consume(channel, prefix, keys)).await.map_err(slow)?
    }

    async fn consume(channel: Channel, prefix: &str, keys: &[String]) -> Result<Self, QueueError> {
        let own = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
        let queue = channel.queue_declare("".into(), own, limits()).await.map_err(queue_error)?;
        let exchange = topology::control(prefix);
        for key in keys {
            let (name, from, key) = (queue.name().clone(), convert::short(&exchange)?, convert::short(key)?);
            let bound = channel.queue_bind(name, from, key, QueueBindOptions::default(), FieldTable::default());
            bound.await.map_err(queue_error)?;
        }
        let unacknowledged = BasicConsumeOptions { no_ack: true, exclusive: true, ..BasicConsumeOptions::default() };
        let consumer = channel.basic_consume(queue.name().clone(), "".into(), unacknowledged, FieldTable::default());
        let consumer = consumer.await.map_err(queue_error)?;
        Ok(Self { channel, consumer, exchange, own: None })
    }

    /// Publishes `body` to those who receive `key`. Does nothing while the broker takes no publications.
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

    /// Returns true while the broker takes no publications (alarm). It says so only after the first one.
    pub fn is_blocked(&self) -> bool {
        self.own.as_ref().is_some_and(|own| own.connection.status().blocked())
    }

    /// Publishes a question to those who receive `key`, on a channel of an inspector. Returns true once the broker has
    /// taken it, and false if it does not within 3 s, or has an alarm.
    pub async fn ask(&self, key: &str, body: String) -> Result<bool, SessionError> {
        if self.is_blocked() {
            return Ok(false);
        }
        let asking = async {
            let (exchange, key) = (self.exchange.as_str().into(), key.into());
            let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
            self.channel.basic_publish(exchange, key, options, body.as_bytes(), properties).await?.await
        };
        let blocked = async {
            while !self.is_blocked() {
                sleep(CHECK_EVERY).await;
            }
        };
        tokio::select! {
            taken = timeout(ASK_TIMEOUT, asking) => match taken {
                Ok(Ok(_confirmed)) => Ok(true),
                Ok(Err(error)) => Err(describe(error)),
                Err(_) => Ok(false),
            },
            () = blocked => Ok(false),
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

    /// Returns true once the channel is lost. To be called every second or so: some ends of a connection make no event.
    pub fn is_lost(&self) -> bool {
        self.own.as_ref().is_some_and(|own| !own.is_up()) || !self.channel.status().connected()
    }

    /// Closes its connection; dropping it cuts it.
    pub async fn close(self) {
        if let Some(own) = self.own {
            own.close(CLOSE_TIMEOUT).await;
        }
    }
}

/// The limits of the queue: what is not read in time is dropped.
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
