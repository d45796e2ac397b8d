//! Sending one call to its end: HTTP, what the answer means, short retries, one new token.

use std::time::Duration;

use backoff::{ExponentialBackoff, backoff::Backoff};
use metrics::{counter, histogram};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use serde_json::{Map, Value};
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::{
    admission::{Fate, Said},
    change::Change,
    classify::{self, Author, LostAnswer, Promised, SaysWhen, StatusClass, Verdict},
    client::{Forbidden, GenesysClient},
    error::{self, ApiError},
    limits::{self, Rates},
    permit::Permit,
    request::{self, ApiAnswer, ApiRequest, Caller},
    traced,
    transport::{NoAnswer, Outgoing, Received},
};
use genfleet_job::{
    error::{ErrorClass, HELD_SPREAD},
    metric, retry,
};

/// Short retries of one call, at most.
const RETRIES: u32 = 3;
/// None begins later than this after the first sending.
const RETRY_TIME: Duration = Duration::from_secs(10);

/// How a call goes on.
enum Next {
    Done(ApiAnswer),
    /// Sent again as soon as a permit is given: burns no retry.
    Again,
    Failed(ApiError),
}

/// What one call has used so far.
pub(super) struct Tries {
    pub(super) requests: u32,
    retries_left: u32,
    waits: ExponentialBackoff,
    first_sent: Option<Instant>,
    new_token: bool,
}

impl GenesysClient {
    /// Sends one call to its end: [`permit`](Self::permit), then [`send_with`](Self::send_with).
    pub async fn send(&self, request: ApiRequest, caller: &Caller<'_>) -> Result<ApiAnswer, ApiError> {
        self.call(None, &request, caller).await
    }

    /// The same, its first request with `permit`, at once. A request in flight is never cancelled by `caller.stop`;
    /// no further one is begun.
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
        let outgoing = self.outgoing(request).map_err(|why| {
            ApiError::new(ErrorClass::Permanent, "rejected", format!("{} cannot be sent: {why}", request.name()))
        })?;
        let mut change = Change::new(self.audit(), request, caller);
        let result = self.tried(permit, &outgoing, request, caller, &mut change).await;
        change.ended(&result);
        result
    }

    async fn tried(
        &self,
        mut permit: Option<Permit>,
        outgoing: &Outgoing,
        request: &ApiRequest,
        caller: &Caller<'_>,
        change: &mut Change<'_>,
    ) -> Result<ApiAnswer, ApiError> {
        let mut tries = Tries::new(request.tries);
        loop {
            let next = match self.ready(permit.take(), request, caller, change).await {
                Ok(permit) => self.once(permit, outgoing, request, caller, &mut tries, change).await,
                // What is worth a short retry before a request had it: a token.
                Err(error) => return Err(ApiError { requests: tries.requests, ..error }),
            };
            let error = match next {
                Next::Done(answer) => return Ok(ApiAnswer { requests: tries.requests, ..answer }),
                Next::Again => continue,
                Next::Failed(error) => error,
            };
            let Some(wait) = tries.wait(&error) else { return Err(ApiError { requests: tries.requests, ..error }) };
            let until = Instant::now() + wait;
            tokio::select! {
                biased;
                () = caller.stop.cancelled() => {
                    // What the API asked for holds wherever it is waited for.
                    let left = error.retry_after.min(until.saturating_duration_since(Instant::now()));
                    return Err(ApiError { requests: tries.requests, retry_after: left, ..ApiError::interrupted() });
                }
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }

    /// A permit that goes now: the one given, or another; what is about to be changed is written down.
    async fn ready(
        &self,
        given: Option<Permit>,
        request: &ApiRequest,
        caller: &Caller<'_>,
        change: &mut Change<'_>,
    ) -> Result<Permit, ApiError> {
        let mut given = given.filter(|_| !caller.stop.is_cancelled());
        loop {
            if self.door().service_opens(caller.kind, request.endpoint, Instant::now()).is_some() {
                // What waits here keeps nothing from others.
                given = None;
                self.service_opens(caller, request.endpoint).await?;
            }
            let permit = match given.take() {
                Some(permit) => permit,
                None => self.permit(caller).await?,
            };
            let Some(permit) = change.intended(permit).await? else { continue };
            let Some(mut permit) = change.alone(permit).await? else { continue };
            if permit.goes(caller, request.endpoint) {
                return Ok(permit);
            }
        }
    }

    /// One exchange, and what follows from it.
    async fn once(
        &self,
        permit: Permit,
        outgoing: &Outgoing,
        request: &ApiRequest,
        caller: &Caller<'_>,
        tries: &mut Tries,
        change: &mut Change<'_>,
    ) -> Next {
        let mut outgoing = outgoing.clone();
        outgoing.headers.insert(AUTHORIZATION, permit.token.bearer.clone());
        let Outgoing { method, url, headers, .. } = &mut outgoing;
        let mut span = traced::Request { method, endpoint: request.endpoint, url }.span(caller, tries.requests);
        span.inject(headers);
        tries.sent();
        change.sent();
        let (sent, is_probe) = (Instant::now(), permit.is_probe());
        let exchange = self.shared.transport.exchange(outgoing).await;
        let exchange = self.redactor().bearer(&permit.token.bearer).exchange(exchange);
        traced::answered(&mut span, &exchange);
        let trace = span.context().filter(|_| span.is_recorded()).cloned();
        drop(span);
        let took = sent.elapsed();
        observe(request, &exchange, took);
        if let Ok(received) = &exchange {
            self.compare_clocks(received, took);
        }
        let next = match exchange {
            Ok(received) => self.answered(permit, received, request, caller, tries, change),
            Err(no_answer) => {
                change.open |= no_answer.why != LostAnswer::NeverSent;
                if no_answer.why != LostAnswer::TooLong {
                    self.door().fails(&no_answer.cause, Instant::now());
                }
                lost(permit, &no_answer, request, caller)
            }
        };
        match next {
            Next::Done(answer) => Next::Done(ApiAnswer { trace, ..answer }),
            Next::Failed(error) if is_probe => Next::Failed(ApiError { probed_until: self.next_probe(), ..error }),
            next @ (Next::Again | Next::Failed(_)) => next,
        }
    }

    fn answered(
        &self,
        permit: Permit,
        received: Received,
        request: &ApiRequest,
        caller: &Caller<'_>,
        tries: &mut Tries,
        change: &mut Change<'_>,
    ) -> Next {
        let Received { status, headers, body } = &received;
        let says_when = if headers.contains_key(RETRY_AFTER) { SaysWhen::Yes } else { SaysWhen::No };
        let is_success = classify::status_class(*status) == StatusClass::Success;
        let mistaken = if is_success { request.mistaken(body) } else { None };
        let author = if mistaken.is_some() { Author::Stranger } else { error::author(body) };
        let verdict = classify::answer(*status, says_when, author, request.repeat, request.promise);
        let told = if verdict == Verdict::Success { Map::new() } else { error::told(body) };
        let now = self.shared.clock.now();
        let said = match verdict {
            Verdict::Throttled => {
                let wait = limits::wait(headers, &told, now);
                warn_of_long(request.endpoint, wait);
                Said::Later(wait, limits::reach(&told))
            }
            Verdict::Failed(ErrorClass::Transient | ErrorClass::Ambiguous, _) => Said::Failing,
            Verdict::Success | Verdict::Unauthorized | Verdict::Failed(..) => Said::Fine,
        };
        // A success that is none may have been one to somebody.
        change.open |= said == Said::Failing || is_success && verdict != Verdict::Success;
        if said == Said::Failing {
            self.door().fails(&failure(*status, author), Instant::now());
        }
        let token = permit.token.number;
        permit.ended(caller, Fate::Answered { status: *status, rates: Rates::of(headers), said });
        match verdict {
            Verdict::Success => Next::Done(answer(received)),
            Verdict::Throttled => {
                // The pause is not the call's.
                tries.first_sent = None;
                Next::Again
            }
            Verdict::Unauthorized => self.unauthorized(token, &received, told, tries),
            Verdict::Failed(class, code) => {
                let hint = mistaken.unwrap_or_else(|| hint(class, author, request, *status));
                let message = format!("{}: {status} {}{hint}", request.name(), error::sentence(&told));
                let mut error = ApiError::new(class, code, message).with_answer(*status, headers, told);
                let wait = limits::retry_after(headers, now);
                warn_of_long(request.endpoint, wait);
                error.retry_after = wait.unwrap_or_default();
                Next::Failed(if *status == 403 { self.forbidden(error, request, caller) } else { error })
            }
        }
    }

    /// The first time a new token helps; the second time our credentials are bad.
    fn unauthorized(&self, token: u64, received: &Received, told: Map<String, Value>, tries: &mut Tries) -> Next {
        let mut door = self.door();
        door.token_refused(token);
        if !tries.new_token {
            tries.new_token = true;
            return Next::Again;
        }
        let why = format!("the API answered 401 to a fresh token: {}", error::sentence(&told));
        door.refused_us(&why, Instant::now());
        Next::Failed(ApiError::credentials(why).with_answer(received.status, &received.headers, told))
    }

    fn forbidden(&self, error: ApiError, request: &ApiRequest, caller: &Caller<'_>) -> ApiError {
        let scopes = self.scopes_of(caller.kind);
        let message = format!("{}; {} needs the scopes {scopes}", error.message, caller.kind);
        let error = ApiError { message, ..error };
        let [job] = caller.jobs else { return error };
        match self.judge_forbidden(caller.kind, request.endpoint, job) {
            Forbidden::Fails => error,
            Forbidden::Waits { until } => ApiError { class: ErrorClass::Held { until, spread: HELD_SPREAD }, ..error },
        }
    }

    /// The request without its token, or why there can be none.
    fn outgoing(&self, request: &ApiRequest) -> Result<Outgoing, String> {
        if let Some(why) = &request.flaw {
            return Err(why.clone());
        }
        let path = request.path.as_deref().unwrap_or(request.endpoint);
        let url = self.shared.addresses.at(path);
        let mut url = url.ok_or_else(|| format!("{path:?} is no path that can be sent as it is"))?;
        if !request.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&request.query);
        }
        let mut headers = request.headers.clone();
        if request.body.is_some() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        Ok(Outgoing { method: request.method.clone(), url, headers, body: request.body.clone(), basic: None })
    }
}

impl Tries {
    pub(super) fn new(tries: request::Tries) -> Self {
        let waits = retry::short();
        let retries_left = match tries {
            request::Tries::Several => RETRIES,
            request::Tries::One => 0,
        };
        Self { requests: 0, retries_left, waits, first_sent: None, new_token: false }
    }

    pub(super) fn sent(&mut self) {
        self.requests += 1;
        self.first_sent.get_or_insert_with(Instant::now);
    }

    /// How long to wait before the next try; `None` where there is none.
    pub(super) fn wait(&mut self, error: &ApiError) -> Option<Duration> {
        if error.class != ErrorClass::Transient || self.retries_left == 0 {
            return None;
        }
        let began = *self.first_sent.get_or_insert_with(Instant::now);
        let wait = self.waits.next_backoff()?.max(error.retry_after);
        self.retries_left -= 1;
        (began.elapsed() + wait < RETRY_TIME).then_some(wait)
    }
}

fn lost(permit: Permit, no_answer: &NoAnswer, request: &ApiRequest, caller: &Caller<'_>) -> Next {
    let (class, code) = classify::lost(no_answer.why, request.repeat);
    let fate = match no_answer.why {
        LostAnswer::NeverSent => Fate::NeverSent,
        LostAnswer::TimedOut | LostAnswer::Broken => Fate::Lost,
        // The API works, it is only too talkative.
        LostAnswer::TooLong => Fate::Answered { status: 0, rates: Rates::default(), said: Said::Fine },
    };
    permit.ended(caller, fate);
    Next::Failed(ApiError::new(class, code, format!("{}: {}", request.name(), no_answer.message)))
}

/// It is kept, and worth a look: nothing goes on meanwhile.
pub(super) fn warn_of_long(endpoint: &str, wait: Option<Duration>) {
    if let Some(wait) = wait.filter(|wait| *wait > limits::LONG_PAUSE) {
        let seconds = wait.as_secs();
        warn!(endpoint, seconds, "the API asks for a pause of more than an hour (Retry-After): it is kept");
    }
}

/// What an answer that is a failure of the API comes down to.
fn failure(status: u16, author: Author) -> String {
    match author {
        Author::Stranger => format!("{status} with a page"),
        Author::Api | Author::Json | Author::Nobody => status.to_string(),
    }
}

/// What an answer that is not what was promised may be about.
fn hint(class: ErrorClass, author: Author, request: &ApiRequest, status: u16) -> String {
    let is_page = author == Author::Stranger || status == 404 && author != Author::Api;
    match classify::status_class(status) {
        _ if is_page && class != ErrorClass::Permanent => {
            "; not the API's own answer: see what is between here and it (GENESYS_BASE_URL, HTTPS_PROXY, a gateway)"
                .to_owned()
        }
        StatusClass::Success => format!("; promised is {}", promised(request)),
        _ => String::new(),
    }
}

fn promised(request: &ApiRequest) -> String {
    let statuses: Vec<String> = request.promise.statuses.iter().map(u16::to_string).collect();
    let body = match request.promise.body {
        Promised::Json => "JSON",
        Promised::JsonOrNothing => "JSON or nothing",
    };
    format!("{} with {body}", statuses.join(" or "))
}

fn answer(received: Received) -> ApiAnswer {
    let Received { status, headers, body } = received;
    ApiAnswer { status, request_id: error::request_id(&headers), headers, body, requests: 0, trace: None }
}

fn observe(request: &ApiRequest, exchange: &Result<Received, NoAnswer>, took: Duration) {
    let (endpoint, method) = (request.endpoint, request.method.to_string());
    let status = exchange.as_ref().map_or_else(|_| "error".to_owned(), |received| received.status.to_string());
    let request_id = exchange.as_ref().ok().and_then(|received| error::request_id(&received.headers));
    debug!(method, endpoint, status, ms = took.as_millis(), request_id, "asked Genesys Cloud");
    counter!(metric::API_REQUESTS, "endpoint" => endpoint, "method" => method.clone(), "status" => status).increment(1);
    histogram!(metric::API_REQUEST_DURATION, "endpoint" => endpoint, "method" => method).record(took);
}
