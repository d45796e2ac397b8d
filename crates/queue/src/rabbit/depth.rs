//! The number of messages in a queue, read by a passive declaration. Consumes no message.

use lapin::{Channel, options::QueueDeclareOptions, types::FieldTable};

/// Returns the number of messages in `queue` that are ready for delivery.
pub(super) async fn ready(channel: &Channel, queue: &str) -> lapin::Result<u32> {
    Ok(state(channel, queue).await?.message_count())
}

/// Returns the number of messages and consumers of an existing queue.
pub(super) async fn state(channel: &Channel, queue: &str) -> lapin::Result<lapin::Queue> {
    let passive = QueueDeclareOptions { passive: true, ..Default::default() };
    channel.queue_declare(queue.into(), passive, FieldTable::default()).await
}
