//! What holds a batch up: reported as it begins, as it changes and when it is over, and in the summary.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use genfleet_core::{
    options::format_duration,
    tell,
    worker::{Blocker, Blockers},
};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::progress::Progress;
use crate::terminal::line;

/// Between two looks.
const EVERY: Duration = Duration::from_millis(250);
/// A pause that the API asks for is not worth a line if it is shorter than this, nor is a moment in which no job ends.
const WORTH_TELLING: Duration = Duration::from_secs(5);
/// The shortest time between two lines about the same cause.
const AGAIN: Duration = Duration::from_secs(10);

/// All that held a batch up, by its reason.
#[derive(Debug, Default)]
pub(super) struct Account(BTreeMap<String, Span>);

#[derive(Debug)]
struct Span {
    why: String,
    /// Since when, while it lasts.
    since: Option<Instant>,
    /// Of the times before.
    before: Duration,
    /// When it was reported last, while it lasts.
    reported: Option<Instant>,
    was_reported: bool,
}

/// Looks until the process stops, and tells above the bar.
pub(super) async fn watch(holding: Blockers, progress: Progress) -> Account {
    let (mut account, mut ended, mut moved) = (Account::default(), progress.ended(), Instant::now());
    loop {
        let now = Instant::now();
        if progress.ended() != ended {
            (ended, moved) = (progress.ended(), now);
        }
        for message in account.look(holding.now(now - moved >= WORTH_TELLING), now) {
            progress.aside(|| tell!("{message}"));
        }
        if timeout(EVERY, holding.stopping()).await.is_ok() {
            account.look(Vec::new(), Instant::now());
            return account;
        }
    }
}

impl Account {
    /// The lines to print now that these hold the batch up, and nothing else.
    fn look(&mut self, held: Vec<Blocker>, now: Instant) -> Vec<String> {
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
        lines.extend(held.into_iter().filter_map(|held| self.lasts(held, now)));
        lines
    }

    fn lasts(&mut self, held: Blocker, now: Instant) -> Option<String> {
        let Blocker { reason, why, for_another } = held;
        let why = line(&why);
        let new = Span { why: why.clone(), since: None, before: Duration::ZERO, reported: None, was_reported: false };
        let span = self.0.entry(reason.clone()).or_insert(new);
        let since = *span.since.get_or_insert(now);
        let is_a_pause = reason.starts_with("throttled") || reason.starts_with("service_limit");
        let is_long = now - since + for_another.unwrap_or_default() >= WORTH_TELLING;
        let is_news = match span.reported {
            None => !is_a_pause || is_long,
            Some(reported) => span.why != why && now - reported >= AGAIN,
        };
        if !is_news {
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

    /// For the summary.
    pub(super) fn json(&self) -> Value {
        let message = |(reason, span): (&String, &Span)| json!({ "reason": reason, "why": span.why, "seconds": span.before.as_secs_f64() });
        self.0.iter().map(message).collect()
    }

    /// For the summary, a line each.
    pub(super) fn text(&self) -> Vec<String> {
        let worth_telling = self.0.values().filter(|span| span.was_reported);
        worth_telling.map(|span| format!("  held for {}: {}", seconds(span.before), span.why)).collect()
    }
}

/// Whole ones, rounded up.
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
    fn it_is_told_as_it_begins_changes_and_ends_and_not_again_and_again() {
        let (mut account, start) = (Account::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let refused = || vec![held("credentials", "refused: 401\u{9b}", Some(30))];
        assert_eq!(account.look(refused(), at(0)), ["held: refused: 401\\u009b (tried again in 30s)"]);
        assert_eq!(account.look(refused(), at(1)), [""; 0]);
        let other = || vec![held("credentials", "refused: 400", Some(25))];
        assert_eq!(account.look(other(), at(5)), [""; 0], "not yet");
        assert_eq!(account.look(other(), at(20)), ["held: refused: 400 (tried again in 25s)"]);
        assert_eq!(account.look(Vec::new(), at(40)), ["goes on: after 40s this is over: refused: 400"]);
        assert_eq!(account.look(Vec::new(), at(41)), [""; 0]);
        account.look(refused(), at(50));
        account.look(Vec::new(), at(55));
        assert_eq!(account.text(), ["  held for 45s: refused: 401\\u009b"]);
        assert_eq!(account.json()[0]["seconds"], 45.0);
    }

    #[test]
    fn a_short_pause_is_no_news_and_a_long_one_is() {
        let (mut account, start) = (Account::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(account.look(vec![held("throttled", "later", Some(3))], at(0)), [""; 0]);
        assert_eq!(account.look(Vec::new(), at(3)), [""; 0]);
        let message = account.look(vec![held("throttled", "later", Some(40))], at(9));
        assert_eq!(message, ["held: later (for another 40s)"]);
        assert_eq!(account.look(vec![held("queue", "the disk is full", None)], at(49)).len(), 2);
        assert!(account.text().contains(&"  held for 43s: later".to_owned()), "{:?}", account.text());
    }
}
