//! A simple AMQP client for tests: it publishes jobs and reads queues.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, PublisherConfirm,
    options::{
        BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions,
        QueuePurgeOptions,
    },
    types::{AMQPValue, FieldTable},
};

use tokio::time::timeout;

use crate::{Events, Message, eventually, seconds};

/// Maximum number of unconfirmed messages.
const IN_FLIGHT: usize = 1_000;

const CONFIRM_PATIENCE: Duration = Duration::from_secs(60);

/// A connection to the broker with one channel in confirm mode. It does not reconnect.
pub struct Amqp {
    connection: Connection,
    channel: Channel,
}

impl Amqp {
    /// Connects.
    pub async fn connect(url: &str) -> Self {
        let connected = Self::try_connect(url).await;
        connected.unwrap_or_else(|error| panic!("no connection to {url}: {error}"))
    }

    /// Connects; fails if the broker is unavailable.
    pub async fn try_connect(url: &str) -> anyhow::Result<Self> {
        let connecting = Connection::connect(url, ConnectionProperties::default());
        let connection = timeout(seconds(10), connecting).await??;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(Self { connection, channel })
    }

    /// The channel, for operations that are not offered here.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// The connection, for operations that are not offered here.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Publishes a job to the producers' exchange, and waits for the confirm.
    pub async fn publish_job(&self, prefix: &str, kind: &str, body: impl AsRef<[u8]>, properties: BasicProperties) {
        let exchange = format!("{prefix}.jobs");
        self.publish_raw(&exchange, kind, body, properties).await;
    }

    /// Publishes many jobs with many unconfirmed at once: ten thousand in about a second.
    pub async fn publish_jobs<B: AsRef<[u8]>>(
        &self,
        prefix: &str,
        kind: &str,
        jobs: impl IntoIterator<Item = (B, BasicProperties)>,
    ) {
        self.publish_many(&format!("{prefix}.jobs"), kind, jobs).await;
    }

    /// Publishes many messages to any exchange, as [`Self::publish_jobs`].
    pub async fn publish_many<B: AsRef<[u8]>>(
        &self,
        exchange: &str,
        key: &str,
        messages: impl IntoIterator<Item = (B, BasicProperties)>,
    ) {
        stream::iter(messages)
            .then(|(body, properties)| self.send(exchange, key, body, properties))
            .map(confirmed)
            .buffer_unordered(IN_FLIGHT)
            .for_each(async |()| ())
            .await;
    }

    /// Publishes a message to any exchange, and waits for the confirm.
    pub async fn publish_raw(&self, exchange: &str, key: &str, body: impl AsRef<[u8]>, properties: BasicProperties) {
        confirmed(self.send(exchange, key, body, properties).await).await;
    }

    /// Declares a queue that receives every event published from now on. It is deleted with the connection.
    pub async fn declare_events_queue(&self, prefix: &str) -> Events {
        Events::of_connection(&self.connection, prefix).await
    }

    /// Reads all ready messages of a queue and returns them to it in their order.
    /// The broker counts this in `x-delivery-count`, so reading a job three times makes it a suspect.
    pub async fn get_all(&self, queue: &str) -> Vec<Message> {
        let channel = self.new_channel().await;
        let mut messages = Vec::new();
        loop {
            let got = channel.basic_get(queue.into(), BasicGetOptions::default()).await;
            match got.unwrap_or_else(|error| panic!("reading {queue}: {error}")) {
                Some(got) => messages.push(Message::of(&got.delivery)),
                None => break,
            }
        }
        channel.close(200, "read".into()).await.expect("the channel closes");
        messages
    }

    /// Consumes all ready messages of a queue: ten thousand in about a second.
    pub async fn consume_all(&self, queue: &str) -> Vec<Message> {
        let channel = self.new_channel().await;
        let ready = self.count(queue).await as usize;
        let (options, none) = (BasicConsumeOptions { no_ack: true, ..Default::default() }, FieldTable::default());
        let consuming = channel.basic_consume(queue.into(), "".into(), options, none).await;
        let consumer = consuming.unwrap_or_else(|error| panic!("consuming {queue}: {error}"));
        let deliveries = consumer.take(ready).map(|each| Message::of(&each.expect("a delivery")));
        let messages = timeout(CONFIRM_PATIENCE, deliveries.collect()).await.expect("all come within a minute");
        channel.close(200, "read".into()).await.expect("the channel closes");
        messages
    }

    /// Consumes the ready messages of a queue one at a time, so that none is lost in transit. Messages that arrive
    /// meanwhile are included, until the queue is empty or `most` were consumed.
    pub async fn take(&self, queue: &str, most: usize) -> Vec<Message> {
        let channel = self.new_channel().await;
        let mut messages = Vec::new();
        while messages.len() < most {
            let got = channel.basic_get(queue.into(), BasicGetOptions { no_ack: true }).await;
            match got.unwrap_or_else(|error| panic!("reading {queue}: {error}")) {
                Some(got) => messages.push(Message::of(&got.delivery)),
                None => break,
            }
        }
        channel.close(200, "read".into()).await.expect("the channel closes");
        messages
    }

    /// Purges all ready messages of a queue.
    pub async fn purge(&self, queue: &str) {
        let purged = self.new_channel().await.queue_purge(queue.into(), QueuePurgeOptions::default()).await;
        purged.unwrap_or_else(|error| panic!("purging {queue}: {error}"));
    }

    /// Number of ready messages in a queue. Messages that were delivered to a consumer are not counted.
    pub async fn count(&self, queue: &str) -> u32 {
        let count = self.try_count(queue).await;
        count.unwrap_or_else(|| panic!("there is no queue {queue}"))
    }

    /// The same; `None` if there is no such queue.
    pub async fn try_count(&self, queue: &str) -> Option<u32> {
        self.inspect(queue).await.map(|queue| queue.message_count())
    }

    async fn inspect(&self, queue: &str) -> Option<lapin::Queue> {
        let channel = self.new_channel().await; // the broker closes it where there is no queue
        let passive = QueueDeclareOptions { passive: true, ..Default::default() };
        channel.queue_declare(queue.into(), passive, FieldTable::default()).await.ok()
    }

    /// Waits until a worker consumes from `queue`, which it does after it has declared its whole topology.
    pub async fn wait_for_consumer(&self, queue: &str) {
        let what = format!("a worker consumes from {queue}");
        eventually(seconds(30), what, async || self.inspect(queue).await.is_some_and(|it| it.consumer_count() > 0))
            .await;
    }

    async fn new_channel(&self) -> Channel {
        let channel = self.connection.create_channel().await;
        channel.unwrap_or_else(|error| panic!("the connection is gone: {error}"))
    }

    async fn send(
        &self,
        exchange: &str,
        key: &str,
        body: impl AsRef<[u8]>,
        properties: BasicProperties,
    ) -> PublisherConfirm {
        let mandatory = BasicPublishOptions { mandatory: true, ..Default::default() };
        let (exchange, key) = (exchange.into(), key.into());
        let sent = self.channel.basic_publish(exchange, key, mandatory, body.as_ref(), properties);
        sent.await.unwrap_or_else(|error| panic!("publishing: {error}"))
    }
}

async fn confirmed(confirm: PublisherConfirm) {
    let answer = timeout(CONFIRM_PATIENCE, confirm).await.expect("the broker confirms within a minute");
    let confirmation = answer.unwrap_or_else(|error| panic!("publishing: {error}"));
    assert!(confirmation.is_ack(), "refused by the broker: {confirmation:?}");
    let returned = confirmation.take_message();
    assert!(returned.is_none(), "this went to no queue: {returned:?}");
}

/// The properties that a correct producer sets: JSON, persistent.
pub fn json_properties() -> BasicProperties {
    BasicProperties::default().with_content_type("application/json".into()).with_delivery_mode(2)
}

/// Returns a table of headers with texts, for `json_properties().with_headers(…)`.
pub fn headers<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in fields {
        table.insert(name.into(), AMQPValue::LongString(value.into()));
    }
    table
}
