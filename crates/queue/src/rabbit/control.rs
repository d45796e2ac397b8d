//! What processes tell each other over the exchange `<prefix>.control` (SPEC 6.4): small messages that may be lost. On a
//! connection of its own: it publishes, so that on the consuming one an alarm of the broker would stop
//! acknowledgements with it; and a fault of any channel ends its whole session.
//!
//! Does not know what is told, nor when ([`crate::fleet`]). Nothing is dialled for it before the work has its own
//! connection.

use std::{fmt, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt;
use lapin::{
    BasicProperties, Channel, Connection, Consumer,
    options::{BasicConsumeOptions, BasicPublishOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use tokio::time::{sleep, timeout};

use super::{
    RabbitQueue,
    connect::{GOSSIP, describe},
    convert,
    health::Role,
    inspect::{RabbitInspector, broker},
    session::SessionError,
    socket::SocketHandle,
};
use crate::{QueueError, topology};

/// Between two looks at whether the work is connected.
const LOOK: Duration = Duration::from_millis(100);
/// How long the broker may take for one step.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it may take to say goodbye.
const GOODBYE: Duration = Duration::from_millis(500);
/// Messages of which nobody took notice, at most; the oldest go first.
const HELD: i32 = 2_000;
/// Of them altogether, in bytes.
const HELD_BYTES: i32 = 4 * 1024 * 1024;
/// What was told longer ago is no news.
const STALE_MILLIS: i32 = 5_000;

/// One conversation, until it is lost.
pub struct ControlChannel {
    channel: Channel,
    consumer: Consumer,
    exchange: String,
    /// Its own, where it is not borrowed.
    own: Option<(Connection, SocketHandle)>,
}

impl RabbitQueue {
    /// Waits until the work is connected.
    pub async fn connected(&self) {
        while !self.shared.board.is_up(Role::Publish) {
            sleep(LOOK).await;
        }
    }

    /// A conversation in which everything told by one of `keys` is heard. Waits until the work itself is connected; an
    /// error where it cannot begin.
    pub async fn control_channel(&self, keys: &[String]) -> Result<ControlChannel, SessionError> {
        self.connected().await;
        let shared = &self.shared;
        let host = shared.broker.rotation().next().ok_or_else(|| "no broker is named".to_owned())?;
        let (connection, line) = shared.broker.connect(&host, GOSSIP).await?;
        let channel = timeout(PATIENCE, connection.create_channel()).await.map_err(|_| SLOW.to_owned())?;
        let channel = channel.map_err(|error| describe(&error))?;
        let control = ControlChannel::begin(channel, &shared.prefix, keys).await.map_err(|error| error.to_string())?;
        Ok(ControlChannel { own: Some((connection, line)), ..control })
    }
}

impl RabbitInspector {
    /// A conversation in which everything told by one of `keys` is heard.
    pub async fn control_channel(&self, keys: &[String]) -> Result<ControlChannel, QueueError> {
        ControlChannel::begin(self.channel().await?, self.prefix(), keys).await
    }
}

const SLOW: &str = "the broker did not answer in time";

impl ControlChannel {
    async fn begin(channel: Channel, prefix: &str, keys: &[String]) -> Result<Self, QueueError> {
        let slow = |_| QueueError::Broker(SLOW.to_owned());
        timeout(PATIENCE, Self::bound(channel, prefix, keys)).await.map_err(slow)?
    }

    async fn bound(channel: Channel, prefix: &str, keys: &[String]) -> Result<Self, QueueError> {
        let own = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
        let queue = channel.queue_declare("".into(), own, bounds()).await.map_err(|error| broker(&error))?;
        let exchange = topology::control(prefix);
        for key in keys {
            let (name, from, key) = (queue.name().clone(), convert::short(&exchange)?, convert::short(key)?);
            let bound = channel.queue_bind(name, from, key, QueueBindOptions::default(), FieldTable::default());
            bound.await.map_err(|error| broker(&error))?;
        }
        let unacknowledged = BasicConsumeOptions { no_ack: true, exclusive: true, ..BasicConsumeOptions::default() };
        let consumer = channel.basic_consume(queue.name().clone(), "".into(), unacknowledged, FieldTable::default());
        let consumer = consumer.await.map_err(|error| broker(&error))?;
        Ok(Self { channel, consumer, exchange, own: None })
    }

    /// Tells `body` to whoever hears `key`. Nothing is told while the broker takes no publications.
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
            Ok(Err(error)) => Err(describe(&error)),
            Err(_) => Err(SLOW.to_owned()),
        }
    }

    /// What is told next, by anybody. Cancel-safe.
    pub async fn next(&mut self) -> Result<Bytes, SessionError> {
        match self.consumer.next().await {
            Some(Ok(delivery)) => Ok(delivery.data.into()),
            Some(Err(error)) => Err(describe(&error)),
            None => Err("the broker ended the conversation".to_owned()),
        }
    }

    /// Some ends of a connection make no event: to be asked every second or so.
    pub fn is_lost(&self) -> bool {
        let connection = self.own.as_ref().is_some_and(|(connection, _)| !connection.status().connected());
        connection || !self.channel.status().connected()
    }

    /// Says goodbye; dropping does without.
    pub async fn close(self) {
        if let Some((connection, _line)) = self.own {
            let _ = timeout(GOODBYE, connection.close(200, "closed".into())).await;
        }
    }

    fn is_blocked(&self) -> bool {
        self.own.as_ref().is_some_and(|(connection, _)| connection.status().blocked())
    }
}

/// Of the queue: what nobody hears in time is dropped.
fn bounds() -> FieldTable {
    let mut bounds = FieldTable::default();
    bounds.insert("x-max-length".into(), AMQPValue::LongInt(HELD));
    bounds.insert("x-max-length-bytes".into(), AMQPValue::LongInt(HELD_BYTES));
    bounds.insert("x-message-ttl".into(), AMQPValue::LongInt(STALE_MILLIS));
    bounds.insert("x-overflow".into(), AMQPValue::LongString("drop-head".into()));
    bounds.insert("x-queue-type".into(), AMQPValue::LongString("classic".into()));
    bounds
}

impl fmt::Debug for ControlChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlChannel").field("exchange", &self.exchange).finish_non_exhaustive()
    }
}
