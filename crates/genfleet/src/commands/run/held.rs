//! Pauses, holds and other causes that stop a batch: reported when they start, change and end, and in the summary.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use genfleet_core::{
    eprint_line,
    options::format_duration,
    worker::{Blocker, Blockers},
};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::progress::Progress;
use crate::terminal::line;

/// Time between two checks.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// The shortest pause that is reported, and the shortest time without an ended job.
const SHORTEST: Duration = Duration::from_secs(5);
/// The shortest time between two lines about the same cause.
const REPEAT_INTERVAL: Duration = Duration::from_secs(10);

/// All causes that stopped a batch, by their reasons.
#[derive(Debug, Default)]
pub(super) struct Account(BTreeMap<String, Span>);

#[derive(Debug)]
struct Span {
    why: String,
    /// Start of the hold; `None` if it has ended.
    since: Option<Instant>,
    /// Total time of earlier occurrences.
    before: Duration,
    /// Time of the last report; `None` if it has ended.
    reported: Option<Instant>,
    was_reported: bool,
}

/// Reports all causes until the process stops, above the progress bar.
pub(super) async fn watch(blockers: Blockers, progress: Progress) -> Account {
    let (mut account, mut ended, mut moved) = (Account::default(), progress.ended(), Instant::now());
    loop {
        let now = Instant::now();
        if progress.ended() != ended {
            (ended, moved) = (progress.ended(), now);
        }
        for message in account.update(blockers.now(now - moved >= SHORTEST), now) {
            progress.suspend(|| eprint_line!("{message}"));
        }
        if timeout(CHECK_INTERVAL, blockers.stopping()).await.is_ok() {
            account.update(Vec::new(), Instant::now());
            return account;
        }
    }
}

impl Account {
    /// Records that exactly these causes stop the batch now, and returns the lines to print.
    fn update(&mut self, held: Vec<Blocker>, now: Instant) -> Vec<String> {
        let mut lines = Vec::new();
        for (reason, span) in &mut self.0 {
            let lasts = held.iter().any(|held| held.reason == *reason);
            if let Some(since) = span.since.take_if(|_| !lasts) {
                span.before += now - since;
                if span.reported.take().is_some() {
                    lines.push(format!("goes on: after {} this is over: {}", seconds(now - since), span.why));
                }
            }
        }
        lines.extend(held.into_iter().filter_map(|held| self.record(held, now)));
        lines
    }

    fn record(&mut self, held: Blocker, now: Instant) -> Option<String> {
        let Blocker { reason, why, for_another } = held;
        let why = line(&why);
        let new = Span { why: why.clone(), since: None, before: Duration::ZERO, reported: None, was_reported: false };
        let span = self.0.entry(reason.clone()).or_insert(new);
        let since = *span.since.get_or_insert(now);
        let is_a_pause = ["throttled", "service_limit", "cdn_throttled"].iter().any(|pause| reason.starts_with(pause));
        let is_long = now - since + for_another.unwrap_or_default() >= SHORTEST;
        let is_reported_now = match span.reported {
            None => !is_a_pause || is_long,
            Some(reported) => span.why != why && now - reported >= REPEAT_INTERVAL,
        };
        if !is_reported_now {
            return None;
        }
        (span.reported, span.was_reported, span.why) = (Some(now), true, why);
        let still = for_another.filter(|left| !left.is_zero()).map(seconds);
        let still =
            still.map(
                |left| if is_a_pause { format!(" (for another {left})") } else { format!(" (tried again in {left})") },
            );
        Some(format!("held: {}{}", span.why, still.unwrap_or_default()))
    }

    /// The causes for the JSON summary.
    pub(super) fn json(&self) -> Value {
        let cause = |(reason, span): (&String, &Span)| json!({ "reason": reason, "why": span.why, "seconds": span.before.as_secs_f64() });
        self.0.iter().map(cause).collect()
    }

    /// The reported causes for the summary, a line each.
    pub(super) fn text(&self) -> Vec<String> {
        let reported = self.0.values().filter(|span| span.was_reported);
        reported.map(|span| format!("  held for {}: {}", seconds(span.before), span.why)).collect()
    }
}

/// Formats a duration in whole seconds, rounded up.
fn seconds(duration: Duration) -> String {
    format_duration(Duration::from_secs(duration.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(reason: &str, why: &str, seconds: Option<u64>) -> Blocker {
        Blocker { reason: reason.to_owned(), why: why.to_owned(), for_another: seconds.map(Duration::from_secs) }
    }

    #[test]
    fn a_cause_is_reported_when_it_starts_changes_and_ends_but_not_repeatedly() {
        let (mut account, start) = (Account::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let refused = || vec![held("credentials", "refused: 401\u{9b}", Some(30))];
        assert_eq!(account.update(refused(), at(0)), ["held: refused: 401\\u009b (tried again in 30s)"]);
        assert_eq!(account.update(refused(), at(1)), [""; 0]);
        let other = || vec![held("credentials", "refused: 400", Some(25))];
        assert_eq!(account.update(other(), at(5)), [""; 0], "not yet");
        assert_eq!(account.update(other(), at(20)), ["held: refused: 400 (tried again in 25s)"]);
        assert_eq!(account.update(Vec::new(), at(40)), ["goes on: after 40s this is over: refused: 400"]);
        assert_eq!(account.update(Vec::new(), at(41)), [""; 0]);
        account.update(refused(), at(50));
        account.update(Vec::new(), at(55));
        assert_eq!(account.text(), ["  held for 45s: refused: 401\\u009b"]);
        assert_eq!(account.json()[0]["seconds"], 45.0);
    }

    #[test]
    fn a_short_pause_is_not_reported_and_a_long_one_is() {
        let (mut account, start) = (Account::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(account.update(vec![held("throttled", "later", Some(3))], at(0)), [""; 0]);
        assert_eq!(account.update(Vec::new(), at(3)), [""; 0]);
        let message = account.update(vec![held("throttled", "later", Some(40))], at(9));
        assert_eq!(message, ["held: later (for another 40s)"]);
        assert_eq!(account.update(vec![held("queue", "the disk is full", None)], at(49)).len(), 2);
        assert!(account.text().contains(&"  held for 43s: later".to_owned()), "{:?}", account.text());
    }
}
