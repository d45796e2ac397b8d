//! The seam between the worker and its queue: what comes out of it ([`Delivery`]) and what goes into it
//! ([`Publication`]). Two queues stand behind it, `RabbitMQ` and an embedded `SQLite` file, and keep the same
//! promises (SPEC 6); `queue::conformance` is the list of them.
//!
//! Does not decide what happens to a job: that is `worker::settle`.

use std::{collections::BTreeMap, fmt, time::Duration};

use genfleet_job::{
    Kind,
    lease::Lease,
    message::{Lane, Message},
};
use genfleet_telemetry::trace::Span;

#[cfg(test)]
mod conformance;
pub mod dead_letters;
mod defect;
pub mod rabbit;
pub mod sqlite;
pub mod topology;
mod unsettled;

pub use self::defect::{MAX_HEADER_DEPTH, MAX_HEADER_VALUES, MessageDefect};

/// Where a publication goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The exchange of new jobs (`genfleet.jobs`), with the kind as routing key.
    Jobs(Kind),
    /// Back into a lane, at once or after a delay (rounded up to seconds on `RabbitMQ`).
    Lane {
        /// Whose lane.
        kind: Kind,
        /// Which.
        lane: Lane,
        /// How long it stays invisible first.
        after: Duration,
    },
    /// The events: routing key `<kind>.<outcome>`; `kind` is `unknown` where it could not be read.
    Event {
        /// `cdn.purge`, …, or `unknown`.
        kind: String,
        /// `succeeded`, `failed` or `expired`.
        outcome: &'static str,
    },
    /// A producer's reply queue. One that gets nothing, for whatever reason, is counted and no failure. The embedded
    /// queue has none and drops it.
    Reply {
        /// The queue's name.
        queue: String,
    },
    /// The dead letters of a kind (`unknown` as above).
    Dead {
        /// `cdn.purge`, …, or `unknown`.
        kind: String,
    },
}

/// One message on its way into the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// Where to.
    pub to: Destination,
    /// What. Always persistent.
    pub message: Message,
}

/// A message handed to this process, unsettled: it comes back if the process dies.
#[derive(Debug)]
pub struct Delivery {
    /// What came.
    pub message: Message,
    /// From which lane.
    pub lane: Lane,
    /// How often it came back unsettled before, for whatever reason (`x-delivery-count`): a hint, no verdict.
    pub delivery_count: u32,
    /// Whether it was delivered before, to this process or another.
    pub redelivered: bool,
    /// What is wrong with its properties: it is `undecodable` whatever its body says.
    pub defect: Option<MessageDefect>,
    /// How to settle it.
    pub settler: Settler,
    /// What is done with it, in its trace; from when [`worker::process`](crate::worker::process) has it.
    pub span: Span,
}

/// The right to settle one delivery, once.
#[derive(Debug)]
pub enum Settler {
    /// A delivery of `RabbitMQ`.
    Rabbit(rabbit::RabbitSettler),
    /// A row of the embedded queue.
    Sqlite(sqlite::StoreSettler),
}

/// A copy of what a producer sent for a kind that does not exist. Settled, only the copy is gone.
#[derive(Debug)]
pub struct UnknownKindMessage {
    /// The routing key it came by.
    pub key: String,
    /// What came.
    pub message: Message,
    /// How to settle it.
    pub settler: Settler,
}

/// What became of a settlement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The message is gone from the queue, and its publications are durable.
    Acknowledged,
    /// The publications are durable, but the delivery belonged to a session that is gone: the message is, or
    /// will be, delivered again.
    Stale,
}

impl Delivery {
    /// Whether this is no message that a producer just sent: it was delivered before, or this product published it.
    pub fn came_before(&self) -> bool {
        self.redelivered || self.lane != Lane::Jobs
    }
}

impl Settler {
    /// Whether the session this delivery came by is gone: it cannot be acknowledged any more.
    pub fn is_stale(&self) -> bool {
        match self {
            Self::Rabbit(settler) => settler.is_stale(),
            Self::Sqlite(_) => false,
        }
    }

    /// Waits until the session this delivery came by is gone; for ever where there are no sessions.
    pub async fn lost(&self) {
        match self {
            Self::Rabbit(settler) => settler.lost().await,
            Self::Sqlite(_) => std::future::pending().await,
        }
    }

    /// Of a kind that one process at a time works: since when this is the one.
    pub fn lease(&self) -> Option<Lease> {
        match self {
            Self::Rabbit(settler) => settler.lease(),
            Self::Sqlite(settler) => Some(settler.lease()),
        }
    }

    /// All of `publications` made durable, then the message taken off the queue. On `RabbitMQ`: sent, all
    /// confirms but those of replies awaited, acknowledged; embedded: one transaction.
    ///
    /// Waits while the broker is away. [`QueueError::Closed`] when the process stops first: nothing is lost,
    /// the message comes back. [`QueueError::TooLarge`] gives the right back.
    pub async fn settle(self, publications: Vec<Publication>) -> Result<Settled, QueueError> {
        match self {
            Self::Rabbit(settler) => settler.settle(publications).await,
            Self::Sqlite(settler) => settler.settle(publications).await,
        }
    }

    /// All of `publications` made durable, then the message left to the broker's own dead letters, which take it whatever
    /// its size. The embedded queue takes any.
    pub async fn leave_to_broker(self, publications: Vec<Publication>) -> Result<Settled, QueueError> {
        match self {
            Self::Rabbit(settler) => settler.leave_to_broker(publications).await,
            Self::Sqlite(settler) => settler.settle(publications).await,
        }
    }

    /// Given back untouched, at once visible to others; counts as a return.
    pub async fn give_back(self) {
        match self {
            Self::Rabbit(settler) => settler.give_back().await,
            Self::Sqlite(settler) => settler.give_back().await,
        }
    }
}

/// Why the queue did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The process is stopping; nothing more is sent.
    #[error("the queue is closed: this process is stopping")]
    Closed,
    /// The settings cannot work, whatever the broker's state.
    #[error("{0}")]
    Configuration(String),
    /// The embedded store failed.
    #[error("the store {path}: {source}")]
    Store {
        /// The store's file.
        path: String,
        /// What `SQLite` said.
        source: rusqlite::Error,
    },
    /// A queue that has to be there is not.
    #[error("{0}")]
    Missing(String),
    /// The broker refused something that is not a matter of waiting.
    #[error("the broker: {0}")]
    Broker(String),
    /// The broker takes no message of this size.
    #[error("{size}")]
    TooLarge {
        /// Which, and what it takes.
        size: TooLarge,
        /// The right to settle, where that was to be done with it.
        settler: Option<Box<Settler>>,
    },
}

/// A message beyond the broker's `max_message_size`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge {
    /// Of the message's body.
    pub bytes: usize,
    /// What the broker takes, where it said so.
    pub limit: Option<usize>,
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the broker takes no message of {} bytes", self.bytes)?;
        if let Some(limit) = self.limit {
            write!(f, ", only up to {limit}")?;
        }
        f.write_str(": raise max_message_size in rabbitmq.conf, or send less in one job")
    }
}

impl QueueError {
    /// Whether it may be otherwise in a moment: to be tried again.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Broker(_) => true,
            Self::Store { source, .. } => sqlite::may_pass(source),
            Self::Closed | Self::Configuration(_) | Self::Missing(_) | Self::TooLarge { .. } => false,
        }
    }
}

/// How the queue is, for `/readyz` and the metrics.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Health {
    /// What keeps the process from taking jobs, each in a sentence; empty when all is well.
    pub problems: Vec<String>,
    /// The broker does not take publications now (alarm): start no job that would end in one.
    pub publishing_blocked: bool,
    /// Kinds that another process works, one at a time (SPEC 6.1, lock); of those that nobody seems to work, why.
    pub standing_by: BTreeMap<Kind, Option<String>>,
}

/// One of the two queues. A closed set, so no `dyn`.
#[derive(Clone, Debug)]
pub enum Queue {
    /// `RabbitMQ`.
    Rabbit(rabbit::RabbitQueue),
    /// A file.
    Sqlite(sqlite::SqliteQueue),
}

impl Queue {
    /// Starts consuming jobs of `kind`, at most `concurrency` unsettled of each lane. Intake begins open.
    pub fn consume(&self, kind: Kind, concurrency: usize) -> Consumer {
        match self {
            Self::Rabbit(queue) => Consumer::Rabbit(queue.consume(kind, concurrency)),
            Self::Sqlite(queue) => Consumer::Sqlite(queue.consume(kind, concurrency)),
        }
    }

    /// What producers sent for a kind that does not exist. Once, and before the first [`Self::consume`].
    pub fn unknown_kinds(&self) -> UnknownKinds {
        match self {
            Self::Rabbit(queue) => UnknownKinds::Rabbit(queue.unknown_kinds()),
            Self::Sqlite(_) => UnknownKinds::Never,
        }
    }

    /// What it is called in traces.
    pub fn system(&self) -> &'static str {
        match self {
            Self::Rabbit(_) => "rabbitmq",
            Self::Sqlite(_) => "sqlite",
        }
    }

    /// First part of the name of every exchange and queue; the embedded one has the names it would have elsewhere.
    pub fn prefix(&self) -> &str {
        match self {
            Self::Rabbit(queue) => queue.prefix(),
            Self::Sqlite(_) => "genfleet",
        }
    }

    /// Replies go to queues of these names, beside those that the broker makes up for producers.
    pub fn allow_replies(&self, allowed: Vec<rabbit::ReplyTo>) {
        if let Self::Rabbit(queue) = self {
            queue.allow_replies(allowed);
        }
    }

    /// Makes `publications` durable. Waits while the broker is away.
    pub async fn publish(&self, publications: Vec<Publication>) -> Result<(), QueueError> {
        match self {
            Self::Rabbit(queue) => queue.publish(publications).await,
            Self::Sqlite(queue) => queue.publish(publications).await,
        }
    }

    /// How it is now.
    pub fn health(&self) -> Health {
        match self {
            Self::Rabbit(queue) => queue.health(),
            Self::Sqlite(queue) => queue.health(),
        }
    }

    /// Deliveries of `kind` that this process holds unsettled: their jobs run, or wait for anything, or were not taken yet.
    pub fn unsettled(&self, kind: Kind) -> u32 {
        match self {
            Self::Rabbit(queue) => queue.unsettled(kind),
            Self::Sqlite(queue) => queue.unsettled(kind),
        }
    }

    /// Tells why the queue can no longer be used; waits for ever while it can.
    pub async fn failed(&self) -> String {
        match self {
            Self::Rabbit(queue) => queue.failed().await,
            Self::Sqlite(queue) => queue.failed().await,
        }
    }

    /// Whether deliveries came back within the last `time` because a session was lost, not because a process died.
    pub fn lost_session_within(&self, time: Duration) -> bool {
        match self {
            Self::Rabbit(queue) => queue.lost_session_within(time),
            Self::Sqlite(_) => false,
        }
    }

    /// Ends all sessions; unsettled deliveries go back to the queue.
    pub async fn close(&self) {
        match self {
            Self::Rabbit(queue) => queue.close().await,
            Self::Sqlite(queue) => queue.close().await,
        }
    }
}

/// The deliveries of one kind.
#[derive(Debug)]
pub enum Consumer {
    /// From `RabbitMQ`.
    Rabbit(rabbit::Consumer),
    /// From the embedded queue.
    Sqlite(sqlite::Consumer),
}

impl Consumer {
    /// The next new or begun job; while both wait, at least every second is a begun one. Waits for one,
    /// through any number of sessions. Cancel-safe.
    pub async fn next(&mut self) -> Delivery {
        match self {
            Self::Rabbit(consumer) => consumer.next().await,
            Self::Sqlite(consumer) => consumer.next().await,
        }
    }

    /// The suspects, worked apart from the rest: one unsettled at a time, on a channel of their own. Once.
    pub fn suspects(&mut self) -> Suspects {
        match self {
            Self::Rabbit(consumer) => Suspects::Rabbit(consumer.suspects()),
            Self::Sqlite(consumer) => Suspects::Sqlite(consumer.suspects()),
        }
    }

    /// Takes no more; what was handed over already but not taken by [`Self::next`] is returned, for the worker
    /// to delay or to give back. Deliveries taken by `next` are not touched.
    pub async fn close_intake(&mut self) -> Vec<Delivery> {
        match self {
            Self::Rabbit(consumer) => consumer.close_intake().await,
            Self::Sqlite(consumer) => consumer.close_intake().await,
        }
    }

    /// Takes jobs again.
    pub async fn open_intake(&mut self) {
        match self {
            Self::Rabbit(consumer) => consumer.open_intake().await,
            Self::Sqlite(consumer) => consumer.open_intake().await,
        }
    }

    /// One waiting job, while the intake is closed: for a probe. `None` where none waits or the broker is away.
    pub async fn take_one(&mut self) -> Option<Delivery> {
        match self {
            Self::Rabbit(consumer) => consumer.take_one().await,
            Self::Sqlite(consumer) => consumer.take_one().await,
        }
    }
}

/// What producers sent for a kind that does not exist.
#[derive(Debug)]
pub enum UnknownKinds {
    /// On `RabbitMQ`.
    Rabbit(rabbit::UnknownKinds),
    /// The embedded queue takes no such thing.
    Never,
}

impl UnknownKinds {
    /// The next one; waits for it, through any number of sessions. Cancel-safe.
    pub async fn next(&mut self) -> UnknownKindMessage {
        match self {
            Self::Rabbit(unknown_kinds) => unknown_kinds.next().await,
            Self::Never => std::future::pending().await,
        }
    }
}

/// The suspects of one kind.
#[derive(Debug)]
pub enum Suspects {
    /// From `RabbitMQ`.
    Rabbit(rabbit::Suspects),
    /// From the embedded queue.
    Sqlite(sqlite::Suspects),
}

impl Suspects {
    /// The next suspect; waits for one. Cancel-safe.
    pub async fn next(&mut self) -> Delivery {
        match self {
            Self::Rabbit(suspects) => suspects.next().await,
            Self::Sqlite(suspects) => suspects.next().await,
        }
    }
}
