//! What admission control holds back, for the process's status and its metrics.

use tokio::time::Instant;

use super::AdmissionControl;
use crate::admission::{ActiveHold, AdmissionGauges, ClosedReason};

impl AdmissionControl {
    pub(crate) fn active_holds(&self, now: Instant) -> Vec<ActiveHold> {
        let hold = |reason, why: String, kind, until: Option<Instant>| {
            let for_another = until.map(|until| until.saturating_duration_since(now));
            ActiveHold { reason, why, kind, for_another }
        };
        let pause = self.pause.ends(now).map(|ends| {
            let lasts = |until: Option<Instant>| until.is_some_and(|until| until > now);
            let why = match (lasts(self.client_limit_until), lasts(self.peer_limit_until)) {
                (true, _) => "the API asked for a pause, for all tokens of the client",
                (false, true) => "the API asked another process for a pause, for all tokens of the client",
                (false, false) => "the API asked for a pause",
            };
            hold(ClosedReason::Throttled, why.to_owned(), None, Some(ends))
        });
        let probe = self.breaker.next_probe().filter(|_| !self.breaker.is_untaken(now));
        let outage = probe.map(|probe| hold(ClosedReason::ApiUnavailable, self.outage(), None, Some(probe)));
        let credentials = self.credentials.reason().map(|reason| {
            let why = format!("our credentials are refused: {reason}");
            hold(ClosedReason::Credentials, why, None, self.credentials.next_try())
        });
        let audit = self.audit.clone().map(|why| hold(ClosedReason::Audit, why, None, None));
        let permissions = self.permissions.all(now).map(|(kind, endpoint)| {
            let why = format!("{endpoint} is forbidden");
            hold(ClosedReason::Forbidden, why, Some(kind), self.permissions.next_probe(kind))
        });
        let services = self.services.all(now).map(|(kind, endpoint, namespace, until)| {
            let why = format!("the API asked for a pause of {endpoint}, by the limit of {namespace}");
            hold(ClosedReason::ServiceLimit, why, Some(kind), Some(until))
        });
        let workers = self.workers.all().map(|(kind, own)| {
            hold(ClosedReason::Worker(own.reason), own.why.clone(), Some(kind), Some(own.next_look))
        });
        let whole = audit.into_iter().chain(credentials).chain(pause).chain(outage);
        whole.chain(permissions).chain(services).chain(workers).collect()
    }

    /// Describes the outage and its causes; `None` while the API answers.
    pub(crate) fn describe_outage(&self) -> Option<String> {
        self.breaker.next_probe().map(|_| self.outage())
    }

    fn outage(&self) -> String {
        format!("Genesys Cloud is not answering: {}", self.causes.describe())
    }

    /// Describes the failures of requests if there are more than one or two.
    pub(crate) fn describe_failures(&self, now: Instant) -> Option<String> {
        if self.breaker.is_untaken(now) {
            return None;
        }
        let failures = || Some(format!("requests to the API fail: {}", self.causes.describe_if_relevant(now)?));
        self.describe_outage().or_else(failures)
    }

    /// Describes what failed when it was last tried, and is tried again with the next job, since none waits.
    pub(crate) fn untaken_probes(&self, now: Instant) -> Vec<String> {
        let outage = self
            .breaker
            .is_untaken(now)
            .then(|| format!("Genesys Cloud did not answer ({}); the next job tries it again", self.causes.describe()));
        let permissions = self
            .permissions
            .untaken(now)
            .map(|(kind, endpoint)| format!("{kind} was forbidden on {endpoint}; the next job tries it again"));
        outage.into_iter().chain(permissions).collect()
    }

    pub(crate) fn gauges(&mut self, now: Instant) -> AdmissionGauges {
        let is_held = |reason| match reason {
            ClosedReason::Throttled => self.pause.ends(now).is_some(),
            ClosedReason::ServiceLimit => self.services.all(now).next().is_some(),
            ClosedReason::ApiUnavailable => self.breaker.next_probe().is_some() && !self.breaker.is_untaken(now),
            ClosedReason::Credentials => self.credentials.reason().is_some(),
            ClosedReason::Forbidden => self.permissions.all(now).next().is_some(),
            ClosedReason::Audit => self.audit.is_some(),
            ClosedReason::Worker(reason) => self.workers.all().any(|(_, hold)| hold.reason == reason),
        };
        let workers = self.workers.states().map(|(reason, is_held)| (ClosedReason::Worker(reason), is_held));
        let holds = ClosedReason::ALL.into_iter().map(|reason| (reason, is_held(reason))).chain(workers).collect();
        AdmissionGauges { holds, time_paused: self.pause.total(now), budget_left: self.budget.remaining(now) }
    }
}
