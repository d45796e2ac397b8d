//! What has to be so before a call that changes something is sent, and what the audit is told of it (SPEC 8): its
//! intent before the first request of it is sent, its effect once the call is over, however many requests it took. A
//! call that only reads has neither.

use tracing::warn;

use crate::{
    error::ApiError,
    permit::Permit,
    request::{ApiAnswer, ApiRequest, Caller},
};
use genfleet_audit::{Audit, Effect, Intent, record::Detail};
use genfleet_job::hash;

/// One call, as far as it changes something.
#[derive(Debug)]
pub(super) struct ChangeGuard<'a> {
    audit: &'a Audit,
    request: &'a ApiRequest,
    caller: &'a Caller<'a>,
    intent: Option<Intent>,
    /// A request was sent of which nobody knows what it did.
    pub(super) open: bool,
}

impl<'a> ChangeGuard<'a> {
    pub(super) fn new(audit: &'a Audit, request: &'a ApiRequest, caller: &'a Caller<'a>) -> Self {
        Self { audit, request, caller, intent: None, open: false }
    }

    /// Sees to it that the intent is in the file. No permit waits for a file that cannot be written: then it is given
    /// back, and `None` says to ask for another.
    pub(super) async fn intended(&mut self, permit: Permit) -> Result<Option<Permit>, ApiError> {
        if !self.request.changes() {
            return Ok(Some(permit));
        }
        let (audit, stop) = (self.audit, self.caller.stop);
        let stopped = |_| ApiError::interrupted();
        if self.intent.is_none() {
            if !audit.is_well() {
                drop(permit);
                audit.writable(stop).await.map_err(stopped)?;
                return Ok(None);
            }
            self.intent = Some(audit.propose(self.caller.kind, self.caller.jobs, &told(self.request, self.caller)));
        }
        let Some(intent) = &self.intent else { return Ok(Some(permit)) };
        tokio::select! {
            biased;
            written = intent.written(stop) => return written.map(|()| Some(permit)).map_err(stopped),
            () = audit.braked() => drop(permit),
        }
        intent.written(stop).await.map_err(stopped)?;
        Ok(None)
    }

    /// Sees to it that a kind that one process at a time works is known to be this one's. No permit waits for that: then
    /// it is given back, and `None` says to ask for another.
    pub(super) async fn alone(&self, permit: Permit) -> Result<Option<Permit>, ApiError> {
        let changes = self.request.changes();
        let Some(lease) = self.caller.lease.filter(|lease| changes && !lease.is_current()) else {
            return Ok(Some(permit));
        };
        drop(permit);
        warn!(
            endpoint = self.request.endpoint,
            "not known to hold the lock of this kind: held until the broker says so"
        );
        let proven = self.caller.stop.run_until_cancelled(lease.wait_until_current()).await;
        proven.map(|()| None).ok_or_else(ApiError::interrupted)
    }

    /// A request is sent.
    pub(super) fn sent(&mut self) {
        if let Some(intent) = &mut self.intent {
            intent.sent();
        }
    }

    /// The call is over.
    pub(super) fn ended(mut self, result: &Result<ApiAnswer, ApiError>) {
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
        match (self.open, error.status) {
            (true, _) => Effect::Unknown,
            (false, Some(_)) => Effect::Refused,
            // No request of it reached the API.
            (false, None) => Effect::Unsent,
        }
    }
}

fn told(request: &ApiRequest, caller: &Caller<'_>) -> Detail {
    Detail::default()
        .with_some("bodySha256", request.body.as_ref().map(hash::sha256))
        .with("endpoint", request.endpoint)
        .with_some("jobs", (caller.jobs.len() > 1).then_some(caller.jobs.len()))
        .with("method", request.method.as_str())
        .with_some("path", request.path.as_deref())
}
