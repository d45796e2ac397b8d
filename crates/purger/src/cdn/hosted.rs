//! Purging at a CDN that is asked by requests of its own: sending them when the gate admits them, what follows from the
//! answers ([`Provider::judge`]), and what the audit records of them.

use std::{sync::Arc, time::Duration};

use genfleet_core::{
    audit::{Audit, Detail, Effect, Intent},
    clock::SharedClock,
    error::{ErrorClass, JobError},
    genesys::{Caller, GenesysClient},
    hash,
    job::{JobId, Kind},
    retry,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    gate::Gate,
    http::CdnHttp,
    provider::{CdnRequest, Hold, Provider, Verdict},
    purge::{Capacity, Cdn, PurgeAccepted, PurgeRefusal, RefusalCause, RequestContext},
    shared_gate::SharedGate,
};
use crate::progress::PurgeStatus;

/// Requests in flight, at most.
const IN_FLIGHT: usize = 16;
/// Short retries of one request, at most.
const RETRIES: u32 = 3;
/// No retry begins later than this after the first request.
const RETRY_TIME: Duration = Duration::from_secs(10);

/// A CDN of the provider `P`. Clones share everything.
#[derive(Clone)]
pub(crate) struct HostedCdn<P> {
    shared: Arc<Shared<P>>,
}

struct Shared<P> {
    provider: Arc<P>,
    http: CdnHttp,
    audit: Audit,
    gate: SharedGate<P>,
    slots: Arc<Semaphore>,
}

/// One request on its way, with all its retries.
struct Call<'a> {
    request: CdnRequest,
    context: &'a RequestContext,
    intent: Intent,
    /// HTTP requests that were sent.
    sent: u32,
    is_effect_unknown: bool,
}

/// A request that was accepted.
struct Accepted {
    status: PurgeStatus,
    id: Option<String>,
}

impl<P: Provider> HostedCdn<P> {
    pub(crate) fn new(provider: P, http: CdnHttp, genesys: GenesysClient, clock: SharedClock, gate: Gate) -> Self {
        let (provider, audit) = (Arc::new(provider), genesys.audit().clone());
        let gate = SharedGate::new(Arc::clone(&provider), genesys, clock, gate);
        Self { shared: Arc::new(Shared { provider, http, audit, gate, slots: Arc::new(Semaphore::new(IN_FLIGHT)) }) }
    }

    /// Probes a hold if no job waits that could, and announces the end of a pause. Never ends.
    pub(crate) async fn watch_gate(self) {
        loop {
            self.shared.gate.wait_until_trial_due().await;
            self.probe_hold().await;
        }
    }

    async fn probe_hold(&self) {
        let Shared { provider, http, gate, .. } = &*self.shared;
        gate.put_off_probe();
        for request in provider.trials() {
            let Ok(request) = provider.authorise(request).await else { return gate.announce() };
            let answer = http.exchange(request).await;
            let verdict = answer.map(|answer| provider.judge_trial(&answer));
            if !matches!(verdict, Ok(Verdict::Purged { .. })) {
                provider.forget_credentials();
                return gate.announce();
            }
        }
        gate.release();
    }

    /// Sends one request until it is accepted or refused. `sent` counts the HTTP requests of it.
    async fn send(
        &self,
        request: CdnRequest,
        context: &RequestContext,
        sent: &mut u32,
    ) -> Result<Accepted, (RefusalCause, JobError)> {
        let detail = intent_detail::<P>(&request, context);
        let intent = self.shared.audit.intend(Kind::CdnPurge, &context.jobs, &detail, &context.stop).await;
        let intent = intent.map_err(|_| stop_error())?;
        let mut call = Call { request, context, intent, sent: 0, is_effect_unknown: false };
        let result = self.send_with_retries(&mut call).await;
        *sent += call.sent;
        call.record_effect(&result);
        result
    }

    async fn send_with_retries(&self, call: &mut Call<'_>) -> Result<Accepted, (RefusalCause, JobError)> {
        let (mut waits, mut retries, began) = (retry::rounds(), 0, Instant::now());
        loop {
            let is_probe =
                self.shared.gate.admit(call.context, true).await.map_err(|error| (cause_of(&error), error))?;
            let (code, message, status) = match self.exchange(call).await? {
                Exchange::Accepted(accepted) => return Ok(accepted),
                Exchange::Again => continue,
                Exchange::Failed { code, why, status } => (code, why, status),
            };
            if let Some(unavailable) = self.shared.gate.record_failure(is_probe, &call.context.jobs, &message) {
                return Err(unavailable);
            }
            let error = JobError { status, ..JobError::new(ErrorClass::Transient, code, message) };
            let wait = waits.next().unwrap_or(RETRY_TIME);
            if retries == RETRIES || began.elapsed() + wait > RETRY_TIME {
                return Err((RefusalCause::Other, error));
            }
            retries += 1;
            if call.context.stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                return Err(stop_error());
            }
        }
    }

    /// Sends once.
    async fn exchange(&self, call: &mut Call<'_>) -> Result<Exchange, (RefusalCause, JobError)> {
        let provider = &self.shared.provider;
        let request = match provider.authorise(call.request.clone()).await {
            Ok(request) => request,
            Err(why) => return Err(self.shared.gate.begin_hold(Hold::Credentials, &why, None, None)),
        };
        if call.context.stop.is_cancelled() {
            return Err(stop_error());
        }
        call.intent.mark_sent();
        call.sent += 1;
        // Once it is sent, it is waited for.
        let never = CancellationToken::new();
        let caller = Caller { stop: &never, ..call.context.caller() };
        let exchange = self.shared.http.exchange_for(request, &caller).await;
        let answer = match exchange {
            Ok(answer) => answer,
            Err(failure) => {
                call.is_effect_unknown |= failure.may_have_arrived;
                return Ok(Exchange::Failed { code: failure.code, why: failure.why, status: None });
            }
        };
        let (status, verdict) = (Some(answer.status), provider.judge(&answer));
        if !matches!(verdict, Verdict::Failing { .. }) {
            self.shared.gate.record_answer(&call.context.jobs);
        }
        match verdict {
            Verdict::Purged { status, id } => {
                self.shared.gate.release();
                Ok(Exchange::Accepted(Accepted { status, id }))
            }
            Verdict::Throttled { wait, why } => {
                self.shared.gate.pause(wait, &why);
                Ok(Exchange::Again)
            }
            Verdict::Held { hold, why, id } => Err(self.shared.gate.begin_hold(hold, &why, status, id)),
            Verdict::Refused { why, id } => {
                let error = JobError { status, request_id: id, ..JobError::permanent("rejected", why) };
                Err((RefusalCause::Content, error))
            }
            Verdict::Failing { code, why } => {
                call.is_effect_unknown = true;
                Ok(Exchange::Failed { code, why, status })
            }
        }
    }
}

/// The end of one HTTP request.
enum Exchange {
    Accepted(Accepted),
    /// As soon as the gate lets it, and without using up a retry.
    Again,
    Failed {
        code: &'static str,
        why: String,
        status: Option<u16>,
    },
}

impl Call<'_> {
    fn record_effect(self, result: &Result<Accepted, (RefusalCause, JobError)>) {
        let (effect, code, status, id) = match result {
            Ok(accepted) => (Effect::Done, None, None, accepted.id.as_deref()),
            Err((_, error)) => {
                let effect = match (self.is_effect_unknown, error.status) {
                    (true, _) => Effect::Unknown,
                    (false, Some(_)) => Effect::Refused,
                    (false, None) => Effect::Unsent,
                };
                (effect, Some(error.code), error.status, error.request_id.as_deref())
            }
        };
        let detail = Detail::default()
            .with_some("code", code)
            .with_some("requestId", id)
            .with("requests", self.sent)
            .with_some("status", status);
        self.intent.effect(effect, &detail);
    }
}

fn intent_detail<P: Provider>(request: &CdnRequest, context: &RequestContext) -> Detail {
    let path = request.body.is_empty().then(|| request.url.path().to_owned());
    Detail::default()
        .with_some("bodySha256", (!request.body.is_empty()).then(|| hash::sha256(&request.body)))
        .with("cdn", P::NAME)
        .with("endpoint", request.endpoint)
        .with_some("host", request.url.host_str())
        .with_some("jobs", (context.jobs.len() > 1).then_some(context.jobs.len()))
        .with("method", request.method.as_str())
        .with_some("path", path)
}

fn stop_error() -> (RefusalCause, JobError) {
    (RefusalCause::Stopped, JobError::interrupted())
}

fn cause_of(error: &JobError) -> RefusalCause {
    if error.class == ErrorClass::Interrupted { RefusalCause::Stopped } else { RefusalCause::Other }
}

impl<P: Provider> Cdn for HostedCdn<P> {
    type Permit = OwnedSemaphorePermit;

    fn capacity(&self) -> Capacity {
        self.shared.provider.capacity()
    }

    async fn permit(&self, context: &RequestContext) -> Result<OwnedSemaphorePermit, JobError> {
        let slot = Arc::clone(&self.shared.slots).acquire_owned();
        // The semaphore is never closed.
        let slot =
            context.stop.run_until_cancelled(slot).await.and_then(Result::ok).ok_or_else(JobError::interrupted)?;
        self.shared.gate.admit(context, false).await?;
        Ok(slot)
    }

    async fn purge(
        &self,
        _slot: OwnedSemaphorePermit,
        paths: &[Arc<str>],
        context: &RequestContext,
    ) -> Result<PurgeAccepted, PurgeRefusal> {
        let mut accepted =
            PurgeAccepted { status: PurgeStatus::Code(200), request_ids: Vec::new(), requests: 0, trace: None };
        for request in self.shared.provider.requests(paths) {
            let requests = &mut accepted.requests;
            match self.send(request, context, requests).await {
                Ok(Accepted { status, id }) => {
                    accepted.status = status;
                    accepted.request_ids.extend(id);
                }
                Err((cause, error)) => return Err(PurgeRefusal { cause, error, requests: *requests }),
            }
        }
        Ok(accepted)
    }

    fn forbidden(&self, error: &JobError, _: &JobId) -> JobError {
        error.clone()
    }
}
