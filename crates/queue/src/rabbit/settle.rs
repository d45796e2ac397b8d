//! The right to settle one delivery: publications first, all of them confirmed, then the acknowledgement.
//!
//! An acknowledgement counts only in the session that the delivery came by. Where the loss of that session leaves open
//! whether it reached the broker, [`super::recent`] recognises the message when it comes again.

use std::{fmt, sync::Arc};

use futures_util::future::{BoxFuture, FutureExt};
use lapin::{Acker, message::Delivery};
use tokio::{runtime::Handle, time::Instant};
use tokio_util::task::TaskTracker;

use super::{
    acknowledge::Acknowledger,
    flow::LaneFlow,
    publisher::Publisher,
    recent::{Recent, RecentDelivery},
};
use crate::message::{Publication, QueueError, Settle, Settled};
use genfleet_job::{lease::Lease, metric};

/// Everything that a settlement needs except its session: the publisher, the recent settlements, and a runtime.
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
    acknowledger: Arc<Acknowledger>,
    flow: Arc<LaneFlow>,
    lease: Option<Lease>,
    recent: RecentDelivery,
    tag: u64,
    /// Knows whether the channel is still good. Taken by whoever settles.
    acker: Option<Acker>,
}

impl RabbitSettler {
    /// The right to settle `delivery`, which has just come by the channel of `acknowledger`.
    pub(super) fn new(
        settlements: &Arc<Settlements>,
        acknowledger: &Arc<Acknowledger>,
        flow: &Arc<LaneFlow>,
        delivery: &Delivery,
        recent: RecentDelivery,
    ) -> Self {
        flow.take();
        acknowledger.came(delivery.delivery_tag);
        let (settlements, acknowledger, flow) = (settlements.clone(), acknowledger.clone(), flow.clone());
        let (tag, acker) = (delivery.delivery_tag, Some(delivery.acker.clone()));
        Self { settlements, acknowledger, flow, lease: None, recent, tag, acker }
    }

    /// The delivery came under this lease.
    pub(super) fn under(mut self, lease: Option<&Lease>) -> Self {
        self.lease = lease.cloned();
        self
    }

    pub(super) fn is_stale(&self) -> bool {
        self.acknowledger.session.is_over() || self.acker.as_ref().is_none_or(Acker::poisoned)
    }

    /// Returns true if all that follows from this message is durable already, and only its acknowledgement was lost.
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
        let may_tell = self.may_tell();
        let Settlements { tasks, runtime, .. } = &*self.settlements;
        if may_tell && self.acknowledger.acknowledge(self.tag, tasks, runtime).await {
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
        let rejected = self.may_tell() && self.acknowledger.reject(self.tag, false).await;
        Ok(if rejected { Settled::Acknowledged } else { Settled::Stale })
    }

    /// Takes the right to tell the broker, which is void once the session is over.
    fn may_tell(&mut self) -> bool {
        let is_stale = self.is_stale();
        self.acker.take().is_some() && !is_stale
    }
}

impl Settle for RabbitSettler {
    fn is_stale(&self) -> bool {
        Self::is_stale(self)
    }

    fn lost(&self) -> BoxFuture<'_, ()> {
        self.acknowledger.session.ended().map(drop).boxed()
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
            if self.acker.take().is_some() {
                self.settlements.recent.given_back(&self.recent, Instant::now());
                self.acknowledger.reject(self.tag, true).await;
            }
        }
        .boxed()
    }
}

impl Drop for RabbitSettler {
    fn drop(&mut self) {
        self.flow.release();
        if self.acker.take().is_none() {
            return;
        }
        self.settlements.recent.given_back(&self.recent, Instant::now());
        if !self.acknowledger.session.is_over() {
            let (acknowledger, tag) = (self.acknowledger.clone(), self.tag);
            self.settlements.spawn(async move {
                acknowledger.reject(tag, true).await;
            });
        }
    }
}

impl fmt::Debug for RabbitSettler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitSettler").field("stale", &self.is_stale()).finish_non_exhaustive()
    }
}
