//! What producers sent for a kind that does not exist: handed over to be answered. Each is a copy; the message itself stays
//! on the shelf of what matches nothing.

use std::{
    convert::Infallible,
    future::pending,
    sync::{Arc, OnceLock},
};

use futures_util::StreamExt;
use lapin::{options::BasicConsumeOptions, types::FieldTable};
use tokio::sync::mpsc;

use super::{
    Shared, convert,
    dial::why,
    session::{Link, Lost},
    settle::{Flow, Settler},
};
use crate::queue::{
    self, Unrouted,
    topology::{self, door},
};

/// Copies in hand, at most: bodies are of any size.
const PREFETCH: u16 = 8;

/// What is to be answered, session after session.
#[derive(Debug)]
pub struct Unanswered {
    arrived: mpsc::Receiver<Unrouted>,
}

impl Unanswered {
    /// From now on they are consumed.
    pub(super) fn of(answering: &OnceLock<mpsc::Sender<Unrouted>>) -> Self {
        let (sender, arrived) = mpsc::channel(PREFETCH.into());
        // A second one hears nothing.
        let _ = answering.set(sender);
        Self { arrived }
    }

    /// See [`queue::Unanswered::next`].
    pub async fn next(&mut self) -> Unrouted {
        match self.arrived.recv().await {
            Some(unrouted) => unrouted,
            None => pending().await,
        }
    }
}

/// Hands over what is to be answered, until the session is lost; nothing where nobody answers.
pub(super) async fn serve(shared: Arc<Shared>, link: Arc<Link>) -> Lost {
    let Some(answering) = shared.answering.get() else { return pending().await };
    match consume(&shared, &link, answering).await {
        Ok(never) => match never {},
        Err(lost) => lost,
    }
}

async fn consume(shared: &Arc<Shared>, link: &Link, answering: &mpsc::Sender<Unrouted>) -> Result<Infallible, Lost> {
    let (queue, door) = (topology::unanswered(&shared.prefix), door(&shared.prefix));
    let channel = link.channel(PREFETCH).await?;
    let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
    let consumer = channel.basic_consume(queue.as_str().into(), "".into(), options, none).await;
    let mut consumer = consumer.map_err(|error| why(&error))?;
    let flow = Arc::<Flow>::default();
    while let Some(delivery) = consumer.next().await {
        let delivery = delivery.map_err(|error| why(&error))?;
        let identity = shared.recent.identity(&delivery, false);
        let settler = Settler::new(shared, &link.session, &flow, (identity, delivery.acker.clone()));
        // The alternate exchange leaves it the exchange by which it came. What we sent ourselves has nobody to answer.
        if delivery.exchange.as_str() != door {
            settler.acknowledge_in_background();
            continue;
        }
        let (key, settler) = (delivery.routing_key.to_string(), queue::Settler::Rabbit(settler));
        let message = convert::taken(delivery, false);
        if answering.send(Unrouted { key, message, settler }).await.is_err() {
            // The process drains: the others answer.
            channel.close(200, "draining".into()).await.map_err(|error| why(&error))?;
            return pending().await;
        }
    }
    Err(format!("the broker ended the consumer of {queue}"))
}
