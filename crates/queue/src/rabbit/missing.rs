//! Parts of the topology that are known to be missing.

use std::time::Duration;

use tokio::time::Instant;

use crate::topology;

/// Time for which a binding counts as missing after a message that it should have routed.
const REMEMBERED: Duration = Duration::from_secs(5 * 60);

/// The missing parts, each in a sentence.
#[derive(Debug, Default)]
pub(super) struct MissingTopology {
    /// Found by the last check.
    checked: Option<String>,
    /// Proved by a message that matched no queue.
    unbound: Option<(Instant, String)>,
}

impl MissingTopology {
    pub(super) fn problems(&self, now: Instant) -> impl Iterator<Item = String> {
        let unbound = self.unbound.as_ref().filter(|(at, _)| now.saturating_duration_since(*at) < REMEMBERED);
        self.checked.iter().chain(unbound.map(|(_, problem)| problem)).cloned()
    }

    /// Sets the result of a check; true where it changed.
    pub(super) fn set_checked(&mut self, found: Option<String>) -> bool {
        let changed = self.checked != found;
        self.checked = found;
        changed
    }

    /// Adds what a message proves; true where it was not known.
    pub(super) fn add_unbound(&mut self, problem: String, now: Instant) -> bool {
        let is_new = !self.problems(now).any(|known| known == problem);
        self.unbound = Some((now, problem));
        is_new
    }
}

/// Warns where the exchange of events was deleted: it took the bindings of others with it, and only ours are declared again.
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
        assert!(missing.add_unbound("b".to_owned(), now) && !missing.add_unbound("b".to_owned(), now));
        assert_eq!(missing.problems(now).collect::<Vec<_>>(), ["a", "b"]);
        assert!(missing.set_checked(None) && !missing.set_checked(None));
        assert_eq!(missing.problems(now + REMEMBERED).count(), 0);
    }
}
