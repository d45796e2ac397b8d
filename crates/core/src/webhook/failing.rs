//! Receivers that refuse deliveries, for the fleet, the tool and the page of the admin port. Decides nothing; that is
//! [`super::hosts`].

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::receiver::Receiver;
use crate::membership::status::{ReceiverStatus, millis};

/// Receivers without deliveries for this time are forgotten.
const LATELY: Duration = Duration::from_secs(3600);
/// The number of receivers that are reported: those with the most failures.
const REPORTED: usize = 8;
/// The highest number of receivers that are remembered.
const REMEMBERED: usize = 1024;

/// The receivers that refuse deliveries. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct FailingReceivers(Arc<Mutex<BTreeMap<String, Failing>>>);

#[derive(Clone, Debug)]
struct Failing {
    in_a_row: u32,
    since: Instant,
    last: Instant,
    why: String,
}

impl FailingReceivers {
    /// Records a success, or that no more deliveries are wanted. Returns true if the receiver had been failing.
    pub(super) fn note_success(&self, receiver: &Receiver) -> bool {
        self.lock().remove(&receiver.to_string()).is_some()
    }

    /// Records a failure. Returns true if it is the first in a row.
    pub(super) fn note_failure(&self, receiver: &Receiver, why: &str, now: Instant) -> bool {
        let mut all = self.lock();
        all.retain(|_, failing| now.saturating_duration_since(failing.last) < LATELY);
        let name = receiver.to_string();
        if all.len() >= REMEMBERED && !all.contains_key(&name) {
            return false;
        }
        let new = Failing { in_a_row: 0, since: now, last: now, why: String::new() };
        let failing = all.entry(name).or_insert(new);
        (failing.last, failing.why) = (now, why.to_owned());
        failing.in_a_row = failing.in_a_row.saturating_add(1);
        failing.in_a_row == 1
    }

    /// The failing receivers, those with the most failures first.
    pub(crate) fn status(&self, now: Instant) -> Vec<ReceiverStatus> {
        let all = self.lock();
        let lately = all.iter().filter(|(_, failing)| now.saturating_duration_since(failing.last) < LATELY);
        let mut reported: Vec<ReceiverStatus> = lately
            .map(|(receiver, failing)| ReceiverStatus {
                receiver: receiver.clone(),
                why: failing.why.clone(),
                in_a_row: failing.in_a_row,
                for_ms: millis(now.saturating_duration_since(failing.since)),
            })
            .collect();
        reported.sort_by_key(|status| std::cmp::Reverse(status.in_a_row));
        reported.truncate(REPORTED);
        reported
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Failing>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receiver(name: &str) -> Receiver {
        Receiver::parse(&format!("https://{name}/hush")).unwrap()
    }

    #[test]
    fn a_receiver_is_reported_from_its_first_failure_until_it_accepts_something_and_its_path_is_not() {
        let (failing, start) = (FailingReceivers::default(), Instant::now());
        assert!(failing.note_failure(&receiver("a.example"), "down", start));
        assert!(!failing.note_failure(&receiver("a.example"), "still down", start + Duration::from_secs(5)));
        let reported = ReceiverStatus {
            receiver: "https://a.example".to_owned(),
            why: "still down".to_owned(),
            in_a_row: 2,
            for_ms: 7_000,
        };
        assert_eq!(failing.status(start + Duration::from_secs(7)), [reported]);
        assert!(failing.note_success(&receiver("a.example")));
        assert!(!failing.note_success(&receiver("a.example")));
        assert_eq!(failing.status(start), []);
    }

    #[test]
    fn the_worst_are_told_of_and_what_was_long_ago_is_not() {
        let (failing, start) = (FailingReceivers::default(), Instant::now());
        for number in 0..20 {
            for _ in 0..=number {
                failing.note_failure(&receiver(&format!("r{number}.example")), "down", start);
            }
        }
        let reported: Vec<u32> = failing.status(start).iter().map(|news| news.in_a_row).collect();
        assert_eq!(reported, [20, 19, 18, 17, 16, 15, 14, 13]);
        assert_eq!(failing.status(start + LATELY), []);
    }
}
