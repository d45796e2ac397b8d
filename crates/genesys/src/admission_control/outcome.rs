//! What the outcomes of requests change: the pauses, the circuit breaker, the permissions and the budget.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::{AdmissionControl, SendGrant};
use crate::{
    admission::{ApiSignal, RequestOutcome, Requester, SentRequest},
    circuit_breaker::BreakerChange,
    limits::LimitScope,
    slow_start::HealthSign,
};

impl AdmissionControl {
    pub(crate) fn record_outcome(
        &mut self,
        grant: SendGrant,
        request: SentRequest<'_>,
        outcome: RequestOutcome,
        now: Instant,
    ) {
        let SendGrant { reservation, slot, role, permission: _, token: _ } = grant;
        let sign = match outcome {
            RequestOutcome::Answered { status, rate_limits, signal } => {
                self.budget.record_answer(reservation, request.at, now, rate_limits);
                self.record_answer(request, status, signal, now)
            }
            RequestOutcome::NeverSent => {
                self.budget.give_back(reservation);
                HealthSign::Unhealthy
            }
            RequestOutcome::Lost => {
                self.budget.record_loss(reservation, now);
                HealthSign::Unhealthy
            }
            RequestOutcome::Dropped => {
                self.budget.record_loss(reservation, now);
                self.slow_start.free(&slot, HealthSign::Unhealthy);
                return self.abandon_probe(role, now);
            }
        };
        self.slow_start.free(&slot, sign);
        let change = self.breaker.record(role, sign, request.requester.jobs, now);
        self.report_breaker(change);
    }

    fn record_answer(&mut self, request: SentRequest<'_>, status: u16, signal: ApiSignal, now: Instant) -> HealthSign {
        let SentRequest { requester: Requester { kind, .. }, endpoint, at } = request;
        if (200..300).contains(&status) && self.permissions.note_permitted(kind, endpoint) {
            info!(%kind, endpoint, "permitted again: the hold is over");
            self.announce_change();
        }
        if status == 403 {
            self.permissions.note_refused(kind, endpoint);
        }
        match signal {
            ApiSignal::Fine => {
                if self.breaker.next_probe().is_none() {
                    self.causes.forget();
                }
                self.pause.note_success(at);
                self.services.note_success(kind, endpoint, at);
            }
            ApiSignal::Failing => return HealthSign::Unhealthy,
            // An API that asks for a pause answers.
            ApiSignal::Later(wait, LimitScope::Token) => self.pause(at, now, wait),
            ApiSignal::Later(wait, LimitScope::Client) => {
                self.pause(at, now, wait);
                self.note_client_limit(now, wait);
            }
            ApiSignal::Later(wait, LimitScope::Service(namespace)) => {
                self.pause_service(request, &namespace, now, wait);
            }
        }
        HealthSign::Healthy
    }

    fn pause_service(&mut self, request: SentRequest<'_>, namespace: &str, now: Instant, wait: Option<Duration>) {
        let SentRequest { requester: Requester { kind, .. }, endpoint, at } = request;
        if self.services.begin_pause((kind, endpoint), namespace, (at, now), wait) {
            let seconds = self.services.held_until(kind, endpoint, now).map_or(0, |until| (until - now).as_secs());
            warn!(%kind, endpoint, namespace, seconds, "throttled by a limit of this service: all else goes on");
            self.announce_change();
        }
    }

    pub(crate) fn pause(&mut self, sent: Instant, now: Instant, wait: Option<Duration>) {
        if self.pause.begin(sent, now, wait) {
            let seconds = self.pause.ends(now).map_or(0, |ends| (ends - now).as_secs());
            warn!(seconds, "throttled: nothing is sent until then");
            self.slow_start.restart();
            self.announce_change();
        }
    }

    fn note_client_limit(&mut self, now: Instant, wait: Option<Duration>) {
        let until = wait.map(|wait| now + wait).or(self.pause.ends(now));
        if until > self.client_limit_until {
            self.client_limit_until = until;
            self.announce_change();
        }
    }

    /// Returns how long the client's limit is still exhausted, as the API reported it to this process.
    pub(crate) fn client_limit_pause(&self, now: Instant) -> Option<Duration> {
        self.client_limit_until.filter(|until| *until > now).map(|until| until - now)
    }

    /// Begins the pause of the client's limit that another process met.
    pub(crate) fn pause_for_peer(&mut self, now: Instant, wait: Duration) {
        if self.pause.begin_for_peer(now, wait) {
            self.peer_limit_until = Some(now + wait);
            let seconds = wait.as_secs();
            warn!(seconds, "another process met the client's limit: nothing is sent until then");
            self.slow_start.restart();
            self.announce_change();
        }
    }

    /// Records the cause of a failure of the API, before its outcome is recorded.
    pub(crate) fn note_failure(&mut self, cause: &str, now: Instant) {
        if self.causes.note(cause, now) && self.breaker.next_probe().is_none() {
            warn!(causes = self.causes.describe(), "requests to the API fail");
        }
    }

    pub(super) fn report_breaker(&mut self, change: BreakerChange) {
        if change == BreakerChange::None {
            return;
        }
        let causes = self.causes.describe();
        match change {
            BreakerChange::None => {}
            BreakerChange::Opened => warn!(causes, "Genesys Cloud is not answering: only probes are sent"),
            BreakerChange::StillOpen => warn!(causes, "a probe failed: Genesys Cloud is still not answering"),
            BreakerChange::Closed => {
                info!(causes, "a probe succeeded: Genesys Cloud answers again; starting slowly");
                self.causes.forget();
                self.slow_start.restart();
            }
        }
        self.announce_change();
    }
}
