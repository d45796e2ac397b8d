//! The number of unsettled deliveries that this process holds, for each kind. They may wait for their handler, for the
//! audit or for room. The queue counts them neither as waiting nor as done, so they are counted here.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use metrics::Gauge;

use genfleet_job::{Kind, metric};

/// The counts of one queue. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct UnsettledCounts(Arc<Mutex<BTreeMap<Kind, Count>>>);

/// The count of one kind, and the gauge that shows it.
#[derive(Debug)]
struct Count {
    held: u32,
    gauge: Gauge,
}

impl UnsettledCounts {
    /// Deliveries of `kind` that are held now.
    pub(super) fn of(&self, kind: Kind) -> u32 {
        self.counts().get(&kind).map(|count| count.held).unwrap_or_default()
    }

    /// Counts one more delivery of `kind`.
    pub(super) fn add(&self, kind: Kind) {
        self.change(kind, |count| count.saturating_add(1));
    }

    /// Counts `gone` deliveries of `kind` less.
    pub(super) fn remove(&self, kind: Kind, gone: usize) {
        let gone = u32::try_from(gone).unwrap_or(u32::MAX);
        self.change(kind, |count| count.saturating_sub(gone));
    }

    /// Counts one more delivery of `kind` until the guard is dropped.
    pub(super) fn hold(&self, kind: Kind) -> UnsettledGuard {
        self.add(kind);
        UnsettledGuard { counts: self.clone(), kind }
    }

    /// The gauge is set under the lock, so that no older count is written over a newer one.
    fn change(&self, kind: Kind, change: impl Fn(u32) -> u32) {
        let mut counts = self.counts();
        let gauge = || metrics::gauge!(metric::JOBS_HELD, "kind" => kind.as_str());
        let count = counts.entry(kind).or_insert_with(|| Count { held: 0, gauge: gauge() });
        count.held = change(count.held);
        count.gauge.set(f64::from(count.held));
    }

    fn counts(&self) -> MutexGuard<'_, BTreeMap<Kind, Count>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A guard that counts one delivery until it is dropped.
#[derive(Debug)]
pub(super) struct UnsettledGuard {
    counts: UnsettledCounts,
    kind: Kind,
}

impl Drop for UnsettledGuard {
    fn drop(&mut self) {
        self.counts.remove(self.kind, 1);
    }
}
