//! Messages for an unknown kind, which the worker answers. Each is a copy; the message itself stays in the queue of
//! unrouted messages.

use std::{
    future::pending,
    sync::{Arc, OnceLock},
};

use futures_util::StreamExt;
use lapin::{
    Channel, Consumer,
    options::BasicConsumeOptions,
    protocol::AMQPSoftError::{ACCESSREFUSED, NOTFOUND},
    types::FieldTable,
};
use tokio::sync::mpsc;

use super::{
    acknowledge::Acknowledger,
    convert,
    error::{describe, refusal},
    flow::LaneFlow,
    link::{Link, SessionError, SessionTaskEnd},
    settle::RabbitSettler,
    shared::Shared,
    topology_check,
};
use crate::{
    message::UnknownKindMessage,
    topology::{jobs_exchange, unknown_kinds_queue},
};

/// Maximum number of copies in memory, because bodies can have any size.
const PREFETCH: u16 = 8;

/// Starts to consume the messages, and returns their receiver. A second receiver gets none.
pub(super) fn register(sender: &OnceLock<mpsc::Sender<UnknownKindMessage>>) -> mpsc::Receiver<UnknownKindMessage> {
    let (to_worker, arrived) = mpsc::channel(PREFETCH.into());
    let _ = sender.set(to_worker);
    arrived
}

/// Passes messages on until the session is lost. Does nothing without a receiver.
pub(super) async fn serve(shared: Arc<Shared>, link: Arc<Link>) -> SessionTaskEnd {
    let Some(sender) = shared.unknown_kinds.get() else { return pending().await };
    match consumer(&shared, &link).await? {
        Some(consumer) => hand_over(&shared, &link, sender, consumer).await,
        None => pending().await,
    }
}

/// Opens the consumer. `None` if the broker refuses: then these messages are not answered.
async fn consumer(shared: &Shared, link: &Link) -> Result<Option<(Channel, Consumer)>, SessionError> {
    let channel = link.channel(PREFETCH).await?;
    let queue = unknown_kinds_queue(&shared.prefix);
    let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
    match channel.basic_consume(queue.as_str().into(), "".into(), options, none).await {
        Ok(consumer) => Ok(Some((channel, consumer))),
        Err(error) if is_refused(&error, &shared.prefix) => {
            let reason = describe(error);
            tracing::warn!(
                reason,
                "jobs of an unknown kind are not answered: topology or rights of an earlier version"
            );
            Ok(None)
        }
        Err(error) => Err(describe(error)),
    }
}

/// Returns true if the broker refused to deliver these messages, because the queue is missing (as in the topology of an
/// earlier version) or the user may not read it. This closes only their own channel.
pub(super) fn is_refused(error: &lapin::Error, prefix: &str) -> bool {
    refusal(error).is_some_and(|(kind, message)| {
        matches!(kind, NOTFOUND | ACCESSREFUSED) && message.contains(&format!("'{}'", unknown_kinds_queue(prefix)))
    })
}

async fn hand_over(
    shared: &Arc<Shared>,
    link: &Link,
    sender: &mpsc::Sender<UnknownKindMessage>,
    (channel, mut consumer): (Channel, Consumer),
) -> SessionTaskEnd {
    let jobs = jobs_exchange(&shared.prefix);
    let flow = Arc::<LaneFlow>::default();
    let acknowledger = Arc::new(Acknowledger::new(channel.clone(), &link.session));
    let recent = &shared.settlements.recent;
    while let Some(delivery) = consumer.next().await {
        let delivery = delivery.map_err(describe)?;
        topology_check::note_unrouted(shared, delivery.exchange.as_str(), delivery.routing_key.as_str());
        let known = recent.hold(recent.identity(&delivery, false), delivery.redelivered);
        let settler = RabbitSettler::new(&shared.settlements, &acknowledger, &flow, &delivery, known);
        // The alternate exchange keeps the name of the original exchange. Messages from workers are not answered.
        if delivery.exchange.as_str() != jobs {
            settler.acknowledge_in_background();
            continue;
        }
        let (key, settler) = (delivery.routing_key.to_string(), Box::new(settler));
        let message = convert::with_trusted_headers(delivery, false);
        if sender.send(UnknownKindMessage { key, message, settler }).await.is_err() {
            // The process drains. Other processes answer.
            channel.close(200, "draining".into()).await.map_err(describe)?;
            return pending().await;
        }
    }
    Err(format!("the broker ended the consumer of {}", unknown_kinds_queue(&shared.prefix)))
}
