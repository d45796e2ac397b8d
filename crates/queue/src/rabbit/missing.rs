//! Parts of the topology that are known to be missing.

use std::time::Duration;

use jiff::{Timestamp, Unit};
use tokio::time::Instant;

use crate::topology;

/// Time for which a binding counts as missing after a message that it should have routed.
const REMEMBERED: Duration = Duration::from_secs(5 * 60);

/// The missing parts, each described in a sentence.
#[derive(Debug, Default)]
pub(super) struct MissingTopology {
    /// Found by the last check.
    checked: Option<String>,
    /// Shown by a message that matched no queue.
    unbound: Option<Unbound>,
}

/// A message that matched no queue although a binding should have routed it.
#[derive(Debug)]
struct Unbound {
    at: Instant,
    /// The same as a time of day.
    time: Timestamp,
    problem: String,
}

impl Unbound {
    fn is_remembered(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) < REMEMBERED
    }

    /// Describes the problem, with the time at which the process is ready again.
    fn describe(&self) -> String {
        let seconds = |time: Timestamp| time.round(Unit::Second).unwrap_or(time);
        let until = self.time.saturating_add(REMEMBERED).unwrap_or(self.time);
        let (time, until) = (seconds(self.time), seconds(until));
        format!(
            "a binding was gone at {time}, and the process is ready again at {until} unless that recurs: {}",
            self.problem
        )
    }
}

impl MissingTopology {
    pub(super) fn problems(&self, now: Instant) -> impl Iterator<Item = String> {
        let unbound = self.unbound.as_ref().filter(|unbound| unbound.is_remembered(now)).map(Unbound::describe);
        self.checked.iter().cloned().chain(unbound)
    }

    /// Records the result of a check. Returns true if it changed.
    pub(super) fn set_checked(&mut self, found: Option<String>) -> bool {
        let changed = self.checked != found;
        self.checked = found;
        changed
    }

    /// Records a missing binding, which a message has shown. Returns true if it was not known.
    pub(super) fn add_unbound(&mut self, problem: String, at: Instant, time: Timestamp) -> bool {
        let is_known = |known: &Unbound| known.is_remembered(at) && known.problem == problem;
        let is_new = !self.unbound.as_ref().is_some_and(is_known);
        self.unbound = Some(Unbound { at, time, problem });
        is_new
    }
}

/// Warns if the exchange of events was deleted. Its bindings are lost with it, and only those of the topology are
/// declared again.
pub(super) fn warn_of_missing_events(prefix: &str, reason: &str) {
    let events = topology::events(prefix);
    if reason.contains(&format!("no exchange '{events}'")) {
        tracing::error!(
            exchange = events,
            "the exchange of events was deleted: queues that others had bound to it get nothing until they are bound \
             again; what they miss is in our own queue of events"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_part_is_reported_until_it_is_back_and_a_binding_for_a_while() {
        let (mut missing, now) = (MissingTopology::default(), Instant::now());
        assert!(missing.set_checked(Some("a".to_owned())) && !missing.set_checked(Some("a".to_owned())), "once");
        let time: Timestamp = "2026-11-30T18:00:00.4Z".parse().unwrap();
        assert!(missing.add_unbound("b".to_owned(), now, time) && !missing.add_unbound("b".to_owned(), now, time));
        let told = "a binding was gone at 2026-11-30T18:00:00Z, and the process is ready again at 2026-11-30T18:05:00Z \
                    unless that recurs: b";
        assert_eq!(missing.problems(now).collect::<Vec<_>>(), ["a", told]);
        assert!(missing.set_checked(None) && !missing.set_checked(None));
        assert_eq!(missing.problems(now + REMEMBERED).count(), 0);
    }
}
