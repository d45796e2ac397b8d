//! Conditions that keep the jobs of this process from running, for `genfleet run`.

use std::time::Duration;

use tokio::time::Instant;

use super::context::ProcessContext;

/// Finds the blockers of a process, from the same sources as `/readyz` and `genfleet status`.
#[derive(Clone, Debug)]
pub struct Blockers(pub(super) ProcessContext);

/// One condition that keeps jobs from running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocker {
    /// `queue`, `retries` or the reason of a closed admission.
    pub reason: String,
    /// Description for people.
    pub why: String,
    /// Time until it ends or is tried again, if known.
    pub for_another: Option<Duration>,
}

impl Blockers {
    /// Waits until the process begins to stop.
    pub async fn stopping(&self) {
        self.0.drain.cancelled().await;
    }

    /// Lists the blockers of this moment. If there are none and `or_retry` is set, it is the retry that is waited for
    /// longest, which blocks a batch in which nothing else happens.
    pub fn now(&self, or_retry: bool) -> Vec<Blocker> {
        let queue = self.0.queue.health().problems.into_iter();
        let queue = queue.map(|why| Blocker { reason: "queue".to_owned(), why, for_another: None });
        let shut = self.0.genesys.status().holds.into_iter().map(|shut| {
            let (reason, why) = (shut.reason.as_str(), shut.why);
            match shut.kind {
                Some(kind) => Blocker {
                    reason: format!("{reason} for {kind}"),
                    why: format!("{kind}: {why}"),
                    for_another: shut.for_another,
                },
                None => Blocker { reason: reason.to_owned(), why, for_another: shut.for_another },
            }
        });
        let mut blockers: Vec<Blocker> = queue.chain(shut).collect();
        if blockers.is_empty() && or_retry {
            blockers.extend(self.pending_retry());
        }
        blockers
    }

    fn pending_retry(&self) -> Option<Blocker> {
        let now = Instant::now();
        let (why, until) = self.0.failures.pending_retry(now)?;
        let for_another = Some(until.saturating_duration_since(now));
        Some(Blocker { reason: "retries".to_owned(), why: format!("jobs are tried again later: {why}"), for_another })
    }
}
