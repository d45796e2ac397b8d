//! The number of messages in a queue, by a passive declaration. Never takes a message.

use lapin::{Channel, options::QueueDeclareOptions, types::FieldTable};

/// Number of messages of `queue` that wait to be delivered.
pub(super) async fn ready(channel: &Channel, queue: &str) -> lapin::Result<u32> {
    Ok(state(channel, queue).await?.message_count())
}

/// The state of an existing queue: its messages and consumers.
pub(super) async fn state(channel: &Channel, queue: &str) -> lapin::Result<lapin::Queue> {
    let passive = QueueDeclareOptions { passive: true, ..Default::default() };
    channel.queue_declare(queue.into(), passive, FieldTable::default()).await
}
