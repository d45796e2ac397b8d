//! Checks every minute that the topology still exists, because a part of it may be deleted while processes run. Uses
//! its own channel, which a refusal closes, on the consuming connection, which no alarm of the broker blocks.
//!
//! AMQP cannot query bindings. With `--topology declare` every binding is declared again, which changes nothing if it
//! exists. With `verify` a missing one is noticed by the first message that it should have routed: a process receives a
//! copy of that message ([`super::unknown_kinds`]).

use std::{future::pending, sync::Arc, time::Duration};

use tokio::time::timeout;

use super::{
    declare,
    link::{Link, SessionError, SessionTaskEnd},
    missing::warn_of_missing_events,
    settings::TopologyMode,
    shared::Shared,
};
use crate::topology::{dead_exchange, is_ours, jobs_exchange};
use genfleet_job::Kind;

/// Approximate interval of the checks.
const EVERY: Duration = Duration::from_secs(60);

/// Checks until the session ends.
pub(super) async fn check(shared: Arc<Shared>, link: Arc<Link>) -> SessionTaskEnd {
    // The session began with a full check.
    report(&shared, None);
    if shared.mode == TopologyMode::Skip {
        return pending().await;
    }
    loop {
        // Processes that were started together check one after the other.
        let pause = EVERY.min(shared.watchdog).mul_f64(0.9 + 0.2 * fastrand::f64());
        let _ = timeout(pause, shared.unbound.notified()).await;
        let found = declare::check_exists(&shared, link.connection()).await;
        if link.session.is_over() {
            return pending().await;
        }
        let missing = match (found, shared.mode) {
            (Err(missing), TopologyMode::Declare) => repair(&shared, &link, missing).await,
            (found, _) => found.err(),
        };
        report(&shared, missing);
    }
}

/// Declares everything again, and returns what is still missing.
async fn repair(shared: &Shared, link: &Link, missing: SessionError) -> Option<SessionError> {
    match declare::prepare(shared, link.connection()).await {
        Ok(()) => {
            tracing::warn!(missing, "a part of the topology was gone: it is declared again");
            warn_of_missing_events(&shared.prefix, &missing);
            None
        }
        Err(reason) => Some(reason),
    }
}

fn report(shared: &Shared, missing: Option<SessionError>) {
    match (shared.health.set_missing(missing.clone()), missing) {
        (true, Some(reason)) => tracing::error!(reason, "a part of the topology is missing"),
        (true, None) => tracing::info!("the topology is whole again"),
        (false, _) => {}
    }
}

/// Records that a message with this exchange and key matched no queue. If the topology has a queue for them, a binding
/// is missing.
pub(super) fn note_unrouted(shared: &Shared, exchange: &str, key: &str) {
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
            let problem = format!(
                "a message for exchange {exchange}, key {key} matched no queue and lies on \
                 {}.unrouted; remedy: run once with --topology declare, or bind what `genfleet topology` prints",
                shared.prefix
            );
            if shared.health.add_missing_binding(problem) {
                tracing::error!(exchange, key, "a message matched no queue: a binding is gone");
            }
        }
    }
}

/// Returns true if the topology has a queue for this exchange and key.
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
}
