//! The client of Genesys Cloud that all workers of a process share. A call waits for admission, is sent, its answer is
//! classified, and it is sent again if that helps.

use std::{
    fmt,
    sync::{Arc, Mutex, OnceLock},
};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use metrics::gauge;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use tokio::time::Instant;
use tracing::warn;

use crate::{
    answer::ApiAnswer,
    change_guard::ChangeGuard,
    clock_skew::ClockSkew,
    credentials::CredentialSource,
    error::ApiError,
    http_transport::{HttpRequest, HttpResponse, HttpTimeouts, HttpTransport, ProxyUse, TransportError},
    options::GenesysOptions,
    permit::{Permit, SharedAdmission},
    region::Addresses,
    request::{ApiRequest, Caller},
    request_telemetry::{RequestSpan, end_span, record_exchange},
    retries::CallRetries,
    rights::{KindRights, Rights},
    token_source::{CurrentCredentials, TokenSource},
};
use genfleet_audit::Audit;
use genfleet_job::{
    Kind, clock::SharedClock, error::ErrorClass, metric, options::ConfigError, trace_context::TraceContext,
};

mod admit;
mod background;
mod next_step;
pub(crate) mod status;

/// Maximum length of a body that the API accepts, in bytes.
const LONGEST_BODY: usize = 512_000;

/// The client of Genesys Cloud. Clones share its state.
#[derive(Clone)]
pub struct GenesysClient {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) addresses: Addresses,
    pub(crate) transport: HttpTransport,
    pub(crate) clock: SharedClock,
    pub(crate) tokens: Arc<TokenSource>,
    pub(crate) admission: Arc<SharedAdmission>,
    clock_skew: Mutex<ClockSkew>,
    rights: KindRights,
    options: GenesysOptions,
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
    /// Makes a client for jobs of `kinds`, which need these rights. The credentials come from the environment; without
    /// kinds, none are needed. Sends nothing yet. Errors are of the configuration: no credentials, no usable address, no
    /// readable CA file.
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
        let transport = HttpTransport::over_network(options.ca_file(), HttpTimeouts::default(), proxy)?;
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
            transport,
            clock,
            tokens: Arc::new(tokens),
            admission,
            clock_skew: Mutex::default(),
            rights,
            options: options.clone(),
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
            match self.next_step(call, permit, exchange, trace) {
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

    /// Builds the request without its token, or says why there can be none.
    pub(crate) fn build(&self, request: &ApiRequest) -> Result<HttpRequest, String> {
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
