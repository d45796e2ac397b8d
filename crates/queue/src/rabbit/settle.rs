//! Settles a delivery: first the publications, until all are confirmed, and then the acknowledgement.
//!
//! An acknowledgement is valid only in the session of the delivery. If it is unknown whether it reached the broker
//! before the session was lost, [`super::recent`] recognises the message when it is redelivered.

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
    /// Runs `task`, from any thread. The queue waits for it when it closes.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_on(task, &self.runtime);
    }
}

/// The right to settle one delivery. If it is dropped unused, the message is requeued, so that a panic does not occupy
/// the prefetch.
pub(super) struct RabbitSettler {
    settlements: Arc<Settlements>,
    acknowledger: Arc<Acknowledger>,
    flow: Arc<LaneFlow>,
    lease: Option<Lease>,
    recent: RecentDelivery,
    tag: u64,
    /// Shows whether the channel is still usable. Taken by the settlement.
    acker: Option<Acker>,
}

impl RabbitSettler {
    /// Creates the right to settle `delivery`, which has just arrived on the channel of `acknowledger`.
    pub(super) fn new(
        settlements: &Arc<Settlements>,
        acknowledger: &Arc<Acknowledger>,
        flow: &Arc<LaneFlow>,
        delivery: &Delivery,
        recent: RecentDelivery,
    ) -> Self {
        flow.take();
        acknowledger.register(delivery.delivery_tag);
        let (settlements, acknowledger, flow) = (settlements.clone(), acknowledger.clone(), flow.clone());
        let (tag, acker) = (delivery.delivery_tag, Some(delivery.acker.clone()));
        Self { settlements, acknowledger, flow, lease: None, recent, tag, acker }
    }

    /// Sets the lease under which the delivery arrived.
    pub(super) fn with_lease(mut self, lease: Option<&Lease>) -> Self {
        self.lease = lease.cloned();
        self
    }

    pub(super) fn is_stale(&self) -> bool {
        self.acknowledger.session.is_over() || self.acker.as_ref().is_none_or(Acker::poisoned)
    }

    /// Returns true if the message was settled before, and only its acknowledgement was lost.
    pub(super) fn was_settled(&self) -> bool {
        self.settlements.recent.was_settled(&self.recent, Instant::now())
    }

    /// Acknowledges in the background, without publications.
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
        self.settlements.recent.record_settled(&self.recent, Instant::now());
        let may_settle = self.take_right();
        let Settlements { tasks, runtime, .. } = &*self.settlements;
        if may_settle && self.acknowledger.acknowledge(self.tag, tasks, runtime).await {
            return Ok(Settled::Acknowledged);
        }
        self.settlements.recent.record_unacknowledged(&self.recent);
        metrics::counter!(metric::STALE_ACKS).increment(1);
        Ok(Settled::Stale)
    }

    /// Rejects the delivery. If the rejection is lost, the message is redelivered and handled again; it was not
    /// published anywhere else.
    async fn leave_to_broker(mut self, publications: Vec<Publication>) -> Result<Settled, QueueError> {
        self.settlements.publisher.publish(publications).await?;
        self.settlements.recent.record_given_back(&self.recent, Instant::now());
        let rejected = self.take_right() && self.acknowledger.reject(self.tag, false).await;
        Ok(if rejected { Settled::Acknowledged } else { Settled::Stale })
    }

    /// Takes the right to acknowledge or reject, which ends with the session.
    fn take_right(&mut self) -> bool {
        let is_stale = self.is_stale();
        self.acker.take().is_some() && !is_stale
    }
}

impl Settle for RabbitSettler {
    fn is_stale(&self) -> bool {
        Self::is_stale(self)
    }

    fn wait_until_lost(&self) -> BoxFuture<'_, ()> {
        self.acknowledger.session.wait_until_ended().map(drop).boxed()
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
                self.settlements.recent.record_given_back(&self.recent, Instant::now());
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
        self.settlements.recent.record_given_back(&self.recent, Instant::now());
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
