//! The right to settle one delivery: publications first, all of them confirmed, then the acknowledgement.
//! Whether the acknowledgement still counts is known by the session the delivery came by; where its loss leaves that
//! open, [`super::recent`] knows the message when it comes again.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use lapin::{
    Acker,
    options::{BasicAckOptions, BasicNackOptions},
};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use super::{
    Shared,
    connect::describe,
    recent::RecentDelivery,
    session::{Session, SessionError},
};
use crate as queue;
use crate::{Publication, QueueError, Settled, unsettled::UnsettledCounts};
use genfleet_job::{Kind, lease::Lease, metric};

/// lapin resolves an acknowledgement when it is written; one that is not by then never will be.
const WRITTEN: Duration = Duration::from_secs(10);

/// What one lane of one kind has seen in one session: the watchdog reads it, and the suspects take turns by it.
#[derive(Debug, Default)]
pub(super) struct LaneFlow {
    delivered: AtomicU64,
    unsettled: watch::Sender<usize>,
    /// Where jobs that are held are counted, as what.
    counts: Option<(UnsettledCounts, Kind)>,
    /// Whether the session is over. Changed and read while `unsettled` is locked.
    over: AtomicBool,
}

impl LaneFlow {
    pub(super) fn new(counts: UnsettledCounts, kind: Kind) -> Self {
        Self { counts: Some((counts, kind)), ..Self::default() }
    }

    fn take(&self) {
        self.delivered.fetch_add(1, Ordering::AcqRel);
        self.unsettled.send_modify(|unsettled| {
            *unsettled += 1;
            if let Some((counts, kind)) = self.counts.as_ref().filter(|_| !self.over.load(Ordering::Acquire)) {
                counts.add(*kind);
            }
        });
    }

    fn release(&self) {
        self.unsettled.send_modify(|unsettled| {
            *unsettled -= 1;
            if let Some((counts, kind)) = self.counts.as_ref().filter(|_| !self.over.load(Ordering::Acquire)) {
                counts.remove(*kind, 1);
            }
        });
    }

    /// The session is over: the broker has what is unsettled.
    pub(super) fn end(&self) {
        self.unsettled.send_if_modified(|unsettled| {
            if let Some((counts, kind)) = self.counts.as_ref().filter(|_| !self.over.swap(true, Ordering::AcqRel)) {
                counts.remove(*kind, *unsettled);
            }
            false
        });
    }

    pub(super) fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Acquire)
    }

    pub(super) fn unsettled(&self) -> usize {
        *self.unsettled.borrow()
    }

    /// Waits until nothing is unsettled.
    pub(super) async fn idle(&self) {
        // An error cannot be: the sender is this.
        let _ = self.unsettled.subscribe().wait_for(|unsettled| *unsettled == 0).await;
    }
}

/// The right to settle one delivery, once. Dropped unused it gives the message back, so that a panic keeps no
/// place in the prefetch.
pub struct RabbitSettler {
    shared: Arc<Shared>,
    session: Session,
    flow: Arc<LaneFlow>,
    lease: Option<Lease>,
    recent: RecentDelivery,
    /// Taken by the one that settles.
    acker: Option<Acker>,
}

impl RabbitSettler {
    /// For a delivery that just came.
    pub(super) fn new(
        shared: &Arc<Shared>,
        session: &Session,
        flow: &Arc<LaneFlow>,
        (recent, acker): (RecentDelivery, Acker),
    ) -> Self {
        flow.take();
        let (shared, session, flow) = (shared.clone(), session.clone(), flow.clone());
        Self { shared, session, flow, lease: None, recent, acker: Some(acker) }
    }

    /// It came while this process alone works its kind.
    pub(super) fn within(mut self, lease: Option<&Lease>) -> Self {
        self.lease = lease.cloned();
        self
    }

    /// See [`crate::Settler::lease`].
    pub fn lease(&self) -> Option<Lease> {
        self.lease.clone()
    }

    /// See [`crate::Settler::is_stale`].
    pub fn is_stale(&self) -> bool {
        self.session.is_over() || self.acker.as_ref().is_none_or(Acker::poisoned)
    }

    /// Whether all that follows from this message is durable already, and only its acknowledgement was lost.
    pub(super) fn was_settled(&self) -> bool {
        self.shared.recent.was_settled(&self.recent, Instant::now())
    }

    /// Acknowledges in the background; nothing is published.
    pub(super) fn acknowledge_in_background(self) {
        let shared = self.shared.clone();
        shared.spawn(async move { drop(self.settle(Vec::new()).await) });
    }

    /// See [`crate::Settler::lost`].
    pub async fn lost(&self) {
        self.session.ended().await;
    }

    /// See [`crate::Settler::settle`].
    pub async fn settle(mut self, publications: Vec<Publication>) -> Result<Settled, QueueError> {
        if let Err(error) = self.shared.publisher.publish(publications).await {
            return Err(match error {
                QueueError::TooLarge { size, .. } => {
                    QueueError::TooLarge { size, settler: Some(Box::new(queue::Settler::Rabbit(self))) }
                }
                error => error,
            });
        }
        self.shared.recent.settled(&self.recent, Instant::now());
        let settled = match self.acker.take() {
            Some(acker) => self.acknowledge(&acker).await,
            None => false,
        };
        if settled {
            return Ok(Settled::Acknowledged);
        }
        self.shared.recent.unacknowledged(&self.recent);
        metrics::counter!(metric::STALE_ACKS).increment(1);
        Ok(Settled::Stale)
    }

    /// See [`crate::Settler::leave_to_broker`]. Should that be lost, the message comes again, and is judged again:
    /// it has not gone on elsewhere.
    pub async fn leave_to_broker(mut self, publications: Vec<Publication>) -> Result<Settled, QueueError> {
        self.shared.publisher.publish(publications).await?;
        self.shared.recent.given_back(&self.recent, Instant::now());
        let Some(acker) = self.acker.take().filter(|_| !self.session.is_over()) else { return Ok(Settled::Stale) };
        let reject = BasicNackOptions { requeue: false, multiple: false };
        let left = written(acker.nack(reject), &self.session).await;
        Ok(if left { Settled::Acknowledged } else { Settled::Stale })
    }

    /// See [`crate::Settler::give_back`].
    pub async fn give_back(mut self) {
        if let Some(acker) = self.acker.take() {
            self.shared.recent.given_back(&self.recent, Instant::now());
            give_back(&acker, &self.session).await;
        }
    }

    async fn acknowledge(&self, acker: &Acker) -> bool {
        if self.session.is_over() {
            return false;
        }
        written(acker.ack(BasicAckOptions::default()), &self.session).await
    }
}

async fn give_back(acker: &Acker, session: &Session) {
    if !session.is_over() {
        let requeue = BasicNackOptions { requeue: true, multiple: false };
        written(acker.nack(requeue), session).await;
    }
}

/// Whether the broker was told. A fault here is one of the session: its fate is unknown, so it ends.
async fn written(telling: impl Future<Output = lapin::Result<bool>>, session: &Session) -> bool {
    let fault: SessionError = match timeout(WRITTEN, telling).await {
        Ok(Ok(told)) => return told,
        Ok(Err(error)) => describe(&error),
        Err(_) => format!("an acknowledgement was not written within {WRITTEN:?}"),
    };
    session.end(fault);
    false
}

impl Drop for RabbitSettler {
    fn drop(&mut self) {
        self.flow.release();
        let Some(acker) = self.acker.take() else { return };
        self.shared.recent.given_back(&self.recent, Instant::now());
        if !self.session.is_over() {
            let session = self.session.clone();
            self.shared.spawn(async move { give_back(&acker, &session).await });
        }
    }
}

impl fmt::Debug for RabbitSettler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitSettler").field("stale", &self.is_stale()).finish_non_exhaustive()
    }
}
