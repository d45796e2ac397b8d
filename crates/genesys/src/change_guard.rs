//! The guard of a call that changes something (SPEC 8): its intent is in the audit before its first request is sent,
//! and its effect once the call is over, however many requests it took. A call that only reads has neither.

use tracing::warn;

use crate::{
    answer::ApiAnswer,
    error::ApiError,
    permit::Permit,
    request::{ApiRequest, Caller},
};
use genfleet_audit::{Audit, Detail, Effect, Intent};
use genfleet_job::hash;

#[derive(Debug)]
pub(crate) struct ChangeGuard<'a> {
    audit: &'a Audit,
    request: &'a ApiRequest,
    caller: &'a Caller<'a>,
    intent: Option<Intent>,
    /// True if a request was sent whose effect is unknown.
    pub(crate) is_effect_unknown: bool,
}

impl<'a> ChangeGuard<'a> {
    pub(crate) fn new(audit: &'a Audit, request: &'a ApiRequest, caller: &'a Caller<'a>) -> Self {
        Self { audit, request, caller, intent: None, is_effect_unknown: false }
    }

    /// Waits until the intent is in the file. If the file cannot be written, returns the permit meanwhile; then the
    /// result is `None`, and the caller needs another permit.
    pub(crate) async fn record_intent(&mut self, permit: Permit) -> Result<Option<Permit>, ApiError> {
        if !self.request.changes() {
            return Ok(Some(permit));
        }
        let (audit, stop) = (self.audit, self.caller.stop);
        let stopped = |_| ApiError::interrupted();
        if self.intent.is_none() {
            if !audit.is_writable() {
                drop(permit);
                audit.wait_until_writable_or_stopped(stop).await.map_err(stopped)?;
                return Ok(None);
            }
            self.intent =
                Some(audit.propose(self.caller.kind, self.caller.jobs, &intent_detail(self.request, self.caller)));
        }
        let Some(intent) = &self.intent else { return Ok(Some(permit)) };
        tokio::select! {
            biased;
            written = intent.wait_until_written(stop) => return written.map(|()| Some(permit)).map_err(stopped),
            () = audit.wait_until_blocked() => drop(permit),
        }
        intent.wait_until_written(stop).await.map_err(stopped)?;
        Ok(None)
    }

    /// Waits until the lease of an exclusive kind is certainly held. Returns the permit meanwhile; then the result is
    /// `None`, and the caller needs another permit.
    pub(crate) async fn confirm_lease(&self, permit: Permit) -> Result<Option<Permit>, ApiError> {
        let changes = self.request.changes();
        let Some(lease) = self.caller.lease.filter(|lease| changes && !lease.is_current()) else {
            return Ok(Some(permit));
        };
        drop(permit);
        warn!(
            endpoint = self.request.endpoint,
            "not known to hold the lock of this kind: held until the broker says so"
        );
        let confirmed = self.caller.stop.run_until_cancelled(lease.wait_until_current()).await;
        confirmed.map(|()| None).ok_or_else(ApiError::interrupted)
    }

    pub(crate) fn note_sent(&mut self) {
        if let Some(intent) = &mut self.intent {
            intent.mark_sent();
        }
    }

    pub(crate) fn record_effect(mut self, result: &Result<ApiAnswer, ApiError>) {
        let Some(intent) = self.intent.take() else { return };
        let (effect, status, request_id, requests) = match result {
            Ok(answer) => (Effect::Done, Some(answer.status), answer.request_id.as_deref(), answer.requests),
            Err(error) => (self.effect_of(error), error.status, error.request_id.as_deref(), error.requests),
        };
        let detail = Detail::default()
            .with_some("code", result.as_ref().err().map(|error| error.code))
            .with_some("requestId", request_id)
            .with("requests", requests)
            .with_some("status", status);
        intent.effect(effect, &detail);
    }

    fn effect_of(&self, error: &ApiError) -> Effect {
        match (self.is_effect_unknown, error.status) {
            (true, _) => Effect::Unknown,
            (false, Some(_)) => Effect::Refused,
            // No request of it reached the API.
            (false, None) => Effect::Unsent,
        }
    }
}

fn intent_detail(request: &ApiRequest, caller: &Caller<'_>) -> Detail {
    Detail::default()
        .with_some("bodySha256", request.body.as_ref().map(hash::sha256))
        .with("endpoint", request.endpoint)
        .with_some("jobs", (caller.jobs.len() > 1).then_some(caller.jobs.len()))
        .with("method", request.method.as_str())
        .with_some("path", request.path.as_deref())
}
