//! What came of a run, for people and for programs.

use genfleet_core::tell;
use std::{collections::BTreeMap, fmt::Write};

use genfleet_core::job::Kind;
use serde_json::{Value, json};

use super::{ledger::Ledger, percentiles::Percentiles};
use crate::terminal;

/// Sums of a run.
#[derive(Clone, Debug)]
pub(super) struct Summary {
    kind: Kind,
    run: String,
    sent: u32,
    confirmed: u32,
    ended: u32,
    outcomes: BTreeMap<String, u32>,
    codes: BTreeMap<String, u32>,
    duplicates: u32,
    contradictions: u32,
    publish_seconds: f64,
    seconds: f64,
    latency: Option<Percentiles>,
    run_time: Option<Percentiles>,
    queued: Option<Percentiles>,
    queued_rough: bool,
    requests: u64,
    received: Option<u64>,
    interrupted: bool,
}

impl Summary {
    /// Of all that the ledger has; `received` is what a simulator counted meanwhile.
    pub(super) fn new(kind: Kind, run: &str, ledger: &Ledger, received: Option<u64>, interrupted: bool) -> Self {
        let (published_in, ended_in) = ledger.times();
        let [latency, run_time, queued] = ledger.latencies();
        let (duplicates, contradictions) = ledger.repeats();
        Self {
            kind,
            run: run.to_owned(),
            sent: ledger.sent_count(),
            confirmed: ledger.confirmed_count(),
            ended: ledger.ended_count(),
            outcomes: ledger.outcomes().clone(),
            codes: ledger.codes().clone(),
            duplicates,
            contradictions,
            publish_seconds: published_in.unwrap_or_default().as_secs_f64(),
            seconds: ended_in.unwrap_or_default().as_secs_f64(),
            latency,
            run_time,
            queued,
            queued_rough: ledger.is_rough(),
            requests: ledger.requests(),
            received,
            interrupted,
        }
    }

    fn count(&self, outcome: &str) -> u32 {
        self.outcomes.get(outcome).copied().unwrap_or(0)
    }

    fn unfinished(&self) -> u32 {
        self.sent.saturating_sub(self.ended)
    }

    /// Whether every job that was sent has its event, and nobody stopped it.
    pub(super) fn is_complete(&self) -> bool {
        !self.interrupted && self.unfinished() == 0 && self.sent > 0
    }

    fn json(&self) -> Value {
        json!({
            "run": self.run, "kind": self.kind.as_str(), "complete": self.is_complete(),
            "published": self.confirmed, "unconfirmed": self.sent.saturating_sub(self.confirmed),
            "succeeded": self.count("succeeded"), "failed": self.count("failed"), "expired": self.count("expired"),
            "unfinished": self.unfinished(), "duplicates": self.duplicates, "contradictions": self.contradictions,
            "codes": self.codes,
            "publishSeconds": rounded(self.publish_seconds), "publishRate": rate(self.confirmed, self.publish_seconds),
            "seconds": rounded(self.seconds), "throughput": rate(self.ended, self.seconds),
            "latencyMs": self.latency, "runMs": self.run_time, "queuedMs": self.queued,
            "queuedRough": self.queued_rough,
            "requestsPerJob": self.requests_per_job(), "requestsAreShared": self.shares(),
            "apiRequests": self.received,
            "apiRequestsPerJob": self.received.map(|received| ratio(received, self.ended)),
        })
    }

    /// The sum over the events counts a shared request once for each of its jobs.
    fn shares(&self) -> bool {
        self.kind == Kind::CdnPurge
    }

    fn requests_per_job(&self) -> f64 {
        ratio(self.requests, self.ended)
    }

    fn text(&self) -> String {
        let mut text = format!(
            "run load-{}: {} of {} published in {:.1} s ({} a second)\n",
            self.run,
            self.confirmed,
            self.kind,
            self.publish_seconds,
            rate(self.confirmed, self.publish_seconds)
        );
        let _ = writeln!(
            text,
            "ended       {} in {:.1} s ({} a second): {} succeeded, {} failed, {} expired",
            self.ended,
            self.seconds,
            rate(self.ended, self.seconds),
            self.count("succeeded"),
            self.count("failed"),
            self.count("expired")
        );
        let codes: Vec<String> = self.codes.iter().map(|(code, count)| format!("{count} {code}")).collect();
        self.line(&mut text, "why", &codes.join(", "), !codes.is_empty());
        let (unfinished, unconfirmed) = (self.unfinished(), self.sent.saturating_sub(self.confirmed));
        let message = format!("{unfinished} have no event yet, {unconfirmed} were not confirmed by the queue");
        self.line(&mut text, "unfinished", &message, unfinished > 0);
        let message =
            format!("{} events came again, {} contradict an earlier one", self.duplicates, self.contradictions);
        self.line(&mut text, "repeats", &message, self.duplicates + self.contradictions > 0);
        let queued = if self.queued_rough {
            "from publication to first start, up to a second less: the workers know whole seconds"
        } else {
            "from publication to first start, as the events say"
        };
        for (name, what) in [
            ("latency", ("from publication to event", self.latency)),
            ("  queued", (queued, self.queued)),
            ("  running", ("from first start to end, as the events say", self.run_time)),
        ] {
            if let (what, Some(percentiles)) = what {
                self.line(&mut text, name, &format!("{} ({what})", percentiles.text()), true);
            }
        }
        let shared = if self.shares() { ", counting a shared request for each of its jobs" } else { "" };
        self.line(&mut text, "requests", &format!("{} a job{shared}", self.requests_per_job()), self.ended > 0);
        if let Some(received) = self.received {
            let message = format!("{received} received by the simulator, {} a job", ratio(received, self.ended));
            self.line(&mut text, "", &message, true);
        }
        text
    }

    #[expect(clippy::unused_self, reason = "it is part of how this is printed")]
    fn line(&self, text: &mut String, name: &str, message: &str, wanted: bool) {
        if wanted {
            let _ = writeln!(text, "{name:<11} {message}");
        }
    }

    /// On stdout.
    pub(super) fn print(&self, as_json: bool) -> anyhow::Result<()> {
        if as_json {
            terminal::say(self.json())?;
        } else {
            terminal::put(self.text())?;
        }
        if self.interrupted {
            tell!("stopped on the way; what was published is worked all the same");
        }
        Ok(())
    }
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

fn rate(count: u32, seconds: f64) -> f64 {
    if seconds > 0.0 { (f64::from(count) / seconds * 10.0).round() / 10.0 } else { 0.0 }
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn ratio(count: u64, jobs: u32) -> f64 {
    if jobs == 0 { 0.0 } else { rounded(count as f64 / f64::from(jobs)) }
}
