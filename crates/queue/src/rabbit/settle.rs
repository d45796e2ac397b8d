//! The right to settle one delivery: publications first, all of them confirmed, then the acknowledgement.
//!
//! An acknowledgement counts only in the session that the delivery came by. Where the loss of that session leaves open
//! whether it reached the broker, [`super::recent`] recognises the message when it comes again.

use std::{fmt, sync::Arc, time::Duration};

use futures_util::future::{BoxFuture, FutureExt};
use lapin::{
    Acker,
    options::{BasicAckOptions, BasicNackOptions},
};
use tokio::{
    runtime::Handle,
    time::{Instant, timeout},
};
use tokio_util::task::TaskTracker;

use super::{
    error::describe,
    flow::LaneFlow,
    link::{Session, SessionError},
    publisher::Publisher,
    recent::{Recent, RecentDelivery},
};
use crate::message::{Publication, QueueError, Settle, Settled};
use genfleet_job::{lease::Lease, metric};

/// lapin resolves an acknowledgement when it is written; one that is not by then never will be.
const WRITTEN: Duration = Duration::from_secs(10);

/// What settlements need beside their session: where they publish, what was settled lately, and a runtime.
pub(super) struct Settlements {
    pub(super) publisher: Publisher,
    pub(super) recent: Recent,
    pub(super) tasks: TaskTracker,
    pub(super) runtime: Handle,
}

impl Settlements {
    /// Runs `task`, which the queue waits for when it closes. From any thread.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_on(task, &self.runtime);
    }
}

/// The right to settle one delivery. Dropped unused it gives the message back, so that a panic keeps no place in the
/// prefetch.
pub(super) struct RabbitSettler {
    settlements: Arc<Settlements>,
    session: Session,
    flow: Arc<LaneFlow>,
    lease: Option<Lease>,
    recent: RecentDelivery,
    /// Taken by whoever settles.
    acker: Option<Acker>,
}

impl RabbitSettler {
    pub(super) fn new(
        settlements: &Arc<Settlements>,
        session: &Session,
        flow: &Arc<LaneFlow>,
        (recent, acker): (RecentDelivery, Acker),
    ) -> Self {
        flow.take();
        let (settlements, session, flow) = (settlements.clone(), session.clone(), flow.clone());
        Self { settlements, session, flow, lease: None, recent, acker: Some(acker) }
    }

    /// The delivery came under this lease.
    pub(super) fn under(mut self, lease: Option<&Lease>) -> Self {
        self.lease = lease.cloned();
        self
    }

    pub(super) fn is_stale(&self) -> bool {
        self.session.is_over() || self.acker.as_ref().is_none_or(Acker::poisoned)
    }

    /// Returns true where all that follows from this message is durable already, and only its acknowledgement was lost.
    pub(super) fn was_settled(&self) -> bool {
        self.settlements.recent.was_settled(&self.recent, Instant::now())
    }

    /// Acknowledges in the background; nothing is published.
    pub(super) fn acknowledge_in_background(self) {
        let settlements = self.settlements.clone();
        settlements.spawn(async move { drop(self.settle(Vec::new()).await) });
    }

    async fn settle(mut self, publications: Vec<Publication>) -> Result<Settled, QueueError> {
        if let Err(error) = self.settlements.publisher.publish(publications).await {
            return Err(match error {
                QueueError::TooLarge { size, .. } => QueueError::TooLarge { size, settler: Some(Box::new(self)) },
                error => error,
            });
        }
        self.settlements.recent.settled(&self.recent, Instant::now());
        if let Some(acker) = self.take_acker()
            && written(acker.ack(BasicAckOptions::default()), &self.session).await
        {
            return Ok(Settled::Acknowledged);
        }
        self.settlements.recent.unacknowledged(&self.recent);
        metrics::counter!(metric::STALE_ACKS).increment(1);
        Ok(Settled::Stale)
    }

    /// Where the rejection is lost, the message comes again and is judged again: it has not gone on elsewhere.
    async fn leave_to_broker(mut self, publications: Vec<Publication>) -> Result<Settled, QueueError> {
        self.settlements.publisher.publish(publications).await?;
        self.settlements.recent.given_back(&self.recent, Instant::now());
        let reject = BasicNackOptions { requeue: false, multiple: false };
        let Some(acker) = self.take_acker() else { return Ok(Settled::Stale) };
        let rejected = written(acker.nack(reject), &self.session).await;
        Ok(if rejected { Settled::Acknowledged } else { Settled::Stale })
    }

    /// Takes the right to tell the broker, which is void once the session is over.
    fn take_acker(&mut self) -> Option<Acker> {
        self.acker.take().filter(|_| !self.session.is_over())
    }
}

impl Settle for RabbitSettler {
    fn is_stale(&self) -> bool {
        Self::is_stale(self)
    }

    fn lost(&self) -> BoxFuture<'_, ()> {
        self.session.ended().map(drop).boxed()
    }

    fn lease(&self) -> Option<Lease> {
        self.lease.clone()
    }

    fn settle(self: Box<Self>, publications: Vec<Publication>) -> BoxFuture<'static, Result<Settled, QueueError>> {
        Self::settle(*self, publications).boxed()
    }

    fn leave_to_broker(
        self: Box<Self>,
        publications: Vec<Publication>,
    ) -> BoxFuture<'static, Result<Settled, QueueError>> {
        Self::leave_to_broker(*self, publications).boxed()
    }

    fn give_back(mut self: Box<Self>) -> BoxFuture<'static, ()> {
        async move {
            if let Some(acker) = self.acker.take() {
                self.settlements.recent.given_back(&self.recent, Instant::now());
                requeue(&acker, &self.session).await;
            }
        }
        .boxed()
    }
}

async fn requeue(acker: &Acker, session: &Session) {
    if !session.is_over() {
        let requeue = BasicNackOptions { requeue: true, multiple: false };
        written(acker.nack(requeue), session).await;
    }
}

/// Returns true once the broker was told. After a fault nobody knows whether it was, so the session ends.
async fn written(telling: impl Future<Output = lapin::Result<bool>>, session: &Session) -> bool {
    let fault: SessionError = match timeout(WRITTEN, telling).await {
        Ok(Ok(written)) => return written,
        Ok(Err(error)) => describe(error),
        Err(_) => format!("an acknowledgement was not written within {WRITTEN:?}"),
    };
    session.end(fault);
    false
}

impl Drop for RabbitSettler {
    fn drop(&mut self) {
        self.flow.release();
        let Some(acker) = self.acker.take() else { return };
        self.settlements.recent.given_back(&self.recent, Instant::now());
        if !self.session.is_over() {
            let session = self.session.clone();
            self.settlements.spawn(async move { requeue(&acker, &session).await });
        }
    }
}

impl fmt::Debug for RabbitSettler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitSettler").field("stale", &self.is_stale()).finish_non_exhaustive()
    }
}
