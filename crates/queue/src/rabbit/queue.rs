//! The handles of a process for its queue on `RabbitMQ`.

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

use super::{
    buffer::DeliveryBuffer,
    connect::BrokerHosts,
    consume::ConsumerConnection,
    health::ConnectionHealth,
    link::{ConnectionRole, SessionWork},
    publish::PublisherConnection,
    publisher::Publisher,
    recent::Recent,
    replies::names::ReplyTo,
    reply_sender,
    session::supervise,
    settings::RabbitSettings,
    settle::Settlements,
    shared::Shared,
    unknown_kinds,
};
use crate::{
    message::{Health, Publication, QueueError, UnknownKindMessage},
    unsettled::UnsettledCounts,
};
use genfleet_job::{Kind, clock::SharedClock};

/// Maximum time for the sessions to end when the queue closes.
const CLOSING: Duration = Duration::from_secs(10);

/// The queue of one process on `RabbitMQ`. Clones share it.
#[derive(Clone)]
pub struct RabbitQueue {
    pub(super) shared: Arc<Shared>,
}

impl RabbitQueue {
    /// Checks `settings` and returns the queue. The connections are opened in the background, now and after every loss;
    /// the consuming one with the first [`Self::consume`]. Must be called inside a tokio runtime.
    pub fn connect(settings: RabbitSettings, clock: SharedClock) -> Result<Self, QueueError> {
        let runtime = Handle::try_current().map_err(|error| QueueError::Configuration(error.to_string()))?;
        let broker = BrokerHosts::new(&settings)?;
        let (publisher, incoming) = Publisher::new(&settings.prefix);
        let tasks = TaskTracker::new();
        let shared = Arc::new(Shared {
            broker,
            topology: settings.needed_topology(),
            prefix: settings.prefix,
            mode: settings.topology,
            watchdog: settings.watchdog,
            health: ConnectionHealth::new(clock),
            settlements: Arc::new(Settlements { publisher, recent: Recent::default(), tasks, runtime }),
            unsettled: UnsettledCounts::default(),
            buffers: watch::Sender::new(Vec::new()),
            declaring: Mutex::default(),
            unbound: Notify::new(),
            closing: CancellationToken::new(),
            failure: watch::Sender::new(None),
            unknown_kinds: OnceLock::new(),
        });
        shared.health.set_needed(ConnectionRole::Publish);
        spawn_supervised(&shared, ConsumerConnection::new(&shared));
        spawn_supervised(&shared, PublisherConnection::new(&shared, incoming.publications));
        shared.spawn(reply_sender::run(shared.clone(), incoming.replies));
        Ok(Self { shared })
    }

    /// Consumes the jobs of `kind`, now and in every later session: at most `concurrency` unsettled new jobs, as many
    /// started jobs, and one suspect.
    pub(crate) fn consume(&self, kind: Kind, concurrency: usize) -> Arc<DeliveryBuffer> {
        self.shared.health.set_needed(ConnectionRole::Consume);
        let buffer = Arc::new(DeliveryBuffer::new(kind, concurrency));
        self.shared.buffers.send_modify(|buffers| buffers.push(buffer.clone()));
        buffer
    }

    pub(crate) fn unknown_kinds(&self) -> mpsc::Receiver<UnknownKindMessage> {
        unknown_kinds::register(&self.shared.unknown_kinds)
    }

    pub(crate) async fn publish(&self, publications: Vec<Publication>) -> Result<(), QueueError> {
        self.shared.settlements.publisher.publish(publications).await
    }

    pub(crate) fn allow_replies(&self, allowed: Vec<ReplyTo>) {
        self.shared.settlements.publisher.replies.allow(allowed);
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.shared.prefix
    }

    pub(crate) fn health(&self) -> Health {
        let notes = self.shared.settlements.publisher.replies.problem().into_iter().collect();
        Health { notes, ..self.shared.health.health() }
    }

    pub(crate) fn count_unsettled(&self, kind: Kind) -> u32 {
        self.shared.unsettled.of(kind)
    }

    pub(crate) fn lost_session_within(&self, time: Duration) -> bool {
        self.shared.settlements.recent.lost_within(time, Instant::now())
    }

    /// Ends all sessions. Unsettled deliveries return to their queues; unconfirmed publications get a moment more.
    pub(crate) async fn close(&self) {
        let Settlements { publisher, tasks, .. } = &*self.shared.settlements;
        self.shared.closing.cancel();
        publisher.stop();
        tasks.close();
        if tokio::time::timeout(CLOSING, tasks.wait()).await.is_err() {
            tracing::warn!("the broker's sessions did not end within {CLOSING:?}");
        }
    }

    /// Waits until a supervisor ends on its own, and returns the reason. The process cannot continue after that.
    pub(crate) async fn wait_until_failed(&self) -> String {
        let mut failure = self.shared.failure.subscribe();
        match failure.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "the queue is gone".to_owned(),
        }
    }
}

/// Runs `work` under its own supervisor, and reports a supervisor that ends on its own.
fn spawn_supervised<W: SessionWork + 'static>(shared: &Arc<Shared>, mut work: W) {
    let task_shared = shared.clone();
    let runtime = &shared.settlements.runtime;
    let supervisor = runtime.spawn(async move { supervise(&task_shared, &mut work).await });
    let task_shared = shared.clone();
    shared.spawn(async move {
        let outcome = supervisor.await;
        if !task_shared.closing.is_cancelled() {
            let why = outcome.map_or_else(|error| error.to_string(), |()| "it returned".to_owned());
            let reason = format!("the broker's {} supervisor ended: {why}", W::ROLE);
            task_shared.failure.send_replace(Some(reason));
        }
    });
}

impl fmt::Debug for RabbitQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitQueue").field("prefix", &self.shared.prefix).finish_non_exhaustive()
    }
}
