//! Holds that workers set: a dependency of a kind other than the API is missing or cannot be trusted, e.g. the engine
//! that scans files. The worker checks it again and releases the hold. No job is a probe, unless the worker can only
//! check with a job.

use std::collections::{HashMap, HashSet};

use tokio::time::Instant;

use genfleet_job::Kind;

/// A hold that a worker set for all jobs of its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerHold {
    /// The name, which is one of those passed to [`declare_holds`](crate::GenesysClient::declare_holds).
    pub reason: &'static str,
    /// The problem and its remedy.
    pub why: String,
    /// Time of the worker's next check.
    pub next_look: Instant,
    /// It ends by itself, as a pause does: the process stays ready.
    pub is_pause: bool,
    /// No job starts. A short pause is waited for by jobs that have started.
    pub closes_intake: bool,
}

/// The holds of all workers in this process.
#[derive(Debug, Default)]
pub(crate) struct WorkerHolds {
    reasons: Vec<&'static str>,
    holds: HashMap<Kind, WorkerHold>,
    /// The kinds whose workers do not call Genesys Cloud, and look by a job whether their hold is over.
    exempt: HashSet<Kind>,
}

impl WorkerHolds {
    /// Names reasons that may begin, so that their series exist from the start.
    pub(crate) fn declare(&mut self, reasons: &[&'static str]) {
        self.reasons.extend(reasons);
        self.reasons.sort_unstable();
        self.reasons.dedup();
    }

    /// Exempts `kind` from what holds jobs on account of Genesys Cloud. One job probes each of its own holds at the
    /// next look.
    pub(crate) fn exempt(&mut self, kind: Kind) {
        self.exempt.insert(kind);
    }

    /// Returns true if nothing holds `kind` on account of Genesys Cloud.
    pub(crate) fn is_exempt(&self, kind: Kind) -> bool {
        self.exempt.contains(&kind)
    }

    /// Begins, changes or ends the hold of `kind`. True if its reason changed.
    pub(crate) fn set(&mut self, kind: Kind, hold: Option<WorkerHold>) -> bool {
        let reason = hold.as_ref().map(|hold| hold.reason);
        let before = match hold {
            Some(hold) => self.holds.insert(kind, hold),
            None => self.holds.remove(&kind),
        };
        before.map(|before| before.reason) != reason
    }

    /// Returns the hold of `kind`.
    pub(crate) fn of(&self, kind: Kind) -> Option<&WorkerHold> {
        self.holds.get(&kind)
    }

    /// Lists all holds.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Kind, &WorkerHold)> {
        self.holds.iter().map(|(kind, hold)| (*kind, hold))
    }

    /// Lists all declared reasons, and whether a hold of each is in force.
    pub(crate) fn states(&self) -> impl Iterator<Item = (&'static str, bool)> {
        self.reasons.iter().map(|reason| (*reason, self.holds.values().any(|hold| hold.reason == *reason)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hold_is_of_one_kind_and_lasts_until_its_worker_ends_it() {
        let hold = |reason, why: &str| WorkerHold {
            reason,
            why: why.to_owned(),
            next_look: Instant::now(),
            is_pause: false,
            closes_intake: true,
        };
        let mut holds = WorkerHolds::default();
        holds.declare(&["engine_blind", "engine_gone"]);
        holds.declare(&["engine_gone"]);
        assert!(holds.set(Kind::FileScan, Some(hold("engine_gone", "refused"))));
        assert!(!holds.set(Kind::FileScan, Some(hold("engine_gone", "timed out"))), "the reason is the same");
        assert_eq!(holds.of(Kind::FileScan).map(|hold| hold.why.as_str()), Some("timed out"));
        assert_eq!(holds.of(Kind::CdnPurge), None);
        assert_eq!(holds.states().collect::<Vec<_>>(), [("engine_blind", false), ("engine_gone", true)]);
        assert!(holds.set(Kind::FileScan, Some(hold("engine_blind", "it found nothing"))));
        assert!(holds.set(Kind::FileScan, None));
        assert!(!holds.set(Kind::FileScan, None));
        assert_eq!(holds.all().count(), 0);
    }
}
