//! The dead-letter queues that exist.

use genfleet_core::{
    eprint_line,
    queue::{QueueError, QueueInspector, dead_letters::DeadLetterQueue},
};

/// Returns the queues of `wanted` that exist. Warns of missing queues; fails if none exists.
pub(crate) async fn existing(
    inspector: &QueueInspector,
    wanted: impl IntoIterator<Item = DeadLetterQueue>,
) -> Result<Vec<DeadLetterQueue>, QueueError> {
    let (mut existing, mut missing) = (Vec::new(), Vec::new());
    for queue in wanted.into_iter().filter(|queue| inspector.has(*queue)) {
        match inspector.count(queue).await {
            Ok(_) => existing.push(queue),
            Err(QueueError::Missing(name)) => missing.push(name),
            Err(error) => return Err(error),
        }
    }
    match missing.first() {
        Some(name) if existing.is_empty() => return Err(QueueError::Missing(name.clone())),
        _ => missing.iter().for_each(|name| eprint_line!("warning: {}", crate::terminal::line(name))),
    }
    Ok(existing)
}
