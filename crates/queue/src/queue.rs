//! The queue of a process: one of two backends, `RabbitMQ` and an embedded `SQLite` file, which keep the same promises
//! (SPEC 6). `queue::conformance` tests both against them.

use std::{future::pending, sync::Arc, time::Duration};

use tokio::sync::mpsc;

use crate::{
    message::{Delivery, Health, Publication, QueueError, UnknownKindMessage},
    rabbit::{DeliveryBuffer, RabbitQueue, ReplyTo},
    sqlite::{self, SqliteQueue},
};
use genfleet_job::Kind;

/// Calls the same method of either backend.
macro_rules! dispatch {
    ($of:expr, $type:ident, $backend:ident => $call:expr) => {
        match $of {
            $type::Rabbit($backend) => $call,
            $type::Sqlite($backend) => $call,
        }
    };
}
pub(crate) use dispatch;

/// The queue of a process. Clones are the same queue.
#[derive(Clone, Debug)]
pub enum Queue {
    /// A queue on `RabbitMQ`.
    Rabbit(RabbitQueue),
    /// A queue in a file.
    Sqlite(SqliteQueue),
}

impl Queue {
    /// Starts to consume jobs of `kind`, at most `concurrency` unsettled of each lane.
    pub fn consume(&self, kind: Kind, concurrency: usize) -> Consumer {
        Consumer(match self {
            Self::Rabbit(queue) => ConsumerOf::Rabbit(queue.consume(kind, concurrency)),
            Self::Sqlite(queue) => ConsumerOf::Sqlite(queue.consume(kind, concurrency)),
        })
    }

    /// Starts to consume what producers sent for kinds that do not exist. Once, and before the first [`Self::consume`].
    pub fn unknown_kinds(&self) -> UnknownKinds {
        match self {
            Self::Rabbit(queue) => UnknownKinds(Some(queue.unknown_kinds())),
            Self::Sqlite(_) => UnknownKinds::default(),
        }
    }

    /// The messaging system's name in traces.
    pub fn system(&self) -> &'static str {
        match self {
            Self::Rabbit(_) => "rabbitmq",
            Self::Sqlite(_) => "sqlite",
        }
    }

    /// First part of the name of every exchange and queue; the embedded queue uses the default one.
    pub fn prefix(&self) -> &str {
        match self {
            Self::Rabbit(queue) => queue.prefix(),
            Self::Sqlite(_) => "genfleet",
        }
    }

    /// Allows replies to queues of these names, beside those that the broker makes up for producers.
    pub fn allow_replies(&self, allowed: Vec<ReplyTo>) {
        if let Self::Rabbit(queue) = self {
            queue.allow_replies(allowed);
        }
    }

    /// Makes `publications` durable. Waits while the broker is away.
    pub async fn publish(&self, publications: Vec<Publication>) -> Result<(), QueueError> {
        dispatch!(self, Self, queue => queue.publish(publications).await)
    }

    /// Its condition now.
    pub fn health(&self) -> Health {
        dispatch!(self, Self, queue => queue.health())
    }

    /// Counts the deliveries of `kind` that this process holds unsettled, whatever they wait for.
    pub fn count_unsettled(&self, kind: Kind) -> u32 {
        dispatch!(self, Self, queue => queue.count_unsettled(kind))
    }

    /// Waits until the queue can no longer be used, and returns the reason.
    pub async fn wait_until_failed(&self) -> String {
        dispatch!(self, Self, queue => queue.wait_until_failed().await)
    }

    /// Returns true if deliveries were returned within the last `time` because a session was lost.
    pub fn lost_session_within(&self, time: Duration) -> bool {
        match self {
            Self::Rabbit(queue) => queue.lost_session_within(time),
            Self::Sqlite(_) => false,
        }
    }

    /// Ends all sessions; unsettled deliveries are returned to the queue.
    pub async fn close(&self) {
        dispatch!(self, Self, queue => queue.close().await);
    }
}

/// The deliveries of one kind.
#[derive(Debug)]
pub struct Consumer(ConsumerOf);

#[derive(Debug)]
enum ConsumerOf {
    Rabbit(Arc<DeliveryBuffer>),
    Sqlite(sqlite::Consumer),
}

impl Consumer {
    /// The next new or started job; while both wait, at least every second is a started one. Waits for one, through any
    /// number of sessions. Cancel-safe.
    pub async fn next(&mut self) -> Delivery {
        dispatch!(&mut self.0, ConsumerOf, consumer => consumer.next().await)
    }

    /// The suspects, worked apart from the rest: one unsettled at a time. Once.
    pub fn suspects(&mut self) -> Suspects {
        Suspects(match &mut self.0 {
            ConsumerOf::Rabbit(buffer) => SuspectsOf::Rabbit(Arc::clone(buffer)),
            ConsumerOf::Sqlite(consumer) => SuspectsOf::Sqlite(consumer.suspects()),
        })
    }

    /// Takes no more deliveries. Returns those that were handed over but not taken by [`Self::next`], for the worker to
    /// delay or to give back. Deliveries taken by `next` are not touched.
    pub async fn pause(&mut self) -> Vec<Delivery> {
        dispatch!(&mut self.0, ConsumerOf, consumer => consumer.pause().await)
    }

    /// Takes deliveries again.
    pub fn resume(&mut self) {
        dispatch!(&mut self.0, ConsumerOf, consumer => consumer.resume());
    }

    /// Takes one waiting job for a probe while the consumer is paused. `None` if none waits or the broker is away.
    pub async fn take_one(&mut self) -> Option<Delivery> {
        dispatch!(&mut self.0, ConsumerOf, consumer => consumer.take_one().await)
    }
}

/// The suspects of one kind.
#[derive(Debug)]
pub struct Suspects(SuspectsOf);

#[derive(Debug)]
enum SuspectsOf {
    Rabbit(Arc<DeliveryBuffer>),
    Sqlite(sqlite::Suspects),
}

impl Suspects {
    /// The next suspect; waits for one. Cancel-safe.
    pub async fn next(&mut self) -> Delivery {
        match &mut self.0 {
            SuspectsOf::Rabbit(buffer) => buffer.next_suspect().await,
            SuspectsOf::Sqlite(suspects) => suspects.next().await,
        }
    }
}

/// What producers sent for kinds that do not exist. The embedded queue takes no such messages.
#[derive(Debug, Default)]
pub struct UnknownKinds(Option<mpsc::Receiver<UnknownKindMessage>>);

impl UnknownKinds {
    /// The next message; waits for it, through any number of sessions. Cancel-safe.
    pub async fn next(&mut self) -> UnknownKindMessage {
        let next = async { self.0.as_mut()?.recv().await };
        match next.await {
            Some(message) => message,
            None => pending().await,
        }
    }
}
