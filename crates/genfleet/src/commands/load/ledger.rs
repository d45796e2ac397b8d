//! What is known of each job of a run: when it was sent, whether the queue has it, how it ended. A few dozen bytes a
//! job, whatever happens.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;
use uuid::Uuid;

use super::percentiles::Percentiles;

/// An event, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    /// Whose: `load-<run>-<number>`.
    pub subject: String,
    /// The event's own id.
    pub id: Uuid,
    /// `succeeded`, `failed` or `expired`.
    pub outcome: String,
    /// Why not.
    pub code: Option<String>,
    /// Requests sent for it.
    pub requests: u64,
    /// First start to end, in milliseconds.
    pub ran: Option<u32>,
    /// Publication to first start.
    pub queued: Option<u32>,
    /// The latter is up to a second too long.
    pub is_rough: bool,
}

/// A job.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// Milliseconds since the beginning.
    sent: Option<u32>,
    confirmed: bool,
    event: Option<Uuid>,
    /// Known from past events: the same one may still come by itself, and is no repeat then.
    found: bool,
    took: u32,
    ran: Option<u32>,
    queued: Option<u32>,
}

/// All jobs of a run.
#[derive(Debug)]
pub(super) struct Ledger {
    prefix: String,
    began: Instant,
    entries: Vec<Entry>,
    planned: u32,
    /// How many were sent, once that is known.
    all_sent: Option<u32>,
    sent: u32,
    confirmed: u32,
    ended: u32,
    outcomes: BTreeMap<String, u32>,
    codes: BTreeMap<String, u32>,
    duplicates: u32,
    contradictions: u32,
    requests: u64,
    is_rough: bool,
    last_sent: Option<Instant>,
    last_confirmed: Option<Instant>,
    last_event: Option<Instant>,
    last_progress: Instant,
}

/// The id of job `number` of a run.
pub(super) fn job_id(run: &str, number: u32) -> String {
    format!("{}{number}", prefix(run))
}

fn prefix(run: &str) -> String {
    format!("load-{run}-")
}

/// Whether an event is of this run.
pub(super) fn is_of(run: &str, subject: &str) -> bool {
    subject.starts_with(&prefix(run))
}

impl Ledger {
    /// Of at most `planned` jobs.
    pub(super) fn new(planned: u32, run: &str) -> Self {
        let now = Instant::now();
        Self {
            prefix: prefix(run),
            began: now,
            entries: Vec::new(),
            planned,
            all_sent: None,
            sent: 0,
            confirmed: 0,
            ended: 0,
            outcomes: BTreeMap::new(),
            codes: BTreeMap::new(),
            duplicates: 0,
            contradictions: 0,
            requests: 0,
            is_rough: false,
            last_sent: None,
            last_confirmed: None,
            last_event: None,
            last_progress: now,
        }
    }

    fn since_began(&self, at: Instant) -> u32 {
        u32::try_from(at.saturating_duration_since(self.began).as_millis()).unwrap_or(u32::MAX)
    }

    fn entry(&mut self, number: u32) -> Option<&mut Entry> {
        let place = usize::try_from(number).ok().filter(|_| number < self.planned)?;
        if self.entries.len() <= place {
            self.entries.resize(place + 1, Entry::default());
        }
        self.entries.get_mut(place)
    }

    /// Job `number` was handed to the queue.
    pub(super) fn sent(&mut self, number: u32, at: Instant) {
        let milliseconds = self.since_began(at);
        let Some(entry) = self.entry(number) else { return };
        entry.sent = Some(milliseconds);
        self.sent += 1;
        self.last_sent = Some(at);
        self.last_progress = at;
    }

    /// The queue has these.
    pub(super) fn confirmed(&mut self, numbers: std::ops::Range<u32>, at: Instant) {
        for number in numbers {
            let Some(entry) = self.entry(number) else { continue };
            let before = std::mem::replace(&mut entry.confirmed, true);
            self.confirmed += u32::from(!before);
        }
        self.last_confirmed = Some(at);
        self.last_progress = at;
    }

    /// No more than these `jobs` will come.
    pub(super) fn all_sent(&mut self, jobs: u32, at: Instant) {
        self.all_sent = Some(jobs);
        self.last_progress = at;
    }

    /// An event came. One that came before counts as a duplicate, another one of the same job as a contradiction.
    pub(super) fn ended(&mut self, ended: &Ended, at: Instant) {
        let number = ended.subject.strip_prefix(&self.prefix).and_then(|number| number.parse().ok());
        let now = self.since_began(at);
        let Some(entry) = number.and_then(|number| self.entry(number)) else { return };
        match entry.event {
            Some(id) if id == ended.id => {
                let foreseen = std::mem::take(&mut entry.found);
                self.duplicates += u32::from(!foreseen);
            }
            Some(_) => self.contradictions += 1,
            None => {
                entry.event = Some(ended.id);
                entry.took = now.saturating_sub(entry.sent.unwrap_or(now));
                (entry.ran, entry.queued) = (ended.ran, ended.queued);
                self.ended += 1;
                *self.outcomes.entry(ended.outcome.clone()).or_default() += 1;
                if let Some(code) = &ended.code {
                    *self.codes.entry(code.clone()).or_default() += 1;
                }
                self.requests += ended.requests;
                self.is_rough |= ended.is_rough;
                self.last_event = Some(at);
                self.last_progress = at;
            }
        }
    }

    /// An event was found among past ones: it counts where none came before.
    pub(super) fn found(&mut self, ended: &Ended, at: Instant) {
        let number: Option<u32> = ended.subject.strip_prefix(&self.prefix).and_then(|number| number.parse().ok());
        let known = number.and_then(|number| self.entry(number)).is_none_or(|entry| entry.event == Some(ended.id));
        if !known {
            self.ended(ended, at);
            if let Some(entry) = number.and_then(|number| self.entry(number)) {
                entry.found = true;
            }
        }
    }

    /// Whether every job that was sent ended.
    pub(super) fn is_complete(&self) -> bool {
        self.all_sent.is_some_and(|all| self.ended >= all)
    }

    /// From when on nothing more is waited for; `None` while jobs are still being sent.
    pub(super) fn gives_up(&self, patience: Duration) -> Option<Instant> {
        self.all_sent.map(|_| self.last_progress + patience)
    }

    /// Jobs handed to the queue.
    pub(super) fn sent_count(&self) -> u32 {
        self.sent
    }

    /// Jobs that the queue confirmed to have.
    pub(super) fn confirmed_count(&self) -> u32 {
        self.confirmed
    }

    /// Jobs with an event.
    pub(super) fn ended_count(&self) -> u32 {
        self.ended
    }

    /// Outcomes and how often each.
    pub(super) fn outcomes(&self) -> &BTreeMap<String, u32> {
        &self.outcomes
    }

    /// Codes of what did not succeed, and how often each.
    pub(super) fn codes(&self) -> &BTreeMap<String, u32> {
        &self.codes
    }

    /// Events that came again, and events that say otherwise than the first of the same job.
    pub(super) fn repeats(&self) -> (u32, u32) {
        (self.duplicates, self.contradictions)
    }

    /// Whether the waits are known to the second only.
    pub(super) fn is_rough(&self) -> bool {
        self.is_rough
    }

    /// Requests as the events tell them.
    pub(super) fn requests(&self) -> u64 {
        self.requests
    }

    /// From the beginning to the last confirm, and to the last event.
    pub(super) fn times(&self) -> (Option<Duration>, Option<Duration>) {
        let since = |at: Option<Instant>| at.map(|at| at.saturating_duration_since(self.began));
        (since(self.last_confirmed.or(self.last_sent)), since(self.last_event))
    }

    /// From publication to event, from first start to end, from publication to first start.
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
    fn repeats_are_told_apart_and_count_once() {
        let (mut ledger, now) = (Ledger::new(3, "r"), Instant::now());
        (0..3).for_each(|number| ledger.sent(number, now));
        ledger.confirmed(0..3, now);
        ledger.all_sent(3, now);
        let later = now + Duration::from_millis(40);
        ledger.ended(&ended(0, 1, "succeeded"), later);
        ledger.ended(&ended(0, 1, "succeeded"), later);
        ledger.ended(&ended(0, 9, "failed"), later);
        ledger.ended(&ended(1, 2, "failed"), later);
        assert!(!ledger.is_complete());
        assert_eq!((ledger.ended_count(), ledger.repeats(), ledger.requests()), (2, (1, 1), 4));
        assert_eq!(ledger.codes()["rejected"], 1);
        ledger.found(&ended(0, 1, "succeeded"), later);
        ledger.found(&ended(2, 3, "succeeded"), later);
        ledger.ended(&ended(2, 3, "succeeded"), later);
        assert!(ledger.is_complete() && ledger.repeats() == (1, 1), "what is found as well is no repeat");
        ledger.ended(&ended(2, 3, "succeeded"), later);
        assert_eq!(ledger.repeats(), (2, 1));
        assert!(ledger.latencies()[0].is_some() && ledger.latencies()[2].is_none());
    }

    #[test]
    fn what_is_of_another_run_or_beyond_the_plan_is_not_counted() {
        let (mut ledger, now) = (Ledger::new(2, "r"), Instant::now());
        for subject in ["load-other-0", "load-r-2", "load-r-x", "release-42"] {
            ledger.ended(&Ended { subject: subject.to_owned(), ..ended(0, 1, "succeeded") }, now);
        }
        assert_eq!(ledger.ended_count(), 0);
        assert!(is_of("r", "load-r-7") && !is_of("r", "load-r7-7"));
    }

    #[test]
    fn patience_begins_with_the_last_publication_and_anew_with_every_event() {
        let (mut ledger, now) = (Ledger::new(2, "r"), Instant::now());
        let patience = Duration::from_secs(10);
        ledger.sent(0, now);
        assert_eq!(ledger.gives_up(patience), None);
        ledger.all_sent(2, now);
        assert_eq!(ledger.gives_up(patience), Some(now + patience));
        let later = now + Duration::from_secs(9);
        ledger.ended(&ended(0, 1, "succeeded"), later);
        assert_eq!(ledger.gives_up(patience), Some(later + patience));
    }
}
