//! Limits of single services of the platform (`limit.namespace` of a 429). Each holds only the endpoint that reported
//! it, for the kind of job that called it.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use crate::rate_limit_pause::RateLimitPause;
use genfleet_job::Kind;

/// The endpoints on hold. They are templates of paths, so these are few.
#[derive(Debug, Default)]
pub(crate) struct ServiceLimits {
    holds: HashMap<(Kind, &'static str), ServiceHold>,
}

#[derive(Debug, Default)]
struct ServiceHold {
    pause: RateLimitPause,
    namespace: String,
}

impl ServiceLimits {
    /// Begins or prolongs a pause after an answer to a request sent at `sent`; `wait` if the answer named one. True
    /// where that changes anything.
    pub(crate) fn begin_pause(
        &mut self,
        (kind, endpoint): (Kind, &'static str),
        namespace: &str,
        (sent, now): (Instant, Instant),
        wait: Option<Duration>,
    ) -> bool {
        let hold = self.holds.entry((kind, endpoint)).or_default();
        namespace.clone_into(&mut hold.namespace);
        hold.pause.begin(sent, now, wait)
    }

    /// Records that a request sent at `sent` was let through.
    pub(crate) fn note_success(&mut self, kind: Kind, endpoint: &'static str, sent: Instant) {
        if let Some(hold) = self.holds.get_mut(&(kind, endpoint)) {
            hold.pause.note_success(sent);
        }
    }

    /// Returns until when `kind` sends nothing to `endpoint`; `None` while it may.
    pub(crate) fn held_until(&self, kind: Kind, endpoint: &'static str, now: Instant) -> Option<Instant> {
        self.holds.get(&(kind, endpoint))?.pause.ends(now)
    }

    /// Lists the kind, the endpoint, the namespace of the limit, and the end of each hold.
    pub(crate) fn all(&self, now: Instant) -> impl Iterator<Item = (Kind, &'static str, &str, Instant)> {
        self.holds.iter().filter_map(move |((kind, endpoint), hold)| {
            Some((*kind, *endpoint, hold.namespace.as_str(), hold.pause.ends(now)?))
        })
    }
}
