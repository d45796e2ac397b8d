//! The vocabulary of the queue: what goes into it ([`Publication`]), what comes out of it ([`Delivery`], [`Settler`]),
//! and what can go wrong ([`QueueError`]). Both backends speak it; it knows neither.
//!
//! What becomes of a job is decided by the worker.

use std::{collections::BTreeMap, fmt, time::Duration};

use futures_util::future::BoxFuture;
use rusqlite::ErrorCode;

use crate::defect::MessageDefect;
use genfleet_job::{
    Kind,
    lease::Lease,
    message::{Lane, Message},
};
use genfleet_telemetry::trace::Span;

/// The destination of a publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The exchange of new jobs (`genfleet.jobs`), with the kind as routing key.
    Jobs(Kind),
    /// A lane, at once or after a delay (rounded up to seconds on `RabbitMQ`).
    Lane {
        /// The kind of the job.
        kind: Kind,
        /// The lane.
        lane: Lane,
        /// The delay before the message becomes visible.
        after: Duration,
    },
    /// The events, with routing key `<kind>.<outcome>`.
    Event {
        /// `cdn.purge`, …, or `unknown` if the kind could not be read.
        kind: String,
        /// `succeeded`, `failed` or `expired`.
        outcome: &'static str,
    },
    /// A producer's reply queue. A reply that cannot be delivered is counted and is no failure. The embedded queue
    /// drops replies.
    Reply {
        /// The queue's name.
        queue: String,
    },
    /// The dead letters of a kind.
    Dead {
        /// `cdn.purge`, …, or `unknown` if the kind could not be read.
        kind: String,
    },
}

impl Destination {
    /// Returns the kind of a job that is published.
    pub(crate) fn kind(&self) -> Option<Kind> {
        match self {
            Self::Jobs(kind) | Self::Lane { kind, .. } => Some(*kind),
            Self::Event { .. } | Self::Reply { .. } | Self::Dead { .. } => None,
        }
    }
}

/// A message to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// Its destination.
    pub to: Destination,
    /// The message. Always persistent.
    pub message: Message,
}

/// A message handed to this process and not yet settled: it is delivered again if the process dies.
#[derive(Debug)]
pub struct Delivery {
    /// The message.
    pub message: Message,
    /// The lane that it came from.
    pub lane: Lane,
    /// Number of earlier returns to the queue, for any reason (`x-delivery-count`): a hint, no proof.
    pub delivery_count: u32,
    /// It was delivered before, to this process or another.
    pub redelivered: bool,
    /// Defect of its properties, which makes it undecodable whatever its body says.
    pub defect: Option<MessageDefect>,
    /// The right to settle it.
    pub settler: Settler,
    /// The span of its processing, set by the worker.
    pub span: Span,
}

impl Delivery {
    /// Returns true if the message was delivered before, or if a worker published it. A message that a producer has just
    /// sent is neither.
    pub fn is_repeated_or_internal(&self) -> bool {
        self.redelivered || self.lane != Lane::Jobs
    }
}

/// A copy of what a producer sent for a kind that does not exist. Settling it removes the copy only.
#[derive(Debug)]
pub struct UnknownKindMessage {
    /// The routing key that it was sent with.
    pub key: String,
    /// The message.
    pub message: Message,
    /// The right to settle the copy.
    pub settler: Settler,
}

/// The right to settle one delivery, once. Dropped unused, it gives the message back.
pub(crate) type Settler = Box<dyn Settle>;

/// The settlement of one delivery.
pub trait Settle: Send + Sync + fmt::Debug {
    /// Returns true once the session of this delivery is gone: it can no longer be acknowledged.
    fn is_stale(&self) -> bool;

    /// Waits until the session of this delivery is gone; for ever if there are no sessions.
    fn wait_until_lost(&self) -> BoxFuture<'_, ()>;

    /// The lease under which it was delivered, for an exclusive kind.
    fn lease(&self) -> Option<Lease>;

    /// Makes all of `publications` durable, then removes the message from the queue. On `RabbitMQ`: publishes, waits
    /// for all confirms but those of replies, acknowledges. Embedded: one transaction.
    ///
    /// Waits while the broker is away. [`QueueError::Closed`] when the process stops first: nothing is lost, the
    /// message is delivered again. [`QueueError::TooLarge`] returns the settler.
    fn settle(self: Box<Self>, publications: Vec<Publication>) -> BoxFuture<'static, Result<Settled, QueueError>>;

    /// Makes all of `publications` durable, then rejects the message, so that the broker itself dead-letters it,
    /// whatever its size. The embedded queue settles it, since it takes messages of any size.
    fn leave_to_broker(
        self: Box<Self>,
        publications: Vec<Publication>,
    ) -> BoxFuture<'static, Result<Settled, QueueError>>;

    /// Returns the message unchanged to its queue, at once visible to others; counts as a return.
    fn give_back(self: Box<Self>) -> BoxFuture<'static, ()>;
}

/// The result of a settlement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The message is removed from the queue, and its publications are durable.
    Acknowledged,
    /// The publications are durable, but the session of the delivery is gone: the message is, or will be, delivered
    /// again.
    Stale,
}

/// Part of every message that says that our user may not do something, or may not connect.
pub const ACCESS_REFUSED: &str = "access is refused";

/// The reason why the queue did not do what it was asked.
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
        /// The error of `SQLite`.
        source: rusqlite::Error,
    },
    /// A queue that has to exist is missing.
    #[error("{0}")]
    Missing(String),
    /// The broker refused something that waiting does not change.
    #[error("the broker: {0}")]
    Broker(String),
    /// The broker takes no message of this size.
    #[error("{size}")]
    TooLarge {
        /// The message's size and the broker's limit.
        size: TooLarge,
        /// The right to settle, if the message was to be published by a settlement.
        settler: Option<Settler>,
    },
}

impl QueueError {
    /// Returns true if a retry may succeed.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Broker(_) => true,
            Self::Store { source, .. } => is_transient_store_error(source),
            Self::Closed | Self::Configuration(_) | Self::Missing(_) | Self::TooLarge { .. } => false,
        }
    }
}

/// Returns true for errors that go away by themselves, or with an operator's help, without a restart.
pub(crate) fn is_transient_store_error(error: &rusqlite::Error) -> bool {
    use ErrorCode::{DatabaseBusy, DatabaseLocked, DiskFull, SystemIoFailure};
    matches!(error.sqlite_error_code(), Some(DatabaseBusy | DatabaseLocked | DiskFull | SystemIoFailure))
}

/// A message beyond the broker's `max_message_size`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge {
    /// Size of the message's body.
    pub bytes: usize,
    /// The broker's limit, if it said so.
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

/// The condition of the queue, for `/readyz` and the metrics.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Health {
    /// Reasons why the process is not ready, each a sentence; empty when all is well. Not all of them stop its intake.
    pub problems: Vec<String>,
    /// Problems of a process that is ready, each as a sentence.
    pub notes: Vec<String>,
    /// The broker takes no publications now (alarm): no job may start that would end in one.
    pub publishing_blocked: bool,
    /// Kinds that another process works exclusively (SPEC 6.1, lock), with the reason if nobody seems to work one.
    pub standing_by: BTreeMap<Kind, Option<String>>,
}
