//! Counts the deliveries of one session by lane, for the watchdog and to limit suspects to one at a time.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use tokio::sync::watch;

use crate::unsettled::UnsettledCounts;
use genfleet_job::{Kind, message::Lane};

/// Deliveries of one lane of a kind in one session.
#[derive(Debug, Default)]
pub(super) struct LaneFlow {
    delivered: AtomicU64,
    unsettled: watch::Sender<usize>,
    /// The process's counts, and the kind to count; `None` if jobs are not counted.
    counts: Option<(UnsettledCounts, Kind)>,
    /// True if the session is over. Changed and read while `unsettled` is locked.
    over: AtomicBool,
}

impl LaneFlow {
    fn new(counts: UnsettledCounts, kind: Kind) -> Self {
        Self { counts: Some((counts, kind)), ..Self::default() }
    }

    /// Counts a delivery.
    pub(super) fn take(&self) {
        self.delivered.fetch_add(1, Ordering::AcqRel);
        self.unsettled.send_modify(|unsettled| {
            *unsettled += 1;
            if let Some((counts, kind)) = self.open_counts() {
                counts.add(*kind);
            }
        });
    }

    /// Counts a settlement.
    pub(super) fn release(&self) {
        self.unsettled.send_modify(|unsettled| {
            *unsettled -= 1;
            if let Some((counts, kind)) = self.open_counts() {
                counts.remove(*kind, 1);
            }
        });
    }

    fn open_counts(&self) -> Option<&(UnsettledCounts, Kind)> {
        self.counts.as_ref().filter(|_| !self.over.load(Ordering::Acquire))
    }

    /// Ends the counts with the session: unsettled deliveries are in the queue again.
    fn end(&self) {
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
        // Cannot fail: the sender is in `self`.
        let _ = self.unsettled.subscribe().wait_for(|unsettled| *unsettled == 0).await;
    }
}

/// The lanes of a kind in one session.
#[derive(Debug)]
pub(super) struct KindFlows {
    jobs: Arc<LaneFlow>,
    resume: Arc<LaneFlow>,
    suspect: Arc<LaneFlow>,
}

impl KindFlows {
    pub(super) fn new(counts: &UnsettledCounts, kind: Kind) -> Self {
        let flow = || Arc::new(LaneFlow::new(counts.clone(), kind));
        Self { jobs: flow(), resume: flow(), suspect: flow() }
    }

    pub(super) fn of(&self, lane: Lane) -> &Arc<LaneFlow> {
        match lane {
            Lane::Jobs => &self.jobs,
            Lane::Resume => &self.resume,
            Lane::Suspect => &self.suspect,
        }
    }
}

impl Drop for KindFlows {
    fn drop(&mut self) {
        for flow in [&self.jobs, &self.resume, &self.suspect] {
            flow.end();
        }
    }
}
