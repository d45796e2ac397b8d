//! The results of a batch, counted from its events.

use genfleet_core::eprint_line;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use genfleet_core::job::Kind;
use serde::Deserialize;
use serde_json::json;

use super::{
    held,
    summary::{Account, EndedJob},
};
use crate::terminal::{self, Paint};

/// The part of an event that is read. A `Value` of the whole event takes several times as long.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Event {
    data: EndedJob,
}

/// Counts of outcomes, error codes and webhooks.
#[derive(Debug)]
pub(super) struct Tally {
    total: u64,
    outcomes: BTreeMap<String, u64>,
    codes: BTreeMap<String, u64>,
    /// Number of webhooks that cannot be delivered.
    failed_webhooks: u64,
    /// Number of webhooks that are still to be delivered.
    pub undelivered: u64,
    /// Causes that stopped the batch.
    pub held: held::Account,
    began: Instant,
    pub account: Account,
}

impl Tally {
    /// Creates a tally for a batch of `total` jobs.
    pub(super) fn new(total: u64) -> Self {
        let (outcomes, codes) = (BTreeMap::new(), BTreeMap::new());
        let account = Account::default();
        let held = held::Account::default();
        Self { total, outcomes, codes, failed_webhooks: 0, undelivered: 0, held, began: Instant::now(), account }
    }

    /// Counts an event. An event of a webhook that cannot be delivered does not belong to a job of the batch.
    pub(super) fn count(&mut self, event: &[u8]) {
        let Event { data: job } = serde_json::from_slice(event).unwrap_or_default();
        if job.kind == Kind::WebhookDeliver.as_str() {
            self.failed_webhooks += 1;
            return;
        }
        let outcome = if job.outcome.is_empty() { "unknown".to_owned() } else { job.outcome.clone() };
        *self.outcomes.entry(outcome).or_default() += 1;
        if let Some(error) = &job.error {
            *self.codes.entry(error.code.clone()).or_default() += 1;
        }
        self.account.count(job);
    }

    /// Number of jobs that have ended.
    pub(super) fn ended(&self) -> u64 {
        self.outcomes.values().sum()
    }

    /// Number of jobs that did not succeed.
    pub(super) fn not_succeeded(&self) -> u64 {
        self.ended() - self.outcomes.get("succeeded").copied().unwrap_or(0)
    }

    /// Returns true if every job has ended.
    pub(super) fn complete(&self) -> bool {
        self.ended() >= self.total
    }

    /// Returns true if any job failed.
    pub(super) fn has_failures(&self) -> bool {
        self.outcomes.contains_key("failed")
    }

    /// Prints the tables for people on stderr.
    pub(super) fn print_account(&self) {
        eprint_line!("{}", self.account.tables(Paint::stderr()).trim_end_matches('\n'));
    }

    /// Prints the summary on stderr.
    pub(super) fn print(&self, as_json: bool) {
        let took = self.began.elapsed();
        if as_json {
            let summary = json!({
                "jobs": self.total, "ended": self.ended(), "outcomes": self.outcomes, "codes": self.codes,
                "webhooks": { "failed": self.failed_webhooks, "undelivered": self.undelivered },
                "held": self.held.json(), "seconds": took.as_secs_f64(),
            });
            return eprint_line!("{summary}");
        }
        let count = |counts: &BTreeMap<String, u64>| {
            counts.iter().map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", ")
        };
        let outcomes = if self.outcomes.is_empty() { String::new() } else { format!(": {}", count(&self.outcomes)) };
        let jobs = terminal::count(self.total, "job");
        eprint_line!("{} of {jobs} ended in {:.1} s{outcomes}", self.ended(), round(took));
        if !self.codes.is_empty() {
            eprint_line!("  why: {}", count(&self.codes));
        }
        for held in self.held.text() {
            eprint_line!("{held}");
        }
        if self.failed_webhooks > 0 {
            eprint_line!("  webhooks that cannot be delivered: {} (see their events)", self.failed_webhooks);
        }
    }
}

fn round(took: Duration) -> f64 {
    (took.as_secs_f64() * 10.0).round() / 10.0
}
