//! The state of each job of a run: when it was published, whether the queue has confirmed it, how it ended. Needs a few
//! dozen bytes a job.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;
use uuid::Uuid;

use super::percentiles::Percentiles;

/// The members of an event that the ledger needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    /// The job's id: `load-<run>-<number>`.
    pub subject: String,
    /// The event's id.
    pub id: Uuid,
    /// `succeeded`, `failed` or `expired`.
    pub outcome: String,
    /// The error code of a job that did not succeed.
    pub code: Option<String>,
    /// Number of API requests for the job.
    pub requests: u64,
    /// Time from first start to end, in milliseconds.
    pub ran: Option<u32>,
    /// Time from publication to first start, in milliseconds.
    pub queued: Option<u32>,
    /// True if `queued` may be up to a second too long.
    pub is_rough: bool,
}

/// The state of a job.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// Time of publication, in milliseconds since the start of the run.
    sent: Option<u32>,
    confirmed: bool,
    event: Option<Uuid>,
    /// True if the event was read from past events. If it also arrives as a new event, it is not a duplicate.
    found: bool,
    took: u32,
    ran: Option<u32>,
    queued: Option<u32>,
}

/// Sums over the jobs of a run.
#[derive(Clone, Debug, Default)]
pub(super) struct Totals {
    /// Jobs passed to the queue.
    pub sent: u32,
    /// Jobs that the queue has confirmed.
    pub confirmed: u32,
    /// Jobs with an event.
    pub ended: u32,
    /// Number of jobs with each outcome.
    pub outcomes: BTreeMap<String, u32>,
    /// Number of jobs with each error code.
    pub codes: BTreeMap<String, u32>,
    /// Events that arrived more than once.
    pub duplicates: u32,
    /// Events that differ from an earlier event of the same job.
    pub contradictions: u32,
    /// API requests, as the events report them.
    pub requests: u64,
    /// True if the times from publication to first start may be up to a second too long.
    pub is_rough: bool,
}

/// All jobs of a run.
#[derive(Debug)]
pub(super) struct Ledger {
    prefix: String,
    started: Instant,
    entries: Vec<Entry>,
    planned: u32,
    /// Number of published jobs, after the last one was published.
    all_sent: Option<u32>,
    /// The sums over all jobs.
    pub totals: Totals,
    last_sent: Option<Instant>,
    last_confirmed: Option<Instant>,
    last_event: Option<Instant>,
    last_progress: Instant,
}

/// Returns the id of job `number` of a run.
pub(super) fn job_id(run: &str, number: u32) -> String {
    format!("{}{number}", prefix(run))
}

fn prefix(run: &str) -> String {
    format!("load-{run}-")
}

/// Returns true if an event with this subject belongs to the run.
pub(super) fn is_of(run: &str, subject: &str) -> bool {
    subject.starts_with(&prefix(run))
}

impl Ledger {
    /// Creates a ledger for at most `planned` jobs.
    pub(super) fn new(planned: u32, run: &str) -> Self {
        let now = Instant::now();
        Self {
            prefix: prefix(run),
            started: now,
            entries: Vec::new(),
            planned,
            all_sent: None,
            totals: Totals::default(),
            last_sent: None,
            last_confirmed: None,
            last_event: None,
            last_progress: now,
        }
    }

    fn since_start(&self, at: Instant) -> u32 {
        u32::try_from(at.saturating_duration_since(self.started).as_millis()).unwrap_or(u32::MAX)
    }

    fn entry(&mut self, number: u32) -> Option<&mut Entry> {
        let place = usize::try_from(number).ok().filter(|_| number < self.planned)?;
        if self.entries.len() <= place {
            self.entries.resize(place + 1, Entry::default());
        }
        self.entries.get_mut(place)
    }

    /// Records that job `number` was passed to the queue.
    pub(super) fn record_sent(&mut self, number: u32, at: Instant) {
        let milliseconds = self.since_start(at);
        let Some(entry) = self.entry(number) else { return };
        entry.sent = Some(milliseconds);
        self.totals.sent += 1;
        self.last_sent = Some(at);
        self.last_progress = at;
    }

    /// Records that the queue has confirmed these jobs.
    pub(super) fn record_confirmed(&mut self, numbers: std::ops::Range<u32>, at: Instant) {
        for number in numbers {
            let Some(entry) = self.entry(number) else { continue };
            let before = std::mem::replace(&mut entry.confirmed, true);
            self.totals.confirmed += u32::from(!before);
        }
        self.last_confirmed = Some(at);
        self.last_progress = at;
    }

    /// Records that all `jobs` are published.
    pub(super) fn record_all_sent(&mut self, jobs: u32, at: Instant) {
        self.all_sent = Some(jobs);
        self.last_progress = at;
    }

    /// Records an event. The same event again counts as a duplicate, another event of the same job as a contradiction.
    pub(super) fn record_ended(&mut self, ended: &Ended, at: Instant) {
        let number = ended.subject.strip_prefix(&self.prefix).and_then(|number| number.parse().ok());
        let now = self.since_start(at);
        let Some(entry) = number.and_then(|number| self.entry(number)) else { return };
        match entry.event {
            Some(id) if id == ended.id => {
                let found = std::mem::take(&mut entry.found);
                self.totals.duplicates += u32::from(!found);
            }
            Some(_) => self.totals.contradictions += 1,
            None => {
                entry.event = Some(ended.id);
                entry.took = now.saturating_sub(entry.sent.unwrap_or(now));
                (entry.ran, entry.queued) = (ended.ran, ended.queued);
                let totals = &mut self.totals;
                totals.ended += 1;
                *totals.outcomes.entry(ended.outcome.clone()).or_default() += 1;
                if let Some(code) = &ended.code {
                    *totals.codes.entry(code.clone()).or_default() += 1;
                }
                totals.requests += ended.requests;
                totals.is_rough |= ended.is_rough;
                self.last_event = Some(at);
                self.last_progress = at;
            }
        }
    }

    /// Records an event that was read from past events. It only counts if the job has no event yet.
    pub(super) fn record_found(&mut self, ended: &Ended, at: Instant) {
        let number: Option<u32> = ended.subject.strip_prefix(&self.prefix).and_then(|number| number.parse().ok());
        let known = number.and_then(|number| self.entry(number)).is_none_or(|entry| entry.event == Some(ended.id));
        if !known {
            self.record_ended(ended, at);
            if let Some(entry) = number.and_then(|number| self.entry(number)) {
                entry.found = true;
            }
        }
    }

    /// Returns true if all jobs are published and have ended.
    pub(super) fn is_complete(&self) -> bool {
        self.all_sent.is_some_and(|all| self.totals.ended >= all)
    }

    /// Returns the time at which to stop waiting for events; `None` while jobs are still being published.
    pub(super) fn gives_up(&self, patience: Duration) -> Option<Instant> {
        self.all_sent.map(|_| self.last_progress + patience)
    }

    /// Seconds from the start to the last confirm, and to the last event.
    pub(super) fn seconds(&self) -> (f64, f64) {
        let since = |at: Option<Instant>| at.map_or(0.0, |at| at.saturating_duration_since(self.started).as_secs_f64());
        (since(self.last_confirmed.or(self.last_sent)), since(self.last_event))
    }

    /// Times from publication to event, from first start to end, and from publication to first start.
    pub(super) fn latencies(&self) -> [Option<Percentiles>; 3] {
        let ended = || self.entries.iter().filter(|entry| entry.event.is_some());
        [
            Percentiles::of(ended().map(|entry| entry.took).collect()),
            Percentiles::of(ended().filter_map(|entry| entry.ran).collect()),
            Percentiles::of(ended().filter_map(|entry| entry.queued).collect()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(number: u32, id: u128, outcome: &str) -> Ended {
        Ended {
            subject: job_id("r", number),
            id: Uuid::from_u128(id),
            outcome: outcome.to_owned(),
            code: (outcome == "failed").then(|| "rejected".to_owned()),
            requests: 2,
            ran: Some(5),
            queued: None,
            is_rough: false,
        }
    }

    #[test]
    fn duplicates_and_contradictions_are_counted_separately() {
        let (mut ledger, now) = (Ledger::new(3, "r"), Instant::now());
        (0..3).for_each(|number| ledger.record_sent(number, now));
        ledger.record_confirmed(0..3, now);
        ledger.record_all_sent(3, now);
        let later = now + Duration::from_millis(40);
        ledger.record_ended(&ended(0, 1, "succeeded"), later);
        ledger.record_ended(&ended(0, 1, "succeeded"), later);
        ledger.record_ended(&ended(0, 9, "failed"), later);
        ledger.record_ended(&ended(1, 2, "failed"), later);
        assert!(!ledger.is_complete());
        let repeats = |ledger: &Ledger| (ledger.totals.duplicates, ledger.totals.contradictions);
        assert_eq!((ledger.totals.ended, repeats(&ledger), ledger.totals.requests), (2, (1, 1), 4));
        assert_eq!(ledger.totals.codes["rejected"], 1);
        ledger.record_found(&ended(0, 1, "succeeded"), later);
        ledger.record_found(&ended(2, 3, "succeeded"), later);
        ledger.record_ended(&ended(2, 3, "succeeded"), later);
        assert!(
            ledger.is_complete() && repeats(&ledger) == (1, 1),
            "an event read from past events is not a duplicate"
        );
        ledger.record_ended(&ended(2, 3, "succeeded"), later);
        assert_eq!(repeats(&ledger), (2, 1));
        assert!(ledger.latencies()[0].is_some() && ledger.latencies()[2].is_none());
    }

    #[test]
    fn events_of_other_runs_and_of_numbers_beyond_the_plan_are_not_counted() {
        let (mut ledger, now) = (Ledger::new(2, "r"), Instant::now());
        for subject in ["load-other-0", "load-r-2", "load-r-x", "release-42"] {
            ledger.record_ended(&Ended { subject: subject.to_owned(), ..ended(0, 1, "succeeded") }, now);
        }
        assert_eq!(ledger.totals.ended, 0);
        assert!(is_of("r", "load-r-7") && !is_of("r", "load-r7-7"));
    }

    #[test]
    fn the_time_out_starts_with_the_last_publication_and_again_with_every_event() {
        let (mut ledger, now) = (Ledger::new(2, "r"), Instant::now());
        let patience = Duration::from_secs(10);
        ledger.record_sent(0, now);
        assert_eq!(ledger.gives_up(patience), None);
        ledger.record_all_sent(2, now);
        assert_eq!(ledger.gives_up(patience), Some(now + patience));
        let later = now + Duration::from_secs(9);
        ledger.record_ended(&ended(0, 1, "succeeded"), later);
        assert_eq!(ledger.gives_up(patience), Some(later + patience));
    }
}
