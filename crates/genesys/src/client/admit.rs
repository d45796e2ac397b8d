//! Permits to send a request: a caller waits for one, or gets the reason why it will not get one.

use std::sync::Arc;

use tokio::{sync::MutexGuard as QueueGuard, time::Instant};

use super::GenesysClient;
use crate::{
    admission::{AdmissionRefusal, ClosedReason, QueuePosition},
    admission_control::AdmissionStep,
    error::ApiError,
    permit::Permit,
    rate_limit_pause::MAX_WAIT_IN_MEMORY,
    request::Caller,
    token_source::TokenEndpointAway,
};

impl GenesysClient {
    /// Waits until a request may be sent: for the end of a pause, a token, its turn, and budget. Ends at once with
    /// [`Held`](ErrorClass::Held) or [`Credentials`](ErrorClass::Credentials) if waiting in memory makes no sense, and
    /// with [`Interrupted`](ErrorClass::Interrupted) when `caller.stop` is cancelled.
    pub async fn permit(&self, caller: &Caller<'_>) -> Result<Permit, ApiError> {
        if let Some(permit) = self.permit_now(caller) {
            return Ok(permit);
        }
        let admission = &self.shared.admission;
        let mut changes = admission.changes();
        let mut turn: Option<QueueGuard<'_, ()>> = None;
        loop {
            if caller.stop.is_cancelled() {
                return Err(ApiError::interrupted());
            }
            changes.mark_unchanged();
            let position = if turn.is_some() { QueuePosition::First } else { QueuePosition::Outside };
            match self.next_admission_step(caller, position) {
                AdmissionStep::Send(grant, token) => return Ok(Permit::new(Arc::clone(admission), grant, token)),
                AdmissionStep::Refused(refusal) => return Err(self.refuse(refusal)),
                AdmissionStep::WaitForToken => self.wait_for_token(caller).await?,
                AdmissionStep::Queue => tokio::select! {
                    biased;
                    () = caller.stop.cancelled() => {}
                    first = admission.queue.lock() => turn = Some(first),
                    // The sender lives in `self`.
                    _ = changes.changed() => {}
                },
                AdmissionStep::WaitUntil(time) => tokio::select! {
                    biased;
                    () = caller.stop.cancelled() => {}
                    _ = changes.changed() => {}
                    () = admission.freed.notified(), if turn.is_some() => {}
                    () = tokio::time::sleep_until(time) => {}
                },
            }
        }
    }

    /// Returns a permit if it can be had without a wait, and no other caller waits.
    pub fn permit_now(&self, caller: &Caller<'_>) -> Option<Permit> {
        let admission = &self.shared.admission;
        let _first = admission.queue.try_lock().ok().filter(|_| !caller.stop.is_cancelled())?;
        match self.next_admission_step(caller, QueuePosition::First) {
            AdmissionStep::Send(grant, token) => Some(Permit::new(Arc::clone(admission), grant, token)),
            AdmissionStep::Queue
            | AdmissionStep::WaitForToken
            | AdmissionStep::WaitUntil(_)
            | AdmissionStep::Refused(_) => None,
        }
    }

    fn next_admission_step(&self, caller: &Caller<'_>, position: QueuePosition) -> AdmissionStep {
        let now = Instant::now();
        let (step, wants_token) = {
            let mut control = self.shared.admission.control();
            (control.step(caller.requester(), position, now), control.wants_token(now))
        };
        if wants_token {
            // The old token is still valid, so no caller waits for the new one.
            drop(self.shared.tokens.refresh());
        }
        step
    }

    async fn wait_for_token(&self, caller: &Caller<'_>) -> Result<(), ApiError> {
        let mut refresh = self.shared.tokens.refresh();
        let result = tokio::select! {
            biased;
            () = caller.stop.cancelled() => return Ok(()),
            result = refresh.wait_for(Option::is_some) => result.ok().and_then(|result| result.clone()),
        };
        // No result: the refresh is gone, and the next look finds that out.
        let Some(Err(TokenEndpointAway { requests, error })) = result else { return Ok(()) };
        for _ in 0..requests {
            self.shared.admission.control().record_no_token(caller.requester(), Instant::now());
        }
        Err(error)
    }

    /// Waits while the limit of the service behind `endpoint` holds the caller's kind. Ends as [`permit`](Self::permit)
    /// does.
    pub(super) async fn wait_for_service(&self, caller: &Caller<'_>, endpoint: &'static str) -> Result<(), ApiError> {
        let mut changes = self.shared.admission.changes();
        loop {
            changes.mark_unchanged();
            let Some(until) = self.service_held_until(caller, endpoint) else { return Ok(()) };
            if caller.stop.is_cancelled() {
                return Err(ApiError::interrupted());
            }
            if until - Instant::now() > MAX_WAIT_IN_MEMORY {
                return Err(self.refuse(AdmissionRefusal::Held(ClosedReason::ServiceLimit, until)));
            }
            tokio::select! {
                biased;
                () = caller.stop.cancelled() => {}
                // The sender lives in `self`.
                _ = changes.changed() => {}
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }

    pub(super) fn service_held_until(&self, caller: &Caller<'_>, endpoint: &'static str) -> Option<Instant> {
        self.shared.admission.control().services.held_until(caller.kind, endpoint, Instant::now())
    }

    fn refuse(&self, refusal: AdmissionRefusal) -> ApiError {
        let (reason, until) = match refusal {
            AdmissionRefusal::Credentials(why) => {
                return ApiError::credentials(format!(
                    "Genesys Cloud refuses our credentials ({why}); check GENESYS_CLIENT_ID, GENESYS_CLIENT_SECRET and \
                     GENESYS_ENVIRONMENT"
                ));
            }
            AdmissionRefusal::Held(reason, until) => (reason, self.time_of(until)),
        };
        let outage = self.shared.admission.control().describe_outage();
        let (code, why) = match reason {
            ClosedReason::Throttled => ("throttled", "the API asked for a pause"),
            ClosedReason::ServiceLimit => ("throttled", "the API asked this kind of job for a pause"),
            ClosedReason::ApiUnavailable => {
                ("api_unavailable", outage.as_deref().unwrap_or("Genesys Cloud is not answering"))
            }
            ClosedReason::Forbidden => ("forbidden", "the API forbids this kind of job"),
            ClosedReason::Credentials => ("credentials", "our credentials are refused"),
            ClosedReason::Audit => ("audit", "the audit cannot be written"),
            ClosedReason::Worker(reason) => (reason, "this kind is on hold"),
        };
        ApiError::held(until, code, format!("{why}: not before {until}"))
    }
}
