//! The admission that every request goes through: the one place where brakes, gate, breaker, token, slow start and budget
//! come together, in this order. A state machine over the time; waiting before it is [`crate::permit`]'s.

use std::time::Duration;

use tokio::{sync::watch, time::Instant};
use tracing::{info, warn};

use crate::{
    admission::{Admission, ClosedReason, RequestOutcome, AdmissionGauges, QueuePosition, AdmissionRefusal, ApiSignal, SentRequest, ActiveHold, AdmissionStep, Requester},
    brake::{CredentialHold, PermissionHolds, Judgement},
    circuit_breaker::{CircuitBreaker, RequestRole, BreakerChange},
    budget::{Budget, LimitShare, SendTime, BudgetReservation, BudgetUsage},
    rate_limit_pause::{self, RateLimitPause, Intake},
    limits::LimitScope,
    options::GenesysOptions,
    failure_causes::FailureCauses,
    service_limits::ServiceLimits,
    slow_start::{SlowStartSlot, SlowStart, HealthSign},
    token::{TokenGrant, TokenSlot},
};
use genfleet_job::{JobId, Kind};

/// Leave to send one request. Handed back once it is known what became of it.
#[derive(Debug)]
#[must_use]
pub(crate) struct SendGrant {
    share: BudgetReservation,
    place: SlowStartSlot,
    pass: RequestRole,
    permission: RequestRole,
    token: u64,
}

impl SendGrant {
    /// Whether its request tries if the API answers again.
    pub(crate) fn is_probe(&self) -> bool {
        self.pass == RequestRole::Probe
    }
}

/// All that decides whether a request may go.
#[derive(Debug)]
pub(crate) struct AdmissionControl {
    gate: RateLimitPause,
    services: ServiceLimits,
    breaker: CircuitBreaker,
    causes: FailureCauses,
    credentials: CredentialHold,
    forbidden: PermissionHolds,
    slow_start: SlowStart,
    budget: Budget,
    /// Until when the client's limit is closed, as the API told this process.
    client_shut: Option<Instant>,
    /// The same, as another process told.
    others_shut: Option<Instant>,
    tokens: TokenSlot,
    /// Why the audit cannot be written.
    audit: Option<String>,
    changes: watch::Sender<u64>,
}

impl AdmissionControl {
    /// All open, no token yet.
    pub(crate) fn new(options: &GenesysOptions) -> Self {
        Self {
            gate: RateLimitPause::default(),
            services: ServiceLimits::default(),
            breaker: CircuitBreaker::new(options.breaker_window, options.breaker_probe),
            causes: FailureCauses::default(),
            credentials: CredentialHold::new(options.credentials_probe),
            forbidden: PermissionHolds::new(options.forbidden_probe),
            slow_start: SlowStart::default(),
            budget: Budget::new(options.requests_per_minute, options.client_requests_per_minute),
            client_shut: None,
            others_shut: None,
            tokens: TokenSlot::default(),
            audit: None,
            changes: watch::Sender::new(0),
        }
    }

    /// Bumped whenever an admission may have changed.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// May workers of `kind` start jobs now?
    pub(crate) fn admission(&self, kind: Kind, now: Instant) -> Admission {
        let closed = |reason, reopens, probe| Admission::Closed { reason, reopens, probe };
        if self.audit.is_some() {
            return closed(ClosedReason::Audit, None, None);
        }
        if self.credentials.why().is_some() {
            return closed(ClosedReason::Credentials, None, None);
        }
        if self.gate.intake(now) == Intake::Closed {
            return closed(ClosedReason::Throttled, self.gate.opens(now), None);
        }
        if let Some(probe) = self.breaker.next_probe() {
            return closed(ClosedReason::ApiUnavailable, None, Some(probe));
        }
        match self.forbidden.next_probe(kind) {
            Some(probe) => closed(ClosedReason::Forbidden, None, Some(probe)),
            None => Admission::Open,
        }
    }

    /// Whether it is tried from time to time if anything is given at all: then one request is enough.
    pub(crate) fn is_probing(&self) -> bool {
        self.next_probe().is_some() || self.credentials.why().is_some()
    }

    /// When an API that answers nobody is asked again; `None` while it answers.
    pub(crate) fn next_probe(&self) -> Option<Instant> {
        self.breaker.next_probe()
    }

    /// What a caller does next to send one request.
    pub(crate) fn step(&mut self, who: Requester<'_>, line: QueuePosition, now: Instant) -> AdmissionStep {
        if let Some(refusal) = self.refusal(who, now) {
            return AdmissionStep::Refused(refusal);
        }
        if let Some(opens) = self.gate.opens(now) {
            return AdmissionStep::Wait(opens);
        }
        let Some(token) = self.tokens.good(now).cloned() else { return AdmissionStep::WaitForToken };
        if line == QueuePosition::Outside {
            return AdmissionStep::BreakerChange;
        }
        for ready in [self.slow_start.ready(now), self.budget.ready(now)] {
            if let SendTime::At(next) = ready {
                return AdmissionStep::Wait(next);
            }
        }
        let (pass, permission) = (self.breaker.take(now), self.forbidden.take(who.kind, who.jobs, now));
        let (share, place) = (self.budget.take(now), self.slow_start.take(now));
        if (pass, permission) != (RequestRole::Free, RequestRole::Free) {
            // The next probe is later now.
            self.announce();
        }
        AdmissionStep::Go(SendGrant { share, place, pass, permission, token: token.number }, token)
    }

    fn refusal(&self, who: Requester<'_>, now: Instant) -> Option<AdmissionRefusal> {
        if let Some(why) = self.credentials.why() {
            return Some(AdmissionRefusal::Credentials(why.to_owned()));
        }
        let long = self.gate.opens(now).filter(|opens| *opens - now > rate_limit_pause::LONG);
        let held = |reason| move |until| AdmissionRefusal::Held(reason, until);
        long.map(held(ClosedReason::Throttled))
            .or_else(|| self.breaker.held(now).map(held(ClosedReason::ApiUnavailable)))
            .or_else(|| self.forbidden.held(who.kind, who.jobs, now).map(held(ClosedReason::Forbidden)))
    }

    /// Until when `kind` sends nothing to `endpoint`, since the limit of a service is closed; `None` while it may.
    pub(crate) fn service_opens(&self, kind: Kind, endpoint: &'static str, now: Instant) -> Option<Instant> {
        self.services.opens(kind, endpoint, now)
    }

    /// Has nothing come up since `grant` was given that forbids sending with it?
    pub(crate) fn still_goes(&self, grant: &SendGrant, who: Requester<'_>, endpoint: &'static str, now: Instant) -> bool {
        self.services.opens(who.kind, endpoint, now).is_none()
            && self.credentials.why().is_none()
            && self.gate.opens(now).is_none()
            && (grant.pass == RequestRole::Probe || self.breaker.next_probe().is_none())
            && (grant.permission == RequestRole::Probe || self.forbidden.held(who.kind, who.jobs, now).is_none())
            && self.tokens.good(now).is_some_and(|token| token.number == grant.token)
    }

    /// Nothing was sent with `grant`.
    pub(crate) fn unused(&mut self, grant: SendGrant, now: Instant) {
        self.budget.give_back(grant.share);
        self.slow_start.ended(&grant.place, HealthSign::Otherwise);
        self.abandoned(grant.pass, now);
    }

    fn abandoned(&mut self, pass: RequestRole, now: Instant) {
        self.breaker.abandoned(pass, now);
        if pass == RequestRole::Probe {
            self.announce();
        }
    }

    /// A request that was sent ended.
    pub(crate) fn ended(&mut self, grant: SendGrant, request: SentRequest<'_>, fate: RequestOutcome, now: Instant) {
        let SendGrant { share, place, pass, permission: _, token: _ } = grant;
        let went = match fate {
            RequestOutcome::Answered { status, rates, said } => {
                self.budget.answered(share, request.at, now, rates);
                self.heard(request, status, said, now)
            }
            RequestOutcome::NeverSent => {
                self.budget.give_back(share);
                HealthSign::Otherwise
            }
            RequestOutcome::Lost => {
                self.budget.lost(share, now);
                HealthSign::Otherwise
            }
            RequestOutcome::Dropped => {
                self.budget.lost(share, now);
                self.slow_start.ended(&place, HealthSign::Otherwise);
                return self.abandoned(pass, now);
            }
        };
        self.slow_start.ended(&place, went);
        let turn = self.breaker.ended(pass, went, request.who.jobs, now);
        self.turned(turn);
    }

    fn heard(&mut self, request: SentRequest<'_>, status: u16, said: ApiSignal, now: Instant) -> HealthSign {
        let SentRequest { who, endpoint, at } = request;
        if (200..300).contains(&status) && self.forbidden.permitted(who.kind, endpoint) {
            info!(kind = %who.kind, endpoint, "permitted again: the brake is off");
            self.announce();
        }
        if status == 403 {
            self.forbidden.refused(who.kind, endpoint);
        }
        match said {
            ApiSignal::Fine => {
                if self.breaker.next_probe().is_none() {
                    self.causes.forget();
                }
                self.gate.succeeded(at);
                self.services.succeeded(who.kind, endpoint, at);
            }
            ApiSignal::Failing => return HealthSign::Otherwise,
            // An API that says so is not away.
            ApiSignal::Later(wait, LimitScope::Token) => self.throttled(at, now, wait),
            ApiSignal::Later(wait, LimitScope::Client) => {
                self.throttled(at, now, wait);
                self.note_client_wide(now, wait);
            }
            ApiSignal::Later(wait, LimitScope::Service(namespace)) => self.service_throttled(request, namespace, now, wait),
        }
        HealthSign::Well
    }

    fn service_throttled(&mut self, request: SentRequest<'_>, namespace: String, now: Instant, wait: Option<Duration>) {
        let SentRequest { who: Requester { kind, .. }, endpoint, at } = request;
        let told = namespace.clone();
        if self.services.throttled((kind, endpoint), namespace, (at, now), wait) {
            let seconds = self.services.opens(kind, endpoint, now).map_or(0, |opens| (opens - now).as_secs());
            warn!(%kind, endpoint, namespace = told, seconds, "throttled by a limit of this service: all else goes on");
            self.announce();
        }
    }

    /// The API, or the token endpoint, said "later".
    pub(crate) fn throttled(&mut self, sent: Instant, now: Instant, wait: Option<Duration>) {
        if self.gate.throttled(sent, now, wait) {
            let seconds = self.gate.opens(now).map_or(0, |opens| (opens - now).as_secs());
            warn!(seconds, "throttled: nothing is sent until then");
            self.slow_start.restart();
            self.announce();
        }
    }

    fn note_client_wide(&mut self, now: Instant, wait: Option<Duration>) {
        let until = wait.map(|wait| now + wait).or(self.gate.opens(now));
        if until > self.client_shut {
            self.client_shut = until;
            self.announce();
        }
    }

    /// How long the client's limit is closed still, as this process was told by the API itself.
    pub(crate) fn client_shut(&self, now: Instant) -> Option<Duration> {
        self.client_shut.filter(|until| *until > now).map(|until| until - now)
    }

    /// Another process of the client was told that the client's limit is closed, for so long from now on.
    pub(crate) fn told_client_shut(&mut self, now: Instant, wait: Duration) {
        if self.gate.told(now, wait) {
            self.others_shut = Some(now + wait);
            let seconds = wait.as_secs();
            warn!(seconds, "another process met the client's limit: nothing is sent until then");
            self.slow_start.restart();
            self.announce();
        }
    }

    /// What is the process's of the client's limit from now on.
    pub(crate) fn allot(&mut self, part: LimitShare, now: Instant) {
        self.budget.allot(part, now);
    }

    /// What was spent, and what may be.
    pub(crate) fn spending(&mut self, now: Instant) -> BudgetUsage {
        self.budget.spending(now)
    }

    /// All that is shut, and why.
    pub(crate) fn shut(&self, now: Instant) -> Vec<ActiveHold> {
        let shut = |reason, why: String, kind, until: Option<Instant>| {
            let for_another = until.map(|until| until.saturating_duration_since(now));
            ActiveHold { reason, why, kind, for_another }
        };
        let throttled = self.gate.opens(now).map(|opens| {
            let is_shut = |until: Option<Instant>| until.is_some_and(|until| until > now);
            let why = match (is_shut(self.client_shut), is_shut(self.others_shut)) {
                (true, _) => "the API said later, to all of the client",
                (false, true) => "the API said later to another process, and to all of the client",
                (false, false) => "the API said later",
            };
            shut(ClosedReason::Throttled, why.to_owned(), None, Some(opens))
        });
        let away =
            self.breaker.next_probe().map(|probe| shut(ClosedReason::ApiUnavailable, self.outage(), None, Some(probe)));
        let credentials = self.credentials.why().map(|why| {
            let why = format!("our credentials are refused: {why}");
            shut(ClosedReason::Credentials, why, None, self.credentials.next_try())
        });
        let audit = self.audit.clone().map(|why| shut(ClosedReason::Audit, why, None, None));
        let forbidden = self.forbidden.all_on().map(|(kind, endpoint)| {
            let why = format!("{endpoint} is forbidden");
            shut(ClosedReason::Forbidden, why, Some(kind), self.forbidden.next_probe(kind))
        });
        let services = self.services.all(now).map(|(kind, endpoint, namespace, opens)| {
            let why = format!("the API said later to {endpoint}, by a limit of {namespace}");
            shut(ClosedReason::ServiceLimit, why, Some(kind), Some(opens))
        });
        let whole = audit.into_iter().chain(credentials).chain(throttled).chain(away);
        whole.chain(forbidden).chain(services).collect()
    }

    /// A request failed by this, for a reason that is not its own. To be said before its end.
    pub(crate) fn fails(&mut self, cause: &str, now: Instant) {
        if self.causes.note(cause, now) && self.breaker.next_probe().is_none() {
            warn!(causes = self.causes.told(), "requests to the API fail");
        }
    }

    /// The outage, and why it is one.
    fn outage(&self) -> String {
        format!("the API answers nobody: {}", self.causes.told())
    }

    /// Why the API is asked by probes alone; `None` while it answers.
    pub(crate) fn away(&self) -> Option<String> {
        self.breaker.next_probe().map(|_| self.outage())
    }

    /// What requests come to, where the last of them failed and more than one or two.
    pub(crate) fn failing(&self, now: Instant) -> Option<String> {
        let failing = || Some(format!("requests to the API fail: {}", self.causes.worth_telling(now)?));
        self.away().or_else(failing)
    }

    /// A token was given.
    pub(crate) fn store_token(&mut self, grant: TokenGrant, now: Instant) {
        self.tokens.store(grant, now);
        self.budget.new_token();
        if self.credentials.lift() {
            info!("a token was given: the credentials brake is off");
            self.slow_start.restart();
        }
        self.announce();
    }

    /// No token was given, for a reason that is not ours.
    pub(crate) fn note_refresh_failure(&mut self, now: Instant) {
        self.tokens.failed(now);
    }

    /// A caller got no token, for that reason: it counts as a failed request of its jobs.
    pub(crate) fn no_token(&mut self, who: Requester<'_>, now: Instant) {
        let turn = self.breaker.no_token(who.jobs, now);
        self.turned(turn);
    }

    /// The API refused this token.
    pub(crate) fn token_refused(&mut self, grant_token: u64) {
        self.tokens.forget(grant_token);
    }

    /// Our credentials are bad: nothing is sent until a token is given.
    pub(crate) fn refused_us(&mut self, why: &str, now: Instant) {
        if self.credentials.put_on(why, now) {
            warn!(why, "credentials refused: nothing is sent until a token is given");
            self.announce();
        }
    }

    /// Why the audit cannot be written, where it cannot. Its brake is the caller's: requests that read still go.
    pub(crate) fn audit_is(&mut self, trouble: Option<String>) {
        if self.audit != trouble {
            self.audit = trouble;
            self.announce();
        }
    }

    /// Why the audit's brake is on.
    pub(crate) fn audit_trouble(&self) -> Option<&str> {
        self.audit.as_deref()
    }

    /// Is a new token due, though the old one is good?
    pub(crate) fn wants_token(&self, now: Instant) -> bool {
        self.tokens.is_due(now) && self.gate.opens(now).is_none()
    }

    /// Is it time to try bad credentials again? If so, the next time is an interval later.
    pub(crate) fn tries_credentials(&mut self, now: Instant) -> bool {
        self.gate.opens(now).is_none() && self.credentials.is_due(now)
    }

    /// `job` got a 403.
    pub(crate) fn judge(&mut self, kind: Kind, endpoint: &'static str, job: &JobId, now: Instant) -> Judgement {
        let (judgement, put_on) = self.forbidden.judge(kind, endpoint, job, now);
        if put_on {
            warn!(%kind, endpoint, "forbidden for five jobs in a row: the brake is on");
            self.announce();
        }
        judgement
    }

    /// Why the credentials brake is on.
    pub(crate) fn bad_credentials(&self) -> Option<&str> {
        self.credentials.why()
    }

    /// The kinds whose brake is on, and the endpoint that refuses them.
    pub(crate) fn forbidden(&self) -> impl Iterator<Item = (Kind, &'static str)> {
        self.forbidden.all_on()
    }

    /// Notices what time alone changed. When to look again, at the latest.
    pub(crate) fn tick(&mut self, now: Instant) -> Instant {
        if self.gate.has_opened(now) {
            info!("the gate is open again; starting slowly");
            self.announce();
        }
        let next = now + Duration::from_secs(1);
        [self.gate.opens(now), self.credentials.next_try()]
            .into_iter()
            .flatten()
            .filter(|at| *at > now)
            .fold(next, Instant::min)
    }

    /// What the gauges say.
    pub(crate) fn gauges(&mut self, now: Instant) -> AdmissionGauges {
        let shut = |reason| match reason {
            ClosedReason::Throttled => self.gate.opens(now).is_some(),
            ClosedReason::ServiceLimit => self.services.all(now).next().is_some(),
            ClosedReason::ApiUnavailable => self.breaker.next_probe().is_some(),
            ClosedReason::Credentials => self.credentials.why().is_some(),
            ClosedReason::Forbidden => self.forbidden.all_on().next().is_some(),
            ClosedReason::Audit => self.audit.is_some(),
        };
        let shut = ClosedReason::ALL.map(|reason| (reason, shut(reason)));
        AdmissionGauges { shut, time_shut: self.gate.time_shut(now), budget_left: self.budget.left(now) }
    }

    fn turned(&mut self, turn: BreakerChange) {
        match turn {
            BreakerChange::None => return,
            BreakerChange::Opened => {
                warn!(causes = self.causes.told(), "the API answers nobody: only probes are sent");
            }
            BreakerChange::StillOpen => warn!(causes = self.causes.told(), "a probe failed: the API is still away"),
            BreakerChange::Closed => {
                info!(causes = self.causes.told(), "a probe succeeded: the API is back; starting slowly");
                self.causes.forget();
                self.slow_start.restart();
            }
        }
        self.announce();
    }

    fn announce(&self) {
        self.changes.send_modify(|count| *count += 1);
    }
}
