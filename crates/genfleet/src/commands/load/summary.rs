//! The results of a run, for people and for programs.

use genfleet_core::eprint_line;
use std::fmt::Write;

use genfleet_core::job::Kind;
use serde_json::{Value, json};

use super::{
    ledger::{Ledger, Totals},
    percentiles::Percentiles,
};
use crate::terminal;

/// The results of a run.
#[derive(Clone, Debug)]
pub(super) struct Summary {
    kind: Kind,
    run: String,
    totals: Totals,
    publish_seconds: f64,
    seconds: f64,
    latency: Option<Percentiles>,
    run_time: Option<Percentiles>,
    queued: Option<Percentiles>,
    received: Option<u64>,
    interrupted: bool,
}

impl Summary {
    /// Summarises the ledger; `received` is the number of requests that a simulator received during the run.
    pub(super) fn new(kind: Kind, run: &str, ledger: &Ledger, received: Option<u64>, interrupted: bool) -> Self {
        let (publish_seconds, seconds) = ledger.seconds();
        let [latency, run_time, queued] = ledger.latencies();
        let (run, totals) = (run.to_owned(), ledger.totals.clone());
        Self { kind, run, totals, publish_seconds, seconds, latency, run_time, queued, received, interrupted }
    }

    fn count(&self, outcome: &str) -> u32 {
        self.totals.outcomes.get(outcome).copied().unwrap_or(0)
    }

    fn unfinished(&self) -> u32 {
        self.totals.sent.saturating_sub(self.totals.ended)
    }

    /// Returns true if every published job has an event, and the run was not interrupted.
    pub(super) fn is_complete(&self) -> bool {
        !self.interrupted && self.unfinished() == 0 && self.totals.sent > 0
    }

    fn json(&self) -> Value {
        let Totals { sent, confirmed, ended, codes, duplicates, contradictions, is_rough, .. } = &self.totals;
        json!({
            "run": self.run, "kind": self.kind.as_str(), "complete": self.is_complete(),
            "published": confirmed, "unconfirmed": sent.saturating_sub(*confirmed),
            "succeeded": self.count("succeeded"), "failed": self.count("failed"), "expired": self.count("expired"),
            "unfinished": self.unfinished(), "duplicates": duplicates, "contradictions": contradictions,
            "codes": codes,
            "publishSeconds": round(self.publish_seconds), "publishRate": rate(*confirmed, self.publish_seconds),
            "seconds": round(self.seconds), "throughput": rate(*ended, self.seconds),
            "latencyMs": self.latency, "runMs": self.run_time, "queuedMs": self.queued,
            "queuedRough": is_rough,
            "requestsPerJob": self.requests_per_job(), "requestsAreShared": self.shares(),
            "apiRequests": self.received,
            "apiRequestsPerJob": self.received.map(|received| ratio(received, *ended)),
        })
    }

    /// Returns true if jobs of this kind share requests. The sum over the events counts a shared request once for each
    /// of its jobs.
    fn shares(&self) -> bool {
        self.kind == Kind::CdnPurge
    }

    fn requests_per_job(&self) -> f64 {
        ratio(self.totals.requests, self.totals.ended)
    }

    fn text(&self) -> String {
        let Totals { sent, confirmed, ended, codes, duplicates, contradictions, is_rough, .. } = &self.totals;
        let mut text = format!(
            "run load-{}: {confirmed} of {} published in {:.1} s ({} a second)\n",
            self.run,
            self.kind,
            self.publish_seconds,
            rate(*confirmed, self.publish_seconds)
        );
        let mut line = |name: &str, message: String| {
            let _ = writeln!(text, "{name:<11} {message}");
        };
        let [succeeded, failed, expired] = ["succeeded", "failed", "expired"].map(|outcome| self.count(outcome));
        let rate = rate(*ended, self.seconds);
        line(
            "ended",
            format!(
                "{ended} in {:.1} s ({rate} a second): {succeeded} succeeded, {failed} failed, {expired} expired",
                self.seconds
            ),
        );
        if !codes.is_empty() {
            let codes: Vec<String> = codes.iter().map(|(code, count)| format!("{count} {code}")).collect();
            line("why", codes.join(", "));
        }
        let (unfinished, unconfirmed) = (self.unfinished(), sent.saturating_sub(*confirmed));
        if unfinished > 0 {
            line(
                "unfinished",
                format!("{unfinished} have no event yet, {unconfirmed} were not confirmed by the queue"),
            );
        }
        if duplicates + contradictions > 0 {
            line(
                "repeats",
                format!(
                    "{} arrived again, {contradictions} contradict an earlier one",
                    terminal::count(duplicates, "event")
                ),
            );
        }
        let queued = if *is_rough {
            "from publication to first start, up to a second less, because the workers know whole seconds only"
        } else {
            "from publication to first start, as the events say"
        };
        for (name, what, percentiles) in [
            ("latency", "from publication to event", self.latency),
            ("  queued", queued, self.queued),
            ("  running", "from first start to end, as the events say", self.run_time),
        ] {
            if let Some(percentiles) = percentiles {
                line(name, format!("{} ({what})", percentiles.text()));
            }
        }
        if *ended > 0 {
            let shared = if self.shares() { ", counting a shared request for each of its jobs" } else { "" };
            line("requests", format!("{} a job{shared}", self.requests_per_job()));
        }
        if let Some(received) = self.received {
            line("", format!("{received} received by the simulator, {} a job", ratio(received, *ended)));
        }
        text
    }

    /// Prints the results on stdout.
    pub(super) fn print(&self, as_json: bool) -> anyhow::Result<()> {
        if as_json {
            terminal::print_line(self.json())?;
        } else {
            terminal::print_escaped(self.text())?;
        }
        if self.interrupted {
            eprint_line!("stopped before the end; the workers still carry out the published jobs");
        }
        Ok(())
    }
}

fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

fn rate(count: u32, seconds: f64) -> f64 {
    if seconds > 0.0 { (f64::from(count) / seconds * 10.0).round() / 10.0 } else { 0.0 }
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn ratio(count: u64, jobs: u32) -> f64 {
    if jobs == 0 { 0.0 } else { round(count as f64 / f64::from(jobs)) }
}
