//! The queue on `RabbitMQ` (SPEC 6.1): the handles a process holds of it.
//!
//! Two connections, one to consume and one to publish, each with a supervisor that builds sessions on it one
//! after the other ([`session`]); nothing of a session that failed is mended. A third, where there are replies
//! ([`replies`]), may fail as it likes. Does not decide what becomes of
//! a job, and knows the names of exchanges and queues only from [`super::topology`].

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::{Mutex, Notify, mpsc, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    connect::BrokerHosts,
    consume::{ConsumerConnection, DeliveryBuffer},
    health::{Board, Role},
    publish::{Publisher, PublisherConnection},
    session::{Work, supervise},
};
use super::{
    Delivery, Health, Publication, QueueError, UnknownKindMessage,
    topology::{Topology, topology},
    unsettled::UnsettledCounts,
};
use genfleet_job::{Kind, clock::SharedClock};

mod amqp_handshake;
mod browse;
mod certificates;
mod connect;
mod consume;
mod control;
mod convert;
mod counts;
mod dead_letters;
mod declare;
mod delays;
mod examine;
mod guard;
mod headers;
mod health;
mod inspect;
mod kind_consumer;
mod lock;
mod origin;
mod outgoing_message;
mod publish;
mod recent;
mod replies;
mod session;
mod settings;
mod settle;
mod size_limit;
mod socket;
#[cfg(test)]
mod tests;
mod topology_check;
mod unconfirmed;
mod unknown_kinds;

#[cfg(any(test, feature = "testing"))]
pub use self::recent::{Recent, RecentDelivery};
pub use self::{
    amqp_handshake::BrokerIdentity,
    control::ControlChannel,
    dead_letters::RabbitDeadLetters,
    examine::{BrokerExaminer, HostConnection, MessageAcceptance, TopologyComparison},
    inspect::{EventFollower, FollowedEvent, RabbitInspector},
    replies::{ReplyDropReason, names::ReplyTo},
    settings::{BrokerAddress, ClientIdentity, RabbitSettings, TopologyMode},
};
pub(crate) use self::{dead_letters::RabbitBrowser, settle::RabbitSettler, unknown_kinds::UnknownKinds};

/// How long [`RabbitQueue::close`] waits for the sessions to end.
const CLOSING: Duration = Duration::from_secs(10);

/// What all tasks of one queue share.
struct Shared {
    broker: BrokerHosts,
    prefix: String,
    topology: Topology,
    mode: TopologyMode,
    watchdog: Duration,
    board: Board,
    publisher: Publisher,
    recent: recent::Recent,
    unsettled: UnsettledCounts,
    buffers: watch::Sender<Vec<Arc<DeliveryBuffer>>>,
    /// Held while the topology is declared; whether it was told that some of it is of an earlier version.
    declaring: Mutex<bool>,
    /// A message proved that a binding is gone.
    unbound: Notify,
    closing: CancellationToken,
    tasks: TaskTracker,
    runtime: Handle,
    failure: watch::Sender<Option<String>>,
    /// Who answers what matches nothing, where somebody does.
    answering: OnceLock<mpsc::Sender<UnknownKindMessage>>,
}

/// The queue of one process on `RabbitMQ`. Clones are the same queue.
#[derive(Clone)]
pub struct RabbitQueue {
    shared: Arc<Shared>,
}

impl RabbitQueue {
    /// The queue, as soon as `settings` are found to make sense: the broker is dialled in the background and
    /// waited for, now and after every loss. Only what is used is connected: consuming with the first
    /// [`Self::consume`]. Must be called inside a tokio runtime.
    pub fn connect(settings: RabbitSettings, clock: SharedClock) -> Result<Self, QueueError> {
        let runtime = Handle::try_current().map_err(|error| QueueError::Configuration(error.to_string()))?;
        let broker = BrokerHosts::new(&settings)?;
        let (publisher, incoming) = Publisher::new(&settings.prefix);
        let shared = Arc::new(Shared {
            broker,
            topology: topology(&settings.prefix),
            prefix: settings.prefix,
            mode: settings.topology,
            watchdog: settings.watchdog,
            board: Board::new(clock),
            publisher,
            recent: recent::Recent::default(),
            unsettled: UnsettledCounts::default(),
            buffers: watch::Sender::new(Vec::new()),
            declaring: Mutex::new(false),
            unbound: Notify::new(),
            closing: CancellationToken::new(),
            tasks: TaskTracker::new(),
            runtime,
            failure: watch::Sender::new(None),
            answering: OnceLock::new(),
        });
        shared.board.needs(Role::Publish);
        shared.supervised(ConsumerConnection::new(&shared));
        shared.supervised(PublisherConnection::new(&shared, incoming.publications));
        shared.spawn(replies::send(shared.clone(), incoming.replies));
        Ok(Self { shared })
    }

    /// Consumes the jobs of `kind`, now and on every session to come: at most `concurrency` unsettled of new
    /// and as many of begun ones, and one suspect. Intake begins open.
    pub fn consume(&self, kind: Kind, concurrency: usize) -> Consumer {
        self.shared.board.needs(Role::Consume);
        let buffer = Arc::new(DeliveryBuffer::new(kind, concurrency));
        self.shared.buffers.send_modify(|buffers| buffers.push(buffer.clone()));
        Consumer { buffer }
    }

    /// What producers sent for a kind that does not exist, from the next session on. Once.
    pub fn unknown_kinds(&self) -> UnknownKinds {
        UnknownKinds::of(&self.shared.answering)
    }

    /// Returns once the broker has confirmed all of `publications`, through any number of sessions. Replies are not
    /// waited for.
    pub async fn publish(&self, publications: Vec<Publication>) -> Result<(), QueueError> {
        self.shared.publisher.publish(publications).await
    }

    /// See [`super::Queue::allow_replies`].
    pub fn allow_replies(&self, allowed: Vec<ReplyTo>) {
        self.shared.publisher.replies.allow(allowed);
    }

    /// See [`super::Queue::prefix`].
    pub fn prefix(&self) -> &str {
        &self.shared.prefix
    }

    /// How both connections are. The one to publish is a problem until it is there with the whole topology; the one to
    /// consume from the first [`Self::consume`] on.
    pub fn health(&self) -> Health {
        self.shared.board.health()
    }

    /// See [`super::Queue::held`].
    pub fn unsettled(&self, kind: Kind) -> u32 {
        self.shared.unsettled.of(kind)
    }

    /// See [`super::Queue::lost_session_within`].
    pub fn lost_session_within(&self, time: Duration) -> bool {
        self.shared.recent.lost_within(time, Instant::now())
    }

    /// Ends both sessions: what is unsettled goes back to its queue, what is unconfirmed gets a moment more.
    pub async fn close(&self) {
        self.shared.closing.cancel();
        self.shared.publisher.stop();
        self.shared.tasks.close();
        if tokio::time::timeout(CLOSING, self.shared.tasks.wait()).await.is_err() {
            tracing::warn!("the broker's sessions did not end within {CLOSING:?}");
        }
    }

    /// Why a supervisor ended without being asked to: the process cannot go on. Waits for that.
    pub async fn failed(&self) -> String {
        let mut failure = self.shared.failure.subscribe();
        match failure.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "the queue is gone".to_owned(),
        }
    }
}

impl Shared {
    /// Runs `work` under a supervisor of its own, and tells where that one ends unasked.
    fn supervised<W: Work + 'static>(self: &Arc<Self>, mut work: W) {
        let shared = self.clone();
        let supervisor = self.runtime.spawn(async move { supervise(&shared, &mut work).await });
        let shared = self.clone();
        self.tasks.spawn_on(
            async move {
                let outcome = supervisor.await;
                if !shared.closing.is_cancelled() {
                    let why = outcome.map_or_else(|error| error.to_string(), |()| "it returned".to_owned());
                    let reason = format!("the broker's {} supervisor ended: {why}", W::ROLE);
                    shared.failure.send_replace(Some(reason));
                }
            },
            &self.runtime,
        );
    }

    /// Runs `task`, waited for by [`RabbitQueue::close`]. From any thread.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_on(task, &self.runtime);
    }
}

impl fmt::Debug for RabbitQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitQueue").field("prefix", &self.shared.prefix).finish_non_exhaustive()
    }
}

/// The deliveries of one kind.
#[derive(Debug)]
pub struct Consumer {
    buffer: Arc<DeliveryBuffer>,
}

impl Consumer {
    /// See [`super::Consumer::next`].
    pub async fn next(&mut self) -> Delivery {
        self.buffer.next().await
    }

    /// See [`super::Consumer::suspects`].
    pub fn suspects(&mut self) -> Suspects {
        Suspects { buffer: self.buffer.clone() }
    }

    /// See [`super::Consumer::close_intake`]. A suspect not taken yet is among what is returned.
    pub async fn close_intake(&mut self) -> Vec<Delivery> {
        self.buffer.close().await
    }

    /// See [`super::Consumer::open_intake`].
    #[expect(clippy::unused_async, reason = "the embedded queue waits here")]
    pub async fn open_intake(&mut self) {
        self.buffer.open();
    }

    /// See [`super::Consumer::take_one`].
    pub async fn take_one(&mut self) -> Option<Delivery> {
        self.buffer.take_one().await
    }
}

/// The suspects of one kind.
#[derive(Debug)]
pub struct Suspects {
    buffer: Arc<DeliveryBuffer>,
}

impl Suspects {
    /// The next suspect; waits for one. Cancel-safe.
    pub async fn next(&mut self) -> Delivery {
        self.buffer.next_suspect().await
    }
}
