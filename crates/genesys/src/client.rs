//! The client of Genesys Cloud that all workers of a process share. A call waits for admission, is sent, its answer is
//! classified, and it is sent again if that helps.

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use metrics::gauge;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use tokio::{sync::MutexGuard as QueueGuard, time::Instant};
use tracing::warn;

use crate::{
    admission::{AdmissionRefusal, ApiSignal, ClosedReason, QueuePosition, RequestOutcome},
    admission_control::AdmissionStep,
    answer::ApiAnswer,
    answer_body::error_sentence,
    change_guard::ChangeGuard,
    classify::{self, Classification},
    clock_skew::ClockSkew,
    credentials::CredentialSource,
    error::ApiError,
    http_transport::{
        HttpRequest, HttpResponse, HttpTimeouts, HttpTransport, ProxyUse, TransportError, TransportFailure,
    },
    limits::{self, RateLimitHeaders},
    options::GenesysOptions,
    permit::{Permit, SharedAdmission},
    rate_limit_pause::LONG,
    received_answer::ReceivedAnswer,
    region::Addresses,
    request::{ApiRequest, Caller},
    request_telemetry::{RequestSpan, end_span, record_exchange},
    retries::CallRetries,
    rights::{KindRights, Rights},
    token_source::{CurrentCredentials, TokenEndpointAway, TokenSource},
};
use genfleet_audit::Audit;
use genfleet_job::{
    JobId, Kind,
    clock::SharedClock,
    error::{ErrorClass, HELD_SPREAD},
    metric,
    options::ConfigError,
    trace_context::TraceContext,
};

mod background;
mod status;

/// Maximum length of a body that the API accepts, in bytes.
const LONGEST_BODY: usize = 512_000;

/// The client of Genesys Cloud. Clones share its state.
#[derive(Clone)]
pub struct GenesysClient {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) addresses: Addresses,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) transport: HttpTransport,
    pub(crate) clock: SharedClock,
    pub(crate) tokens: Arc<TokenSource>,
    pub(crate) admission: Arc<SharedAdmission>,
    clock_skew: Mutex<ClockSkew>,
    rights: KindRights,
    client_limit: u32,
    /// The intervals of probes: for wrong credentials, and for missing permissions.
    probe_intervals: (Duration, Duration),
    /// Of the circuit breaker: its window, and the wait before its first probe.
    breaker_times: (Duration, Duration),
    audit: OnceLock<Audit>,
    no_audit: Audit,
}

struct Call<'a> {
    request: &'a ApiRequest,
    caller: &'a Caller<'a>,
    outgoing: HttpRequest,
    change: ChangeGuard<'a>,
    retries: CallRetries,
}

enum NextStep {
    Done(ApiAnswer),
    /// Sent again as soon as it is admitted, without using up a retry.
    SendAgain,
    Failed(ApiError),
}

impl GenesysClient {
    /// Makes a client for jobs of `kinds`, which need these rights, with the credentials that the environment names;
    /// where there are no such kinds, none are needed. Sends nothing yet. Errors are of the configuration: no
    /// credentials, no usable address, no readable CA file.
    pub fn new<R: Into<Rights>>(
        options: &GenesysOptions,
        kinds: Vec<(Kind, R)>,
        clock: SharedClock,
    ) -> Result<Self, ConfigError> {
        let source = if kinds.is_empty() { CredentialSource::NotNeeded } else { CredentialSource::Environment };
        Self::with_credentials(options, kinds, clock, source)
    }

    /// Makes a client with credentials from elsewhere.
    pub fn with_credentials<R: Into<Rights>>(
        options: &GenesysOptions,
        kinds: Vec<(Kind, R)>,
        clock: SharedClock,
        credentials: CredentialSource,
    ) -> Result<Self, ConfigError> {
        // Only the simulator in this process provides its own credentials.
        let is_own = matches!(credentials, CredentialSource::Given(_));
        let proxy = if is_own { ProxyUse::None } else { ProxyUse::FromEnvironment };
        let transport = HttpTransport::over_network(options.ca_file().as_deref(), HttpTimeouts::default(), proxy)?;
        Self::over(transport, options, KindRights::new(kinds), clock, credentials)
    }

    fn over(
        transport: HttpTransport,
        options: &GenesysOptions,
        rights: KindRights,
        clock: SharedClock,
        credentials: CredentialSource,
    ) -> Result<Self, ConfigError> {
        options.warnings().iter().for_each(|warning| warn!("{warning}"));
        let addresses = options.addresses()?;
        let admission = Arc::new(SharedAdmission::new(options));
        let tokens = TokenSource {
            transport: transport.clone(),
            clock: clock.clone(),
            admission: Arc::clone(&admission),
            url: addresses.token.clone(),
            auth: options.genesys_client_auth,
            scope: rights.scope(),
            credentials: CurrentCredentials::new(credentials)?,
            refresh: Mutex::default(),
            redactor: Mutex::default(),
        };
        let shared = Shared {
            addresses,
            ca_file: options.ca_file(),
            transport,
            clock,
            tokens: Arc::new(tokens),
            admission,
            clock_skew: Mutex::default(),
            rights,
            client_limit: options.client_requests_per_minute,
            probe_intervals: (options.credentials_probe, options.forbidden_probe),
            breaker_times: (options.breaker_window, options.breaker_probe),
            audit: OnceLock::new(),
            no_audit: Audit::off(),
        };
        let client = Self { shared: Arc::new(shared) };
        gauge!(metric::CLOCK_OFFSET).set(f64::NAN);
        client.show_gauges(Instant::now(), &mut 0);
        Ok(client)
    }

    /// Sends a call, with all its retries.
    pub async fn send(&self, request: ApiRequest, caller: &Caller<'_>) -> Result<ApiAnswer, ApiError> {
        self.call(None, &request, caller).await
    }

    /// Sends a call, with all its retries; the first request uses `permit` and is sent at once. `caller.stop` never
    /// cancels a request in flight, but prevents further ones.
    pub async fn send_with(
        &self,
        permit: Permit,
        request: ApiRequest,
        caller: &Caller<'_>,
    ) -> Result<ApiAnswer, ApiError> {
        self.call(Some(permit), &request, caller).await
    }

    async fn call(
        &self,
        permit: Option<Permit>,
        request: &ApiRequest,
        caller: &Caller<'_>,
    ) -> Result<ApiAnswer, ApiError> {
        let outgoing = self.build(request).map_err(|why| {
            ApiError::new(ErrorClass::Permanent, "rejected", format!("{} cannot be sent: {why}", request.name()))
        })?;
        let change = ChangeGuard::new(self.audit(), request, caller);
        let mut call = Call { request, caller, outgoing, change, retries: CallRetries::new(request.retries) };
        let result = self.send_with_retries(&mut call, permit).await;
        let requests = call.retries.requests;
        let result = match result {
            Ok(answer) => Ok(ApiAnswer { requests, ..answer }),
            Err(error) => Err(ApiError { requests, ..error }),
        };
        call.change.record_effect(&result);
        result
    }

    async fn send_with_retries(&self, call: &mut Call<'_>, permit: Option<Permit>) -> Result<ApiAnswer, ApiError> {
        let mut given = permit;
        loop {
            let permit = self.wait_for_admission(call, given.take()).await?;
            let (exchange, trace) = self.exchange(call, &permit).await;
            match self.classify(call, permit, exchange, trace) {
                NextStep::Done(answer) => return Ok(answer),
                NextStep::SendAgain => {}
                NextStep::Failed(error) => wait_for_retry(call, error).await?,
            }
        }
    }

    /// Waits until the call's next request may be sent now, with the permit given or another. A change is in the audit
    /// by then.
    async fn wait_for_admission(&self, call: &mut Call<'_>, given: Option<Permit>) -> Result<Permit, ApiError> {
        let Call { request, caller, change, .. } = call;
        let mut given = given.filter(|_| !caller.stop.is_cancelled());
        loop {
            if self.service_held_until(caller, request.endpoint).is_some() {
                // A caller that waits here reserves no budget.
                given = None;
                self.wait_for_service(caller, request.endpoint).await?;
            }
            let permit = match given.take() {
                Some(permit) => permit,
                None => self.permit(caller).await?,
            };
            let Some(permit) = change.record_intent(permit).await? else { continue };
            let Some(mut permit) = change.confirm_lease(permit).await? else { continue };
            if permit.begin(caller, request.endpoint) {
                return Ok(permit);
            }
        }
    }

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

    /// Returns a permit if nothing has to be waited for, and nobody waits.
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
            // The old one is good: nobody waits for the new one.
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
    async fn wait_for_service(&self, caller: &Caller<'_>, endpoint: &'static str) -> Result<(), ApiError> {
        let mut changes = self.shared.admission.changes();
        loop {
            changes.mark_unchanged();
            let Some(until) = self.service_held_until(caller, endpoint) else { return Ok(()) };
            if caller.stop.is_cancelled() {
                return Err(ApiError::interrupted());
            }
            if until - Instant::now() > LONG {
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

    fn service_held_until(&self, caller: &Caller<'_>, endpoint: &'static str) -> Option<Instant> {
        self.shared.admission.control().service_held_until(caller.kind, endpoint, Instant::now())
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

    async fn exchange(
        &self,
        call: &mut Call<'_>,
        permit: &Permit,
    ) -> (Result<HttpResponse, TransportError>, Option<TraceContext>) {
        let Call { request, caller, outgoing, change, retries } = call;
        let mut outgoing = outgoing.clone();
        outgoing.headers.insert(AUTHORIZATION, permit.token.bearer.clone());
        let HttpRequest { method, url, headers, .. } = &mut outgoing;
        let mut span = RequestSpan { method, endpoint: request.endpoint, url }.begin(caller, retries.requests);
        span.inject(headers);
        retries.note_sent();
        change.note_sent();
        let sent = Instant::now();
        let exchange = self.shared.transport.exchange(outgoing).await;
        let exchange = self.shared.tokens.redactor(&permit.token).exchange(exchange);
        end_span(&mut span, &exchange);
        let trace = span.context().filter(|_| span.is_recorded()).cloned();
        let took = sent.elapsed();
        record_exchange(request, &exchange, took);
        if let Ok(response) = &exchange {
            self.compare_clocks(response, took);
        }
        (exchange, trace)
    }

    /// Decides on the next step of the call, and records in admission control what the exchange says about the API.
    fn classify(
        &self,
        call: &mut Call<'_>,
        permit: Permit,
        exchange: Result<HttpResponse, TransportError>,
        trace: Option<TraceContext>,
    ) -> NextStep {
        let is_probe = permit.is_probe();
        let next = match exchange {
            Ok(response) => {
                let answer = ReceivedAnswer::read(call.request, response, self.shared.clock.now());
                self.classify_answer(call, permit, answer, trace)
            }
            Err(error) => self.classify_failure(call, permit, &error),
        };
        match next {
            NextStep::Failed(error) if is_probe => {
                NextStep::Failed(ApiError { probed_until: self.next_probe(), ..error })
            }
            next => next,
        }
    }

    fn classify_answer(
        &self,
        call: &mut Call<'_>,
        permit: Permit,
        answer: ReceivedAnswer<'_>,
        trace: Option<TraceContext>,
    ) -> NextStep {
        let (status, token) = (answer.status(), permit.token.number);
        limits::warn_of_long_pause(call.request.endpoint, answer.wait);
        call.change.is_effect_unknown |= answer.leaves_effect_unknown();
        if let Some(cause) = answer.failure_cause() {
            self.shared.admission.control().note_failure(&cause, Instant::now());
        }
        let (rate_limits, signal) = (answer.rate_limits(), answer.signal.clone());
        permit.end(call.caller, RequestOutcome::Answered { status, rate_limits, signal });
        match answer.classification {
            Classification::Success => NextStep::Done(answer.into_success(trace)),
            Classification::Throttled => {
                call.retries.restart_clock();
                NextStep::SendAgain
            }
            Classification::Unauthorized => self.replace_token(call, token, answer),
            Classification::Failed(class, code) => {
                let error = answer.into_error(class, code);
                NextStep::Failed(if status == 403 { self.explain_forbidden(call, error) } else { error })
            }
        }
    }

    fn classify_failure(&self, call: &mut Call<'_>, permit: Permit, error: &TransportError) -> NextStep {
        let failure = error.failure;
        call.change.is_effect_unknown |= failure != TransportFailure::NeverSent;
        if failure != TransportFailure::TooLong {
            self.shared.admission.control().note_failure(&error.cause, Instant::now());
        }
        let outcome = match failure {
            TransportFailure::NeverSent => RequestOutcome::NeverSent,
            TransportFailure::TimedOut | TransportFailure::Broken => RequestOutcome::Lost,
            // The API works, only its answer is too long.
            TransportFailure::TooLong => {
                let rate_limits = RateLimitHeaders::default();
                RequestOutcome::Answered { status: 0, rate_limits, signal: ApiSignal::Fine }
            }
        };
        permit.end(call.caller, outcome);
        let (class, code) = classify::classify_failure(failure, call.request.repeat);
        NextStep::Failed(ApiError::new(class, code, format!("{}: {}", call.request.name(), error.message)))
    }

    /// Handles a 401: the first time a new token helps; the second time the credentials are bad.
    fn replace_token(&self, call: &mut Call<'_>, token: u64, answer: ReceivedAnswer<'_>) -> NextStep {
        let mut control = self.shared.admission.control();
        control.forget_token(token);
        if call.retries.take_token_replacement() {
            return NextStep::SendAgain;
        }
        let why = format!("the API answered 401 to a fresh token: {}", error_sentence(&answer.details));
        control.hold_for_credentials(&why, Instant::now());
        NextStep::Failed(answer.into_error_saying(ApiError::credentials(why)))
    }

    /// Adds to a 403 the rights that the kind needs, and whether the job waits for them.
    fn explain_forbidden(&self, call: &Call<'_>, error: ApiError) -> ApiError {
        let Caller { kind, jobs, .. } = call.caller;
        let message = format!("{}; {kind} needs {}", error.message, self.shared.rights.needed_by(*kind));
        let error = ApiError { message, ..error };
        let [job] = jobs else { return error };
        match self.judge_forbidden(*kind, call.request.endpoint, job) {
            None => error,
            Some(until) => ApiError { class: ErrorClass::Held { until, spread: HELD_SPREAD }, ..error },
        }
    }

    /// Judges the 403 that `job` got on `endpoint`: returns until when the job waits, since permissions are missing for
    /// its whole kind; `None` if it fails. To be asked once per job; [`send`](Self::send) does for a request of exactly
    /// one job, so this is for the jobs of a shared request.
    pub fn judge_forbidden(&self, kind: Kind, endpoint: &'static str, job: &JobId) -> Option<Timestamp> {
        let until = self.shared.admission.control().judge_forbidden(kind, endpoint, job, Instant::now());
        until.map(|until| self.time_of(until))
    }

    /// Builds the request without its token, or says why there can be none.
    fn build(&self, request: &ApiRequest) -> Result<HttpRequest, String> {
        if let Some(why) = &request.flaw {
            return Err(why.clone());
        }
        let path = request.path.as_deref().unwrap_or(request.endpoint);
        let url = self.shared.addresses.at(path);
        let mut url = url.ok_or_else(|| format!("{path:?} is no path that can be sent as it is"))?;
        if !request.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&request.query);
        }
        let length = request.body.as_ref().map_or(0, Bytes::len);
        if length > LONGEST_BODY {
            return Err(format!("its body has {length} bytes, and the API takes at most {LONGEST_BODY}"));
        }
        let mut headers = request.headers.clone();
        for name in [ACCEPT, CONTENT_TYPE] {
            headers.insert(name, HeaderValue::from_static("application/json"));
        }
        Ok(HttpRequest { method: request.method.clone(), url, headers, body: request.body.clone(), basic: None })
    }

    /// Converts an instant to a time of day.
    fn time_of(&self, instant: Instant) -> Timestamp {
        let ahead = instant.saturating_duration_since(Instant::now());
        let ahead = SignedDuration::try_from(ahead).unwrap_or(SignedDuration::MAX);
        self.shared.clock.now().checked_add(ahead).unwrap_or(Timestamp::MAX)
    }

    fn next_probe(&self) -> Option<Timestamp> {
        let next = self.shared.admission.control().next_probe();
        next.map(|next| self.time_of(next))
    }
}

/// Waits before the next short retry, or gives the error back if there is none.
async fn wait_for_retry(call: &mut Call<'_>, error: ApiError) -> Result<(), ApiError> {
    let Some(wait) = call.retries.next_wait(&error) else { return Err(error) };
    let until = Instant::now() + wait;
    tokio::select! {
        biased;
        () = call.caller.stop.cancelled() => {
            // The wait that the API asked for holds wherever the call is tried again.
            let left = error.retry_after.min(until.saturating_duration_since(Instant::now()));
            Err(ApiError { retry_after: left, ..ApiError::interrupted() })
        }
        () = tokio::time::sleep_until(until) => Ok(()),
    }
}

impl fmt::Debug for GenesysClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GenesysClient").field("api", &self.shared.addresses.api.as_str()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
