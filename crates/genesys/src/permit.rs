//! Leave to send one request: waiting for it, holding it, giving it back. What to wait for is said by
//! [`crate::admission`].

use tokio::{sync::MutexGuard, time::Instant};

use crate::{
    admission::{ClosedReason, RequestOutcome, QueuePosition, AdmissionRefusal, SentRequest, AdmissionStep, Requester},
    client::GenesysClient,
    admission_control::SendGrant,
    error::ApiError,
    rate_limit_pause::LONG,
    token_source::TokenEndpointAway,
    request::Caller,
    token::Token,
};
use genfleet_job::Kind;

/// Leave to send one request at once. Dropped unused, it gives its budget back; dropped while its request is in
/// flight, the request counts as one that the API may have seen.
#[derive(Debug)]
#[must_use]
pub struct Permit {
    client: GenesysClient,
    grant: Option<SendGrant>,
    pub(super) token: Token,
    /// For whom, to what, when.
    sent: Option<(Kind, &'static str, Instant)>,
}

impl Caller<'_> {
    pub(super) fn who(&self) -> Requester<'_> {
        Requester { kind: self.kind, jobs: self.jobs }
    }
}

impl GenesysClient {
    /// Waits until a request may be sent: for the gate, a token, its turn, and budget. Ends at once with
    /// [`Held`](genfleet_job::error::ErrorClass::Held) or [`Credentials`](genfleet_job::error::ErrorClass::Credentials) where
    /// waiting in memory makes no sense, and with [`Interrupted`](genfleet_job::error::ErrorClass::Interrupted) when
    /// `caller.stop` is cancelled.
    pub async fn permit(&self, caller: &Caller<'_>) -> Result<Permit, ApiError> {
        let mut changes = self.changes();
        let mut turn: Option<MutexGuard<'_, ()>> = None;
        loop {
            if caller.stop.is_cancelled() {
                return Err(ApiError::interrupted());
            }
            changes.mark_unchanged();
            let line = if turn.is_some() { QueuePosition::First } else { QueuePosition::Outside };
            match self.step(caller, line) {
                AdmissionStep::Go(grant, token) => {
                    return Ok(Permit { client: self.clone(), grant: Some(grant), token, sent: None });
                }
                AdmissionStep::Refused(refusal) => return Err(self.refused(refusal)),
                AdmissionStep::WaitForToken => self.wait_for_token(caller).await?,
                AdmissionStep::BreakerChange => tokio::select! {
                    biased;
                    () = caller.stop.cancelled() => {}
                    first = self.shared.line.lock() => turn = Some(first),
                    // The sender lives in `self`.
                    _ = changes.changed() => {}
                },
                AdmissionStep::Wait(until) => tokio::select! {
                    biased;
                    () = caller.stop.cancelled() => {}
                    _ = changes.changed() => {}
                    () = self.shared.freed.notified(), if turn.is_some() => {}
                    () = tokio::time::sleep_until(until) => {}
                },
            }
        }
    }

    /// Waits while a limit of the service behind `endpoint` is closed for the caller's kind. Ends as
    /// [`permit`](Self::permit) does.
    pub(super) async fn service_opens(&self, caller: &Caller<'_>, endpoint: &'static str) -> Result<(), ApiError> {
        let mut changes = self.changes();
        loop {
            changes.mark_unchanged();
            let now = Instant::now();
            let Some(opens) = self.admission().service_opens(caller.kind, endpoint, now) else { return Ok(()) };
            if caller.stop.is_cancelled() {
                return Err(ApiError::interrupted());
            }
            if opens - now > LONG {
                return Err(self.refused(AdmissionRefusal::Held(ClosedReason::ServiceLimit, opens)));
            }
            tokio::select! {
                biased;
                () = caller.stop.cancelled() => {}
                // The sender lives in `self`.
                _ = changes.changed() => {}
                () = tokio::time::sleep_until(opens) => {}
            }
        }
    }

    fn step(&self, caller: &Caller<'_>, line: QueuePosition) -> AdmissionStep {
        let now = Instant::now();
        let (step, wants_token) = {
            let mut admission = self.admission();
            (admission.step(caller.who(), line, now), admission.wants_token(now))
        };
        if wants_token {
            // The old one is good: nobody waits for it.
            drop(self.refresh_token());
        }
        step
    }

    async fn wait_for_token(&self, caller: &Caller<'_>) -> Result<(), ApiError> {
        let mut minting = self.refresh_token();
        let outcome = tokio::select! {
            biased;
            () = caller.stop.cancelled() => return Ok(()),
            outcome = minting.wait_for(Option::is_some) => outcome.ok().and_then(|outcome| outcome.clone()),
        };
        // No outcome: whoever minted is gone, and the next look finds that out.
        let Some(Err(TokenEndpointAway { asked, error })) = outcome else { return Ok(()) };
        for _ in 0..asked {
            self.admission().no_token(caller.who(), Instant::now());
        }
        Err(error)
    }

    fn refused(&self, refusal: AdmissionRefusal) -> ApiError {
        match refusal {
            AdmissionRefusal::Credentials(why) => ApiError::credentials(format!(
                "Genesys Cloud refuses our credentials ({why}); check GENESYS_CLIENT_ID, GENESYS_CLIENT_SECRET and \
                 GENESYS_ENVIRONMENT"
            )),
            AdmissionRefusal::Held(reason, until) => {
                let until = self.at(until);
                let away = self.admission().away();
                let (code, why) = match reason {
                    ClosedReason::Throttled => ("throttled", "the API asked for a pause"),
                    ClosedReason::ServiceLimit => ("throttled", "the API asked this kind of job for a pause"),
                    ClosedReason::ApiUnavailable => {
                        ("api_unavailable", away.as_deref().unwrap_or("the API answers nobody"))
                    }
                    ClosedReason::Forbidden => ("forbidden", "the API forbids this kind of job"),
                    ClosedReason::Credentials => ("credentials", "our credentials are refused"),
                    ClosedReason::Audit => ("audit", "the audit cannot be written"),
                };
                ApiError::held(until, code, format!("{why}: not before {until}"))
            }
        }
    }
}

impl Permit {
    /// Whether its request tries if the API answers again.
    pub(super) fn is_probe(&self) -> bool {
        self.grant.as_ref().is_some_and(SendGrant::is_probe)
    }

    /// Right before sending: false where something came up since it was given, so that it has to be asked for again.
    pub(super) fn goes(&mut self, caller: &Caller<'_>, endpoint: &'static str) -> bool {
        let at = Instant::now();
        let goes =
            self.grant.as_ref().is_some_and(|grant| self.client.admission().still_goes(grant, caller.who(), endpoint, at));
        if goes {
            self.sent = Some((caller.kind, endpoint, at));
        }
        goes
    }

    /// Its request is over.
    pub(super) fn ended(mut self, caller: &Caller<'_>, fate: RequestOutcome) {
        if let (Some(grant), Some((_, endpoint, at))) = (self.grant.take(), self.sent.take()) {
            let request = SentRequest { who: caller.who(), endpoint, at };
            self.client.admission().ended(grant, request, fate, Instant::now());
            self.client.shared.freed.notify_one();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(grant) = self.grant.take() else { return };
        let now = Instant::now();
        match self.sent.take() {
            Some((kind, endpoint, at)) => {
                let request = SentRequest { who: Requester { kind, jobs: &[] }, endpoint, at };
                self.client.admission().ended(grant, request, RequestOutcome::Dropped, now);
            }
            None => self.client.admission().unused(grant, now),
        }
        self.client.shared.freed.notify_one();
    }
}
