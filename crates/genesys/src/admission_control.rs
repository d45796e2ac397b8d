//! Admission control: the one place where credentials, the API's pause, the circuit breaker, permissions, the token,
//! slow start and budget decide together, in this order, whether a request may be sent. A state machine over the time,
//! without I/O.

use std::time::Duration;

use tokio::{sync::watch, time::Instant};
use tracing::{info, warn};

use crate::{
    admission::{Admission, AdmissionRefusal, ClosedReason, QueuePosition, Requester},
    budget::{Budget, BudgetReservation},
    circuit_breaker::{CircuitBreaker, RequestRole},
    credential_hold::CredentialHold,
    failure_causes::FailureCauses,
    options::GenesysOptions,
    permission_hold::PermissionHolds,
    rate_limit_pause::{self, RateLimitPause},
    send_time::SendTime,
    service_limits::ServiceLimits,
    slow_start::{HealthSign, SlowStart, SlowStartSlot},
    token::{Token, TokenGrant, TokenSlot},
    worker_holds::{WorkerHold, WorkerHolds},
};
use genfleet_job::{JobId, Kind};

mod outcome;
mod report;

/// The next step of a caller that wants to send a request.
#[derive(Debug)]
pub(crate) enum AdmissionStep {
    Send(SendGrant, Token),
    /// Waits until it is the first in the queue.
    Queue,
    /// Requests a token.
    WaitForToken,
    /// Waits until then, or until something changes.
    WaitUntil(Instant),
    Refused(AdmissionRefusal),
}

/// What admission control has set aside for one request: its budget, its place in the slow start, and whether it is a
/// probe. It is handed back with the request's outcome.
#[derive(Debug)]
#[must_use]
pub(crate) struct SendGrant {
    reservation: BudgetReservation,
    slot: SlowStartSlot,
    role: RequestRole,
    permission: RequestRole,
    token: u64,
}

impl SendGrant {
    pub(crate) fn is_probe(&self) -> bool {
        self.role == RequestRole::Probe
    }
}

#[derive(Debug)]
pub(crate) struct AdmissionControl {
    pause: RateLimitPause,
    pub(crate) services: ServiceLimits,
    breaker: CircuitBreaker,
    causes: FailureCauses,
    pub(crate) credentials: CredentialHold,
    pub(crate) permissions: PermissionHolds,
    pub(crate) workers: WorkerHolds,
    slow_start: SlowStart,
    pub(crate) budget: Budget,
    /// The time until which the client's limit is exhausted, as the API reported it to this process.
    client_limit_until: Option<Instant>,
    /// The time until which it is exhausted, as another process reported it.
    peer_limit_until: Option<Instant>,
    pub(crate) tokens: TokenSlot,
    /// The reason why the audit cannot be written.
    pub(crate) audit: Option<String>,
    changes: watch::Sender<u64>,
}

impl AdmissionControl {
    /// Begins with everything open and without a token.
    pub(crate) fn new(options: &GenesysOptions) -> Self {
        Self {
            pause: RateLimitPause::default(),
            services: ServiceLimits::default(),
            breaker: CircuitBreaker::new(options.breaker_window, options.breaker_probe),
            causes: FailureCauses::default(),
            credentials: CredentialHold::new(options.credentials_probe),
            permissions: PermissionHolds::new(options.forbidden_probe),
            workers: WorkerHolds::default(),
            slow_start: SlowStart::default(),
            budget: Budget::new(options.requests_per_minute, options.client_requests_per_minute),
            client_limit_until: None,
            peer_limit_until: None,
            tokens: TokenSlot::default(),
            audit: None,
            changes: watch::Sender::new(0),
        }
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Decides whether workers of `kind` may start jobs now.
    pub(crate) fn admission(&self, kind: Kind, now: Instant) -> Admission {
        let closed = |reason, reopens, probe| Admission::Closed { reason, reopens, probe };
        if self.audit.is_some() {
            return closed(ClosedReason::Audit, None, None);
        }
        if self.credentials.reason().is_some() && !self.workers.is_exempt(kind) {
            return closed(ClosedReason::Credentials, None, None);
        }
        if let Some(hold) = self.workers.of(kind).filter(|hold| hold.closes_intake) {
            let probe = self.workers.is_exempt(kind).then_some(hold.next_look);
            return closed(ClosedReason::Worker(hold.reason), Some(hold.next_look), probe);
        }
        if self.workers.is_exempt(kind) {
            return Admission::Open;
        }
        if self.pause.closes_intake(now) {
            return closed(ClosedReason::Throttled, self.pause.ends(now), None);
        }
        if let Some(probe) = self.breaker.next_probe() {
            return closed(ClosedReason::ApiUnavailable, None, Some(probe));
        }
        match self.permissions.next_probe(kind) {
            Some(probe) => closed(ClosedReason::Forbidden, None, Some(probe)),
            None => Admission::Open,
        }
    }

    /// Returns true if requests are only probes: then one is enough to learn whether things are well again.
    pub(crate) fn is_probing(&self) -> bool {
        self.next_probe().is_some() || self.credentials.reason().is_some()
    }

    /// Returns when an API that does not answer is asked again; `None` while it answers.
    pub(crate) fn next_probe(&self) -> Option<Instant> {
        self.breaker.next_probe()
    }

    pub(crate) fn step(&mut self, requester: Requester<'_>, position: QueuePosition, now: Instant) -> AdmissionStep {
        if let Some(refusal) = self.refusal(requester, now) {
            return AdmissionStep::Refused(refusal);
        }
        if let Some(ends) = self.pause.ends(now) {
            return AdmissionStep::WaitUntil(ends);
        }
        let Some(token) = self.tokens.good(now).cloned() else { return AdmissionStep::WaitForToken };
        if position == QueuePosition::Outside {
            return AdmissionStep::Queue;
        }
        for time in [self.slow_start.ready(now), self.budget.ready(now)] {
            if let SendTime::At(next) = time {
                return AdmissionStep::WaitUntil(next);
            }
        }
        let role = self.breaker.admit(now);
        let permission = self.permissions.admit(requester.kind, requester.jobs, now);
        let (reservation, slot) = (self.budget.take(now), self.slow_start.take(now));
        if (role, permission) != (RequestRole::Normal, RequestRole::Normal) {
            // The next probe is later now.
            self.announce_change();
        }
        AdmissionStep::Send(SendGrant { reservation, slot, role, permission, token: token.number }, token)
    }

    fn refusal(&self, requester: Requester<'_>, now: Instant) -> Option<AdmissionRefusal> {
        if let Some(reason) = self.credentials.reason() {
            return Some(AdmissionRefusal::Credentials(reason.to_owned()));
        }
        let long_pause = self.pause.ends(now).filter(|ends| *ends - now > rate_limit_pause::MAX_WAIT_IN_MEMORY);
        let held = |reason| move |until| AdmissionRefusal::Held(reason, until);
        let forbidden = || self.permissions.held_until(requester.kind, requester.jobs, now);
        long_pause
            .map(held(ClosedReason::Throttled))
            .or_else(|| self.breaker.held_until(now).map(held(ClosedReason::ApiUnavailable)))
            .or_else(|| forbidden().map(held(ClosedReason::Forbidden)))
    }

    /// Returns true if nothing has happened since `grant` was given that forbids sending with it.
    pub(crate) fn still_admits(
        &self,
        grant: &SendGrant,
        requester: Requester<'_>,
        endpoint: &'static str,
        now: Instant,
    ) -> bool {
        let Requester { kind, jobs } = requester;
        self.services.held_until(kind, endpoint, now).is_none()
            && self.credentials.reason().is_none()
            && self.pause.ends(now).is_none()
            && (grant.role == RequestRole::Probe || self.breaker.next_probe().is_none())
            && (grant.permission == RequestRole::Probe || self.permissions.held_until(kind, jobs, now).is_none())
            && self.tokens.good(now).is_some_and(|token| token.number == grant.token)
    }

    /// Takes back an unused grant.
    pub(crate) fn return_unused(&mut self, grant: SendGrant, now: Instant) {
        self.budget.give_back(grant.reservation);
        self.slow_start.free(&grant.slot, HealthSign::Unhealthy);
        self.abandon_probe(grant.role, now);
    }

    fn abandon_probe(&mut self, role: RequestRole, now: Instant) {
        self.breaker.abandon(role, now);
        if role == RequestRole::Probe {
            self.announce_change();
        }
    }

    pub(crate) fn store_token(&mut self, grant: TokenGrant, now: Instant) {
        self.tokens.store(grant, now);
        self.budget.new_token();
        if self.credentials.end() {
            info!("a token was given: the credentials are good again");
            self.slow_start.restart();
        }
        self.announce_change();
    }

    /// Counts a caller that got no token, for a reason that is not ours, as a failed request of its jobs.
    pub(crate) fn record_no_token(&mut self, requester: Requester<'_>, now: Instant) {
        let change = self.breaker.record_no_token(requester.jobs, now);
        self.report_breaker(change);
    }

    /// Holds all requests until a token is given: the credentials are bad.
    pub(crate) fn hold_for_credentials(&mut self, why: &str, now: Instant) {
        if self.credentials.begin(why, now) {
            warn!(why, "credentials refused: nothing is sent until a token is given");
            self.announce_change();
        }
    }

    /// Records why the audit cannot be written, or that it can. Requests that only read are still sent.
    pub(crate) fn set_audit_trouble(&mut self, trouble: Option<String>) {
        if self.audit != trouble {
            self.audit = trouble;
            self.announce_change();
        }
    }

    /// Returns true if a new token is due, though the old one is good.
    pub(crate) fn wants_token(&self, now: Instant) -> bool {
        self.tokens.is_due(now) && self.pause.ends(now).is_none()
    }

    /// Takes a due try of bad credentials. The next one is due an interval later.
    pub(crate) fn take_credentials_try(&mut self, now: Instant) -> bool {
        self.pause.ends(now).is_none() && self.credentials.take_try(now)
    }

    /// Begins, changes or ends the hold that the worker of `kind` sets itself.
    pub(crate) fn set_worker_hold(&mut self, kind: Kind, hold: Option<WorkerHold>) {
        let reported = hold.clone();
        if !self.workers.set(kind, hold) {
            return;
        }
        if let Some(WorkerHold { reason, why, .. }) = reported {
            warn!(%kind, reason, why, "this kind is on hold");
        } else {
            info!(%kind, "the hold of this kind is over");
        }
        self.announce_change();
    }

    /// Handles a 403 of `job`. Returns until when the job waits; `None` if it fails.
    pub(crate) fn judge_forbidden(
        &mut self,
        kind: Kind,
        endpoint: &'static str,
        job: &JobId,
        now: Instant,
    ) -> Option<Instant> {
        let (until, begins) = self.permissions.judge(kind, endpoint, job, now);
        if begins {
            warn!(%kind, endpoint, "forbidden for five jobs in a row: this kind is on hold");
            self.announce_change();
        }
        until
    }

    /// Applies changes that only depend on time. Returns the latest time of the next call.
    pub(crate) fn tick(&mut self, now: Instant) -> Instant {
        if self.pause.take_end(now) {
            info!("the pause is over: starting slowly");
            self.announce_change();
        }
        let next = now + Duration::from_secs(1);
        let times = [self.pause.ends(now), self.credentials.next_try()].into_iter().flatten();
        times.filter(|at| *at > now).fold(next, Instant::min)
    }

    fn announce_change(&self) {
        self.changes.send_modify(|count| *count += 1);
    }
}
