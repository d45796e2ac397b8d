//! The activity of this process, kind by kind, for the other members, `genfleet status` and the page of the admin port;
//! and the gauges that show the same.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use tokio::time::Instant;

use crate::membership::status::KindStatus;
use genfleet_job::{
    Kind,
    event::Outcome,
    message::{Message, enqueued::QueueWait},
    metric,
};

/// Length of the window of a rate, in seconds.
const SECONDS: usize = 60;

/// Activity of all kinds of a process. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Activity(Arc<Mutex<BTreeMap<Kind, KindActivity>>>);

/// Counts a job as running until it is dropped.
#[derive(Debug)]
#[must_use]
pub(crate) struct RunningJob {
    activity: Activity,
    kind: Kind,
}

#[derive(Debug, Default)]
struct KindActivity {
    running: u32,
    ended: LastMinute,
    failed: LastMinute,
    oldest: Option<f64>,
}

impl Activity {
    /// Adds a kind that this process works.
    pub(crate) fn add(&self, kind: Kind) {
        self.each().entry(kind).or_default();
    }

    /// Counts a job of `kind` that is handed to its handler.
    pub(crate) fn start(&self, kind: Kind) -> RunningJob {
        self.each().entry(kind).or_default().running += 1;
        metrics::gauge!(metric::JOBS_IN_FLIGHT, "kind" => kind.as_str()).increment(1.0);
        RunningJob { activity: self.clone(), kind }
    }

    /// Counts a job of `kind` that ended.
    pub(crate) fn end(&self, kind: Kind, outcome: Outcome, now: Instant) {
        let mut all = self.each();
        let each = all.entry(kind).or_default();
        each.ended.add(now);
        if outcome == Outcome::Failed {
            each.failed.add(now);
        }
    }

    /// Notes how long the new job of `kind` that was delivered last has waited, where its message says when it was enqueued.
    pub(crate) fn note_age(&self, kind: Kind, message: &Message, not_before: Option<Timestamp>, now: Timestamp) {
        if let Some(age) = message.queue_wait(not_before, now).map(QueueWait::seconds) {
            metrics::gauge!(metric::OLDEST_JOB_AGE, "kind" => kind.as_str()).set(age);
            self.each().entry(kind).or_default().oldest = Some(age);
        }
    }

    /// Returns true while jobs run that call the API.
    pub(crate) fn calls_the_api(&self) -> bool {
        self.each().iter().any(|(kind, each)| !kind.is_internal() && each.running > 0)
    }

    /// Reports every kind.
    pub(crate) fn status(&self, now: Instant) -> Vec<KindStatus> {
        let status = |(kind, each): (&Kind, &mut KindActivity)| KindStatus {
            kind: kind.to_string(),
            standing_by: false,
            running: each.running,
            held: 0,
            ended_last_minute: each.ended.count(now),
            failed_last_minute: each.failed.count(now),
            oldest_seconds: each.oldest,
        };
        self.each().iter_mut().map(status).collect()
    }

    fn each(&self) -> MutexGuard<'_, BTreeMap<Kind, KindActivity>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for RunningJob {
    fn drop(&mut self) {
        metrics::gauge!(metric::JOBS_IN_FLIGHT, "kind" => self.kind.as_str()).decrement(1.0);
        if let Some(each) = self.activity.each().get_mut(&self.kind) {
            each.running = each.running.saturating_sub(1);
        }
    }
}

/// Number of events in the last minute, to the second.
#[derive(Debug)]
struct LastMinute {
    seconds: [u32; SECONDS],
    began: Option<Instant>,
    /// Last second that was counted, since `began`.
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
        self.advance(now);
        let second = &mut self.seconds[slot(self.last)];
        *second = second.saturating_add(1);
    }

    fn count(&mut self, now: Instant) -> u32 {
        self.advance(now);
        self.seconds.iter().fold(0, |sum, second| sum.saturating_add(*second))
    }

    /// Forgets what is older than a minute.
    fn advance(&mut self, now: Instant) {
        let Some(began) = self.began else { return };
        let second = now.saturating_duration_since(began).as_secs();
        let stale = second.saturating_sub(self.last).min(SECONDS as u64);
        for passed in 1..=stale {
            self.seconds[slot(second + 1 - passed)] = 0;
        }
        self.last = self.last.max(second);
    }
}

fn slot(second: u64) -> usize {
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
        let (activity, start) = (Activity::default(), Instant::now());
        for second in 0..200 {
            let outcome = if second % 10 == 0 { Outcome::Failed } else { Outcome::Succeeded };
            activity.end(Kind::CdnPurge, outcome, start + seconds(second));
        }
        let status = |at| activity.status(start + seconds(at)).remove(0);
        assert_eq!((status(199).ended_last_minute, status(199).failed_last_minute), (60, 6));
        assert_eq!((status(229).ended_last_minute, status(229).failed_last_minute), (30, 3));
        assert_eq!(status(5000).ended_last_minute, 0);
    }

    #[test]
    fn a_job_is_running_until_its_handler_is_done_and_webhooks_do_not_call_the_api() {
        let activity = Activity::default();
        activity.add(Kind::FileScan);
        let webhook = activity.start(Kind::WebhookDeliver);
        assert!(!activity.calls_the_api());
        let scan = activity.start(Kind::FileScan);
        assert!(activity.calls_the_api());
        drop((webhook, scan));
        assert!(!activity.calls_the_api());
        let status = activity.status(Instant::now());
        let kinds: Vec<_> = status.iter().map(|kind| (kind.kind.as_str(), kind.running)).collect();
        assert_eq!(kinds, [("file.scan", 0), ("webhook.deliver", 0)]);
    }
}
