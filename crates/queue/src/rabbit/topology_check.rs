//! Looks every minute whether the topology is still there, since somebody may delete a part of it while processes run. On a
//! channel of its own, which a refusal closes, of the connection that consumes, which no alarm of the broker blocks.
//!
//! AMQP cannot tell whether a binding is there. With `--topology declare` every binding is made again, which changes nothing
//! where it is there. With `verify` one that is gone is noticed by the first message that it should have routed: that one
//! went to what matches nothing, and a copy of it came to a process ([`super::unknown_kinds`]).

use std::{future::pending, sync::Arc, time::Duration};

use tokio::time::{Instant, timeout};

use super::{
    Shared, TopologyMode, declare, publish,
    session::{Link, SessionError},
};
use crate::topology::{dead_exchange, is_ours, jobs_exchange};
use genfleet_job::Kind;

/// Between two looks, about.
const EVERY: Duration = Duration::from_secs(60);
/// How long a binding counts as missing after a message that it should have routed.
const REMEMBERED: Duration = Duration::from_secs(5 * 60);

/// What is known to be missing.
#[derive(Debug, Default)]
pub(super) struct Missing {
    /// By the last look.
    looked: Option<String>,
    /// By a message that came where what matches nothing goes.
    unbound: Option<(Instant, String)>,
}

impl Missing {
    /// In sentences.
    pub(super) fn told(&self, now: Instant) -> impl Iterator<Item = String> {
        let unbound = self.unbound.as_ref().filter(|(at, _)| now.saturating_duration_since(*at) < REMEMBERED);
        self.looked.iter().chain(unbound.map(|(_, told)| told)).cloned()
    }

    /// What a look found; whether that is news.
    pub(super) fn looked(&mut self, found: Option<String>) -> bool {
        let is_news = self.looked != found;
        self.looked = found;
        is_news
    }

    /// What a message proves; whether that is news.
    pub(super) fn unbound(&mut self, found: String, now: Instant) -> bool {
        let is_news = !self.told(now).any(|told| told == found);
        self.unbound = Some((now, found));
        is_news
    }
}

/// Looks until the session ends.
pub(super) async fn look(shared: Arc<Shared>, link: Arc<Link>) -> SessionError {
    // The session began with a look at all of it.
    tell(&shared, None);
    if shared.mode == TopologyMode::Skip {
        return pending().await;
    }
    loop {
        // Processes that were started together look one after the other.
        let pause = EVERY.min(shared.watchdog).mul_f64(0.9 + 0.2 * fastrand::f64());
        let _ = timeout(pause, shared.unbound.notified()).await;
        let found = declare::still_there(&shared, link.connection()).await;
        if link.session.is_over() {
            return pending().await;
        }
        let missing = match (found, shared.mode) {
            (Err(missing), TopologyMode::Declare) => mended(&shared, &link, missing).await,
            (found, _) => found.err(),
        };
        tell(&shared, missing);
    }
}

/// What is missing still after all was declared again.
async fn mended(shared: &Shared, link: &Link, missing: SessionError) -> Option<SessionError> {
    match declare::prepare(shared, link.connection()).await {
        Ok(()) => {
            tracing::warn!(missing, "a part of the topology was gone: it is declared again");
            publish::tell_of_missing_events(&shared.prefix, &missing);
            None
        }
        Err(lost) => Some(lost),
    }
}

fn tell(shared: &Shared, missing: Option<SessionError>) {
    match (shared.board.misses(missing.clone()), missing) {
        (true, Some(reason)) => tracing::error!(reason, "a part of the topology is gone"),
        (true, None) => tracing::info!("the topology is whole again"),
        (false, _) => {}
    }
}

/// A copy of what matched nothing came, by `exchange` and `key`: where these should lead to a queue of ours, a binding is
/// gone.
pub(super) fn came_unrouted(shared: &Shared, exchange: &str, key: &str) {
    if !is_bound(&shared.prefix, exchange, key) {
        return;
    }
    match shared.mode {
        TopologyMode::Declare => {
            tracing::warn!(exchange, key, "a message matched no queue: a binding is gone, all are made again");
            shared.unbound.notify_one();
        }
        TopologyMode::Skip => {}
        TopologyMode::Verify => {
            let found = format!(
                "a binding is gone: a message for exchange {exchange}, key {key} matched no queue and lies on \
                 {}.unrouted; remedy: run once with --topology declare, or bind what `genfleet topology` prints",
                shared.prefix
            );
            if shared.board.misses_binding(found) {
                tracing::error!(exchange, key, "a message matched no queue: a binding is gone");
            }
        }
    }
}

/// Whether the topology has a queue for it.
fn is_bound(prefix: &str, exchange: &str, key: &str) -> bool {
    let names = |kind: Kind| format!(".{key}.").contains(&format!(".{kind}."));
    if exchange == jobs_exchange(prefix) {
        return Kind::of_producers().any(|kind| kind.as_str() == key);
    }
    (is_ours(prefix, exchange) || exchange == dead_exchange(prefix)) && Kind::ALL.into_iter().any(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_topology_has_no_queue_for_proves_nothing() {
        for (exchange, key) in [
            ("g.jobs", "cdn.purge"),
            ("g.work", "file.scan.resume"),
            ("g.delay.03", "1.0.1.webhook.deliver"),
            ("g.dead", "cdn.purge.resume"),
        ] {
            assert!(is_bound("g", exchange, key), "{exchange} {key}");
        }
        for (exchange, key) in [
            ("g.jobs", "cdn.purg"),
            ("g.jobs", "webhook.deliver"),
            ("g.jobs", "cdn.purge.resume"),
            ("g.dead", "unknown"),
            ("g.work", "newer.kind"),
            ("others", "cdn.purge"),
        ] {
            assert!(!is_bound("g", exchange, key), "{exchange} {key}");
        }
    }

    #[test]
    fn what_is_missing_is_told_until_it_is_back_and_a_binding_for_a_while() {
        let (mut missing, now) = (Missing::default(), Instant::now());
        assert!(missing.looked(Some("a".to_owned())) && !missing.looked(Some("a".to_owned())), "told once");
        assert!(missing.unbound("b".to_owned(), now) && !missing.unbound("b".to_owned(), now));
        assert_eq!(missing.told(now).collect::<Vec<_>>(), ["a", "b"]);
        assert!(missing.looked(None) && !missing.looked(None));
        assert_eq!(missing.told(now + REMEMBERED).count(), 0);
    }
}
