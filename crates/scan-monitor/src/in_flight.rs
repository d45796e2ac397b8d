//! The gauge `genfleet_scans_in_flight`: scans that this process ordered or polled without a verdict, and that are
//! expected to return. No decision depends on it.
//!
//! A scan waits in the queue, so another process may see its end. A scan that does not return in time is forgotten,
//! after 30 s plus three times the recent delay of returning scans. So the sum over a fleet is about the number of
//! scans in progress, somewhat more while many processes share them, and without those of a killed process. At most
//! [`MOST`] are counted, to limit memory.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use genfleet_core::metric;
use metrics::gauge;
use tokio::time::{Instant, sleep};

use crate::api::ScanId;

/// Maximum number of counted scans, which need about 2 MB.
pub(crate) const MOST: usize = 50_000;
/// Minimum time after which a scan that does not return is forgotten.
const GRACE: Duration = Duration::from_secs(30);
/// Interval of checking for scans that did not return.
const BETWEEN_LOOKS: Duration = Duration::from_secs(5);

/// The scans that are expected to return. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct InFlight {
    hasher: Arc<RandomState>,
    expected: Arc<Mutex<Expected>>,
}

/// The scans that are expected to return, with their times.
#[derive(Debug, Default)]
struct Expected {
    scans: HashMap<u64, Instant>,
    /// The recent average of the delay with which scans return.
    lateness: Duration,
}

impl InFlight {
    /// Records that a scan goes back to the queue for this time.
    pub(crate) fn record_departure(&self, scan: &ScanId, wait: Duration) {
        let name = self.name(scan);
        let mut expected = self.lock_expected();
        if expected.scans.len() < MOST {
            expected.scans.insert(name, Instant::now() + wait);
        }
        expected.show();
    }

    /// Records that a scan returned from the queue. It leaves again with [`record_departure`](Self::record_departure).
    pub(crate) fn record_return(&self, scan: &ScanId) {
        let name = self.name(scan);
        let mut expected = self.lock_expected();
        if let Some(at) = expected.scans.get(&name) {
            let late = at.elapsed();
            expected.lateness = (expected.lateness * 7 + late) / 8;
        }
    }

    /// Records that a scan has ended.
    pub(crate) fn record_end(&self, scan: &ScanId) {
        let name = self.name(scan);
        let mut expected = self.lock_expected();
        expected.scans.remove(&name);
        expected.show();
    }

    /// Forgets scans that did not return, at regular intervals. Never ends.
    pub(crate) async fn forget_lost(self) {
        loop {
            sleep(BETWEEN_LOOKS).await;
            let mut expected = self.lock_expected();
            let patience = GRACE + expected.lateness * 3;
            expected.scans.retain(|_, at| at.elapsed() < patience);
            if expected.scans.is_empty() {
                expected.scans = HashMap::new();
            }
            expected.show();
        }
    }

    fn name(&self, scan: &ScanId) -> u64 {
        self.hasher.hash_one(scan.as_str())
    }

    fn lock_expected(&self) -> MutexGuard<'_, Expected> {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Expected {
    fn show(&self) {
        #[expect(clippy::cast_precision_loss, reason = "a bounded number of scans")]
        gauge!(metric::SCANS_IN_FLIGHT).set(self.scans.len() as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(number: usize) -> ScanId {
        ScanId::try_from(format!("scan-{number}")).unwrap()
    }

    fn count(in_flight: &InFlight) -> usize {
        in_flight.lock_expected().scans.len()
    }

    #[tokio::test(start_paused = true)]
    async fn a_scan_counts_from_its_order_to_its_end() {
        let in_flight = InFlight::default();
        for number in 0..3 {
            in_flight.record_departure(&scan(number), Duration::from_secs(5));
        }
        in_flight.record_return(&scan(0));
        in_flight.record_departure(&scan(0), Duration::from_secs(5));
        in_flight.record_end(&scan(1));
        in_flight.record_end(&scan(7));
        assert_eq!(count(&in_flight), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_another_process_took_is_forgotten_and_one_that_waits_in_a_long_line_is_not() {
        let in_flight = InFlight::default();
        tokio::spawn(in_flight.clone().forget_lost());
        in_flight.record_departure(&scan(0), Duration::from_secs(5));
        sleep(Duration::from_secs(34)).await;
        assert_eq!(count(&in_flight), 1);
        sleep(Duration::from_secs(12)).await;
        assert_eq!(count(&in_flight), 0);

        // The line grows, and all come later and later.
        for round in 1..40_u64 {
            in_flight.record_departure(&scan(1), Duration::from_secs(5));
            sleep(Duration::from_secs(5 + round * 10)).await;
            assert_eq!(count(&in_flight), 1, "round {round}");
            in_flight.record_return(&scan(1));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_count_is_bounded() {
        let in_flight = InFlight::default();
        for number in 0..MOST + 10 {
            in_flight.record_departure(&scan(number), Duration::from_secs(5));
        }
        assert_eq!(count(&in_flight), MOST);
    }
}
