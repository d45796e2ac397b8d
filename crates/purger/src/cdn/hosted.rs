//! Purging at a CDN that is asked by requests of its own: when they are sent ([`Gate`]), what follows from the answers
//! ([`Provider::judge`]), and what the audit records of them.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use genfleet_core::{
    audit::{Detail, Effect, Intent},
    clock::SharedClock,
    error::{ErrorClass, HELD_SPREAD, JobError},
    genesys::{Caller, GenesysClient, WorkerHold},
    hash,
    job::{JobId, Kind},
    retry,
};
use jiff::{SignedDuration, Timestamp};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    Capacity, Cdn, PurgeAccepted, PurgeRefusal, RefusalCause, RequestContext,
    gate::{Gate, GateRefusal, GateStep, LONG_PAUSE},
    http::CdnHttp,
    provider::{Brake, CdnRequest, Provider, THROTTLED, Verdict},
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
    provider: P,
    http: CdnHttp,
    /// For the audit, and to hold the jobs while a brake is on.
    genesys: GenesysClient,
    clock: SharedClock,
    gate: Mutex<Gate>,
    /// Counts the changes of the gate.
    changes: watch::Sender<u64>,
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
        let (gate, changes, slots) = (Mutex::new(gate), watch::Sender::new(0), Arc::new(Semaphore::new(IN_FLIGHT)));
        Self { shared: Arc::new(Shared { provider, http, genesys, clock, gate, changes, slots }) }
    }

    /// Tries a brake that no job tries, since none waits, and tells the end of a pause. Never ends.
    pub(crate) async fn watch_gate(self) {
        let mut changes = self.shared.changes.subscribe();
        loop {
            changes.mark_unchanged();
            let (trial, pause_ends) = {
                let gate = self.gate();
                (gate.trial_due(), gate.active_pause(Instant::now()).map(|(until, _)| until))
            };
            tokio::select! {
                // The sender lives in `self`.
                _ = changes.changed() => {}
                () = sleep_until(pause_ends) => self.announce(),
                () = sleep_until(trial) => self.try_brake().await,
            }
        }
    }

    async fn try_brake(&self) {
        self.gate().put_off_probe(Instant::now());
        for request in self.shared.provider.trials() {
            let Ok(request) = self.shared.provider.authorise(request).await else { return self.announce() };
            let answer = self.shared.http.exchange(request).await;
            let verdict = answer.map(|answer| self.shared.provider.judge_trial(&answer));
            if !matches!(verdict, Ok(Verdict::Purged { .. })) {
                self.shared.provider.forget_credentials();
                return self.announce();
            }
        }
        self.release();
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.shared.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells everybody who waits, and the process, that the gate changed.
    fn announce(&self) {
        self.shared.genesys.set_worker_hold(Kind::CdnPurge, self.hold());
        self.shared.changes.send_modify(|count| *count += 1);
    }

    fn hold(&self) -> Option<WorkerHold> {
        let gate = self.gate();
        if let Some(on) = gate.active_brake() {
            return Some(WorkerHold {
                reason: on.brake.name(),
                why: self.with_remedy(on.brake, &on.why),
                next_look: on.next_probe,
                is_pause: on.brake == Brake::Unavailable,
                closes_intake: true,
            });
        }
        let now = Instant::now();
        let (until, why) = gate.active_pause(now)?;
        let closes_intake = until - now > LONG_PAUSE;
        Some(WorkerHold { reason: THROTTLED, why: why.to_owned(), next_look: until, is_pause: true, closes_intake })
    }

    fn release(&self) {
        if self.gate().release() {
            info!(cdn = P::NAME, "the brake is released");
            self.announce();
        }
    }

    fn brake(&self, brake: Brake, why: &str) -> Instant {
        let is_new = self.gate().active_brake().is_none();
        let next_probe = self.gate().brake(Instant::now(), brake, why);
        if is_new {
            warn!(cdn = P::NAME, brake = brake.name(), why, "braked: jobs wait in the queue");
        }
        if brake != Brake::Unavailable {
            self.shared.provider.forget_credentials();
        }
        self.announce();
        next_probe
    }

    /// Records that a request of `jobs` failed. If the CDN counts as unavailable now, or still does after this probe,
    /// returns the error of the jobs, which are held.
    fn record_failure(&self, is_probe: bool, jobs: &[JobId], why: &str) -> Option<(RefusalCause, JobError)> {
        let is_unavailable = {
            let mut gate = self.gate();
            match gate.active_brake() {
                Some(on) if on.brake == Brake::Unavailable && !is_probe => {
                    // It was sent before the others failed.
                    let message = self.with_remedy(on.brake, &on.why);
                    return Some((RefusalCause::Other, self.hold_error(on.next_probe, on.brake.code(), message)));
                }
                Some(on) => on.brake == Brake::Unavailable,
                None => gate.record(true, jobs, Instant::now()),
            }
        };
        is_unavailable.then(|| self.brake_error(Brake::Unavailable, why, None, None))
    }

    /// Records that the CDN answered a request of `jobs`, whatever it said.
    fn record_answer(&self, jobs: &[JobId]) {
        let brake = self.gate().active_brake().map(|on| on.brake);
        match brake {
            Some(Brake::Unavailable) => self.release(),
            Some(_) => {}
            None => {
                self.gate().record(false, jobs, Instant::now());
            }
        }
    }

    /// Waits until a request may be sent; takes the right to send it where `takes`. True if it is a probe.
    async fn admit(&self, context: &RequestContext, takes: bool) -> Result<bool, JobError> {
        let mut changes = self.shared.changes.subscribe();
        loop {
            if context.stop.is_cancelled() {
                return Err(JobError::interrupted());
            }
            changes.mark_unchanged();
            let (step, is_probe) = {
                let mut gate = self.gate();
                let step = if takes { gate.take(Instant::now()) } else { gate.look(Instant::now()) };
                (step, takes && gate.active_brake().is_some())
            };
            match step {
                GateStep::Send => {
                    if is_probe {
                        self.announce();
                    }
                    return Ok(is_probe);
                }
                GateStep::Refused(until, why) => return Err(self.refusal(until, &why)),
                GateStep::WaitUntil(until) => tokio::select! {
                    biased;
                    () = context.stop.cancelled() => {}
                    _ = changes.changed() => {}
                    () = tokio::time::sleep_until(until) => {}
                },
            }
        }
    }

    /// The error of a job that waits in the queue.
    fn refusal(&self, until: Instant, refusal: &GateRefusal) -> JobError {
        match refusal {
            GateRefusal::Braked(brake, why) => self.hold_error(until, brake.code(), self.with_remedy(*brake, why)),
            GateRefusal::Paused(why) => self.hold_error(until, "throttled", why.clone()),
        }
    }

    fn with_remedy(&self, brake: Brake, why: &str) -> String {
        format!("{why}; {}", self.shared.provider.remedy(brake))
    }

    fn hold_error(&self, until: Instant, code: &'static str, message: String) -> JobError {
        JobError::new(ErrorClass::Held { until: self.time_of(until), spread: HELD_SPREAD }, code, message)
    }

    /// Turns an instant into a time of day.
    fn time_of(&self, instant: Instant) -> Timestamp {
        let ahead = SignedDuration::try_from(instant.saturating_duration_since(Instant::now()));
        self.shared.clock.now().checked_add(ahead.unwrap_or(SignedDuration::MAX)).unwrap_or(Timestamp::MAX)
    }

    /// Sends one request until it is accepted or refused. `sent` counts the HTTP requests of it.
    async fn send(
        &self,
        request: CdnRequest,
        context: &RequestContext,
        sent: &mut u32,
    ) -> Result<Accepted, (RefusalCause, JobError)> {
        let audit = self.shared.genesys.audit();
        let detail = intent_detail::<P>(&request, context);
        let intent = audit.intend(Kind::CdnPurge, &context.jobs, &detail, &context.stop).await;
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
            let is_probe = self.admit(call.context, true).await.map_err(|error| (cause_of(&error), error))?;
            let (code, message, status) = match self.exchange(call).await? {
                Exchange::Accepted(accepted) => return Ok(accepted),
                Exchange::Again => continue,
                Exchange::Failed { code, why, status } => (code, why, status),
            };
            if let Some(unavailable) = self.record_failure(is_probe, &call.context.jobs, &message) {
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
            Err(why) => return Err(self.brake_error(Brake::Credentials, &why, None, None)),
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
            self.record_answer(&call.context.jobs);
        }
        match verdict {
            Verdict::Purged { status, id } => {
                self.release();
                Ok(Exchange::Accepted(Accepted { status, id }))
            }
            Verdict::Throttled { wait, why } => {
                self.gate().pause(Instant::now(), wait, &why);
                self.announce();
                warn!(cdn = P::NAME, seconds = wait.as_secs(), why, "throttled: nothing is purged until then");
                Ok(Exchange::Again)
            }
            Verdict::Braked { brake, why, id } => Err(self.brake_error(brake, &why, status, id)),
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

    fn brake_error(
        &self,
        brake: Brake,
        why: &str,
        status: Option<u16>,
        request_id: Option<String>,
    ) -> (RefusalCause, JobError) {
        let until = self.brake(brake, why);
        let error = self.hold_error(until, brake.code(), self.with_remedy(brake, why));
        (RefusalCause::Other, JobError { status, request_id, ..error })
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
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
        self.admit(context, false).await?;
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
