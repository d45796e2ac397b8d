//! What this process does, kind by kind: for the fleet, the tool and the page of the admin port. The metrics are told
//! apart from it; they are sums since the start, and nobody here reads them back.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::time::Instant;

use crate::membership::status::KindStatus;
use genfleet_job::{Kind, event::Outcome};

/// A rate is of so many whole seconds.
const SECONDS: usize = 60;

/// What a process does. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Doing(Arc<Mutex<BTreeMap<Kind, Each>>>);

/// A job is in a handler as long as this lives.
#[derive(Debug)]
#[must_use]
pub struct InHand {
    doing: Doing,
    kind: Kind,
}

#[derive(Debug, Default)]
struct Each {
    running: u32,
    ended: LastMinute,
    failed: LastMinute,
    oldest: Option<f64>,
}

impl Doing {
    /// This process works jobs of `kind`.
    pub fn works(&self, kind: Kind) {
        self.each().entry(kind).or_default();
    }

    /// A job of `kind` is handed to its handler.
    pub fn takes(&self, kind: Kind) -> InHand {
        self.each().entry(kind).or_default().running += 1;
        InHand { doing: self.clone(), kind }
    }

    /// A job of `kind` ended.
    pub fn ended(&self, kind: Kind, outcome: Outcome, now: Instant) {
        let mut all = self.each();
        let each = all.entry(kind).or_default();
        each.ended.add(now);
        if outcome == Outcome::Failed {
            each.failed.add(now);
        }
    }

    /// The job of `kind` that was delivered last had waited so many seconds.
    pub fn delivered(&self, kind: Kind, age: f64) {
        self.each().entry(kind).or_default().oldest = Some(age);
    }

    /// Has this process jobs in hand that call the API?
    pub fn calls_the_api(&self) -> bool {
        self.each().iter().any(|(kind, each)| !kind.is_internal() && each.running > 0)
    }

    /// All of it.
    pub fn told(&self, now: Instant) -> Vec<KindStatus> {
        let told = |(kind, each): (&Kind, &mut Each)| KindStatus {
            kind: kind.to_string(),
            standing_by: false,
            running: each.running,
            held: 0,
            ended_last_minute: each.ended.count(now),
            failed_last_minute: each.failed.count(now),
            oldest_seconds: each.oldest,
        };
        self.each().iter_mut().map(told).collect()
    }

    fn each(&self) -> MutexGuard<'_, BTreeMap<Kind, Each>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        if let Some(each) = self.doing.each().get_mut(&self.kind) {
            each.running = each.running.saturating_sub(1);
        }
    }
}

/// How often something happened in the last minute, to the second.
#[derive(Debug)]
struct LastMinute {
    seconds: [u32; SECONDS],
    began: Option<Instant>,
    /// The second, since it began, that was counted last.
    last: u64,
}

impl Default for LastMinute {
    fn default() -> Self {
        Self { seconds: [0; SECONDS], began: None, last: 0 }
    }
}

impl LastMinute {
    fn add(&mut self, now: Instant) {
        self.began.get_or_insert(now);
        self.turn(now);
        let second = &mut self.seconds[place(self.last)];
        *second = second.saturating_add(1);
    }

    fn count(&mut self, now: Instant) -> u32 {
        self.turn(now);
        self.seconds.iter().fold(0, |sum, second| sum.saturating_add(*second))
    }

    /// Forgets what is older than a minute.
    fn turn(&mut self, now: Instant) {
        let Some(began) = self.began else { return };
        let second = now.saturating_duration_since(began).as_secs();
        let stale = second.saturating_sub(self.last).min(SECONDS as u64);
        for passed in 1..=stale {
            self.seconds[place(second + 1 - passed)] = 0;
        }
        self.last = self.last.max(second);
    }
}

fn place(second: u64) -> usize {
    usize::try_from(second % SECONDS as u64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn what_ended_counts_for_a_minute() {
        let (doing, start) = (Doing::default(), Instant::now());
        for second in 0..200 {
            let outcome = if second % 10 == 0 { Outcome::Failed } else { Outcome::Succeeded };
            doing.ended(Kind::CdnPurge, outcome, start + seconds(second));
        }
        let told = |at| doing.told(start + seconds(at)).remove(0);
        assert_eq!((told(199).ended_last_minute, told(199).failed_last_minute), (60, 6));
        assert_eq!((told(229).ended_last_minute, told(229).failed_last_minute), (30, 3));
        assert_eq!(told(5000).ended_last_minute, 0);
    }

    #[test]
    fn a_job_is_in_hand_until_its_handler_is_done_and_webhooks_do_not_call_the_api() {
        let doing = Doing::default();
        doing.works(Kind::FileScan);
        let webhook = doing.takes(Kind::WebhookDeliver);
        assert!(!doing.calls_the_api());
        let scan = doing.takes(Kind::FileScan);
        assert!(doing.calls_the_api());
        drop((webhook, scan));
        assert!(!doing.calls_the_api());
        let told = doing.told(Instant::now());
        let kinds: Vec<_> = told.iter().map(|kind| (kind.kind.as_str(), kind.running)).collect();
        assert_eq!(kinds, [("file.scan", 0), ("webhook.deliver", 0)]);
    }
}
