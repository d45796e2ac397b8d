//! Reads the events exchange through a queue of the test.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::{
    Channel, Connection, Error,
    options::{BasicAckOptions, BasicConsumeOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use serde_json::Value;
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::{Instant, timeout, timeout_at},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{Amqp, Message, assert_keeps_contract, eventually::between_looks};

/// Maximum lifetime of a reader's connection, because the client library's consumer, acknowledgement or reopened channel
/// may wait forever if the broker became unavailable at the wrong moment.
const READ_AT_MOST: Duration = Duration::from_secs(10);
const CLOSE_AT_MOST: Duration = Duration::from_secs(2);
/// The content type of an event.
const EVENT: &str = "application/cloudevents+json";

/// The events of a prefix, in the order of arrival, with repeats. Reading one fails if it is not
/// as the published contract says.
pub struct Events {
    arrived: UnboundedReceiver<Message>,
    _reader: AbortOnDropHandle<()>,
}

impl Events {
    pub(crate) async fn of_connection(connection: &Connection, prefix: &str) -> Self {
        let channel = connection.create_channel().await.expect("the connection is open");
        let options = QueueDeclareOptions { exclusive: true, ..Default::default() };
        let queue = declare(&channel, prefix, options, FieldTable::default()).await;
        // A lost connection ends the stream. The test then times out and reports what did not happen.
        Self::read(async move |arrived| drop(forward(&channel, &queue, &arrived).await))
    }

    /// Reads events from a durable queue, on a connection of its own that is restored after a restart of the broker.
    /// Events that were not acknowledged before are redelivered.
    pub async fn reconnecting(url: &str, prefix: &str) -> Self {
        let amqp = Amqp::connect(url).await;
        let options = QueueDeclareOptions::durable();
        let queue = declare(amqp.channel(), prefix, options, durable_arguments()).await;
        let url = url.to_owned();
        Self::read(async move |arrived| {
            while !arrived.is_closed() {
                if let Ok(amqp) = Amqp::try_connect(&url).await {
                    let _ = timeout(READ_AT_MOST, forward(amqp.channel(), &queue, &arrived)).await;
                    let _ = timeout(CLOSE_AT_MOST, amqp.connection().close(200, "reading anew".into())).await;
                }
                between_looks().await;
            }
        })
    }

    /// Waits for the next event and returns it as JSON.
    pub async fn next_event(&mut self, timeout: Duration) -> Value {
        let mut events = self.collect_events(1, timeout).await;
        events.swap_remove(0)
    }

    /// Waits for the next `count` events and returns them as JSON.
    pub async fn collect_events(&mut self, count: usize, timeout: Duration) -> Vec<Value> {
        let messages = self.collect_messages(count, timeout).await;
        messages.iter().map(Message::json).collect()
    }

    /// Waits for the next `count` events and returns them with headers and properties.
    pub async fn collect_messages(&mut self, count: usize, timeout: Duration) -> Vec<Message> {
        let deadline = Instant::now() + timeout;
        let mut messages = Vec::new();
        while messages.len() < count {
            let Some(message) = self.before(deadline).await else {
                panic!("{} of {count} events within {timeout:?}: {}", messages.len(), described(&messages));
            };
            messages.push(message);
        }
        messages
    }

    /// Returns the next event, or `None` if none arrives within `timeout`.
    pub async fn next_message(&mut self, timeout: Duration) -> Option<Message> {
        self.before(Instant::now() + timeout).await
    }

    async fn before(&mut self, deadline: Instant) -> Option<Message> {
        let message = timeout_at(deadline, self.arrived.recv()).await.ok().flatten()?;
        // The tests of the harness publish other messages.
        if message.properties.content_type().as_ref().is_some_and(|it| it.as_str() == EVENT) {
            assert_keeps_contract(&message.json());
        }
        Some(message)
    }

    fn read<F: Future<Output = ()> + Send + 'static>(reader: impl FnOnce(UnboundedSender<Message>) -> F) -> Self {
        let (sender, arrived) = unbounded_channel();
        let reader = AbortOnDropHandle::new(tokio::spawn(reader(sender)));
        Self { arrived, _reader: reader }
    }
}

async fn declare(channel: &Channel, prefix: &str, options: QueueDeclareOptions, arguments: FieldTable) -> String {
    let queue = format!("{prefix}.test.events.{}", uuid::Uuid::new_v4().simple());
    let declared = channel.queue_declare(queue.as_str().into(), options, arguments).await;
    declared.unwrap_or_else(|error| panic!("declaring {queue}: {error}"));
    let exchange = format!("{prefix}.events");
    let bound = channel.queue_bind(
        queue.as_str().into(),
        exchange.as_str().into(),
        "#".into(),
        QueueBindOptions::default(),
        FieldTable::default(),
    );
    bound.await.unwrap_or_else(|error| panic!("binding a queue to {exchange}: {error}"));
    queue
}

/// A quorum queue, so that nothing is lost if the broker is killed. It is deleted ten minutes after its last reader.
fn durable_arguments() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments.insert("x-expires".into(), AMQPValue::LongInt(600_000));
    arguments
}

async fn forward(channel: &Channel, queue: &str, arrived: &UnboundedSender<Message>) -> Result<(), Error> {
    let options = BasicConsumeOptions::default();
    let consuming = channel.basic_consume(queue.into(), "".into(), options, FieldTable::default());
    let mut deliveries = consuming.await?;
    while let Some(delivery) = deliveries.next().await {
        let delivery = delivery?;
        if arrived.send(Message::of(&delivery)).is_err() {
            break;
        }
        delivery.ack(BasicAckOptions::default()).await?;
    }
    Ok(())
}

fn described(messages: &[Message]) -> String {
    let bodies = messages.iter().take(20);
    let bodies: Vec<_> = bodies.map(|message| String::from_utf8_lossy(&message.body)).collect();
    bodies.join("\n")
}
