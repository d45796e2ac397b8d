//! What producers sent for a kind that does not exist: handed over to be answered. Each is a copy; the message itself stays
//! on the shelf of what matches nothing.

use std::{
    convert::Infallible,
    future::pending,
    sync::{Arc, OnceLock},
};

use futures_util::StreamExt;
use lapin::{
    Channel, Consumer, ErrorKind,
    options::BasicConsumeOptions,
    protocol::{AMQPErrorKind, AMQPSoftError},
    types::FieldTable,
};
use tokio::sync::mpsc;

use super::{
    Shared,
    connect::describe,
    convert,
    session::{Link, SessionError},
    settle::{LaneFlow, RabbitSettler},
    topology_check,
};
use crate as queue;
use crate::{
    UnknownKindMessage,
    topology::{self, jobs_exchange},
};

/// Copies in hand, at most: bodies are of any size.
const PREFETCH: u16 = 8;

/// What is to be answered, session after session.
#[derive(Debug)]
pub struct UnknownKinds {
    arrived: mpsc::Receiver<UnknownKindMessage>,
}

impl UnknownKinds {
    /// From now on they are consumed.
    pub(super) fn of(answering: &OnceLock<mpsc::Sender<UnknownKindMessage>>) -> Self {
        let (sender, arrived) = mpsc::channel(PREFETCH.into());
        // A second one hears nothing.
        let _ = answering.set(sender);
        Self { arrived }
    }

    /// See [`queue::UnknownKinds::next`].
    pub async fn next(&mut self) -> UnknownKindMessage {
        match self.arrived.recv().await {
            Some(unrouted) => unrouted,
            None => pending().await,
        }
    }
}

/// Hands over what is to be answered, until the session is lost; nothing where nobody answers.
pub(super) async fn serve(shared: Arc<Shared>, link: Arc<Link>) -> SessionError {
    let Some(answering) = shared.answering.get() else { return pending().await };
    match consumer(&shared, &link).await {
        Ok(Some((channel, consumer))) => match hand_over(&shared, &link, answering, (channel, consumer)).await {
            Ok(never) => match never {},
            Err(lost) => lost,
        },
        Ok(None) => pending().await,
        Err(lost) => lost,
    }
}

/// None where the broker refuses: nobody is answered then, and all else goes on.
async fn consumer(shared: &Shared, link: &Link) -> Result<Option<(Channel, Consumer)>, SessionError> {
    let channel = link.channel(PREFETCH).await?;
    let queue = topology::unknown_kinds_queue(&shared.prefix);
    let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
    match channel.basic_consume(queue.as_str().into(), "".into(), options, none).await {
        Ok(consumer) => Ok(Some((channel, consumer))),
        Err(error) if is_refused(&error, &shared.prefix) => {
            let reason = describe(&error);
            tracing::warn!(
                reason,
                "jobs of an unknown kind are not answered: topology or rights of an earlier version"
            );
            Ok(None)
        }
        Err(error) => Err(describe(&error)),
    }
}

/// Whether the broker refused to hand over what is to be answered: the queue is missing, as in the topology of an earlier
/// version, or our user may not read it. That closes a channel, and nothing else depends on it.
pub(super) fn is_refused(error: &lapin::Error, prefix: &str) -> bool {
    let ErrorKind::ProtocolError(told) = error.kind() else { return false };
    matches!(told.kind(), AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND | AMQPSoftError::ACCESSREFUSED))
        && told.get_message().as_str().contains(&format!("'{}'", topology::unknown_kinds_queue(prefix)))
}

async fn hand_over(
    shared: &Arc<Shared>,
    link: &Link,
    answering: &mpsc::Sender<UnknownKindMessage>,
    (channel, mut consumer): (Channel, Consumer),
) -> Result<Infallible, SessionError> {
    let jobs = jobs_exchange(&shared.prefix);
    let flow = Arc::<LaneFlow>::default();
    while let Some(delivery) = consumer.next().await {
        let delivery = delivery.map_err(|error| describe(&error))?;
        topology_check::came_unrouted(shared, delivery.exchange.as_str(), delivery.routing_key.as_str());
        let held = shared.recent.hold(shared.recent.identity(&delivery, false), delivery.redelivered);
        let settler = RabbitSettler::new(shared, &link.session, &flow, (held, delivery.acker.clone()));
        // The alternate exchange leaves it the exchange by which it came. What we sent ourselves has nobody to answer.
        if delivery.exchange.as_str() != jobs {
            settler.acknowledge_in_background();
            continue;
        }
        let (key, settler) = (delivery.routing_key.to_string(), queue::Settler::Rabbit(settler));
        let message = convert::taken(delivery, false);
        if answering.send(UnknownKindMessage { key, message, settler }).await.is_err() {
            // The process drains: the others answer.
            channel.close(200, "draining".into()).await.map_err(|error| describe(&error))?;
            return pending().await;
        }
    }
    Err(format!("the broker ended the consumer of {}", topology::unknown_kinds_queue(&shared.prefix)))
}
