//! What holds the jobs of this process up, for whoever runs a batch and waits for it.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::failures::Failures;
use genfleet_genesys::GenesysClient;
use genfleet_queue::Queue;

/// Looks at what `/readyz` and `genfleet status` tell, too.
#[derive(Clone, Debug)]
pub struct Holding {
    pub(super) queue: Queue,
    pub(super) genesys: GenesysClient,
    pub(super) failures: Failures,
    pub(super) drain: CancellationToken,
}

/// One thing that holds jobs up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// A word for it: `queue`, `retries` or the reason of a gate.
    pub reason: String,
    /// In words.
    pub why: String,
    /// How long still, or until it is tried again.
    pub for_another: Option<Duration>,
}

impl Holding {
    /// Waits until the process stops: then nothing is waited for any more.
    pub async fn stopping(&self) {
        self.drain.cancelled().await;
    }

    /// All that holds jobs up now.
    pub fn now(&self) -> Vec<Held> {
        let queue = self.queue.health().problems.into_iter();
        let queue = queue.map(|why| Held { reason: "queue".to_owned(), why, for_another: None });
        let shut = self.genesys.active_holds().into_iter().map(|shut| {
            let (reason, why) = (shut.reason.as_str(), shut.why);
            match shut.kind {
                Some(kind) => Held {
                    reason: format!("{reason} for {kind}"),
                    why: format!("{kind}: {why}"),
                    for_another: shut.for_another,
                },
                None => Held { reason: reason.to_owned(), why, for_another: shut.for_another },
            }
        });
        queue.chain(shut).collect()
    }

    /// The last attempt that failed and whose job is tried again: it holds a batch up where nothing else happens.
    pub fn retries(&self) -> Option<Held> {
        let now = Instant::now();
        let (why, until) = self.failures.retrying(now)?;
        let for_another = Some(until.saturating_duration_since(now));
        Some(Held { reason: "retries".to_owned(), why: format!("jobs are tried again later: {why}"), for_another })
    }
}
