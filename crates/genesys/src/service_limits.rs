//! Limits that a service of the platform has of its own (`limit.namespace` of a 429): they hold the endpoint that met one,
//! for the kind of job that called it, and nobody else. Holds nobody itself: [`crate::permit`] does.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use crate::rate_limit_pause::RateLimitPause;
use genfleet_job::Kind;

/// What is held. Endpoints are templates of paths, so these are few.
#[derive(Debug, Default)]
pub(crate) struct ServiceLimits {
    held: HashMap<(Kind, &'static str), Held>,
}

#[derive(Debug, Default)]
struct Held {
    gate: RateLimitPause,
    namespace: String,
}

impl ServiceLimits {
    /// The service said "later" to a request sent at `sent`; `wait` where it said how long. True where that changes anything.
    pub(crate) fn throttled(
        &mut self,
        (kind, endpoint): (Kind, &'static str),
        namespace: String,
        (sent, now): (Instant, Instant),
        wait: Option<Duration>,
    ) -> bool {
        let held = self.held.entry((kind, endpoint)).or_default();
        held.namespace = namespace;
        held.gate.throttled(sent, now, wait)
    }

    /// A request sent at `sent` was let through.
    pub(crate) fn succeeded(&mut self, kind: Kind, endpoint: &'static str, sent: Instant) {
        if let Some(held) = self.held.get_mut(&(kind, endpoint)) {
            held.gate.succeeded(sent);
        }
    }

    /// Until when `kind` sends nothing to `endpoint`; `None` while it may.
    pub(crate) fn opens(&self, kind: Kind, endpoint: &'static str, now: Instant) -> Option<Instant> {
        self.held.get(&(kind, endpoint))?.gate.opens(now)
    }

    /// All that is held: the kind, the endpoint, whose limit it is, and until when.
    pub(crate) fn all(&self, now: Instant) -> impl Iterator<Item = (Kind, &'static str, &str, Instant)> {
        self.held.iter().filter_map(move |((kind, endpoint), held)| {
            Some((*kind, *endpoint, held.namespace.as_str(), held.gate.opens(now)?))
        })
    }
}
