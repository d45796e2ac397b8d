//! HTTP to hosts other than the API's: links that the platform gives out, CDNs, a customer's own site.
//!
//! These requests cannot carry the bearer token of Genesys Cloud, by type: the token never leaves the crate `genesys`, whose
//! client sends to the API's address only, and an [`OutsideClient`] is made without one. It connects to public addresses, and
//! to others only where a setting opens them; it follows no redirect and uses no proxy. It repeats only a request that changes
//! nothing, once, where a connection kept from an earlier request breaks before the head of an answer came: the host had
//! closed it. A request that changes something is in the audit before it is sent, without its query, which may hold a
//! signature.

use std::{fmt, path::Path, time::Duration};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::{
    HeaderMap, Method, Request, Response,
    body::Incoming,
    header::{HeaderName, HeaderValue},
    http::Extensions,
};
use hyper_util::client::legacy;
use jiff::Timestamp;
use tokio::time::timeout;
use url::Url;

use crate::webhook::{
    AddressEntry,
    address_guard::{AddressList, AddressRefused, Resolver, system_resolver},
    post::{self, Client, builder, connector::Connector, meter::Meter, tls},
};
use genfleet_audit::{Audit, Detail, Effect, Intent};
use genfleet_genesys::{Caller, TransportFailure, retry_after};
use genfleet_job::{hash, options::ConfigError};
use genfleet_telemetry::{
    http::in_full,
    trace::{Span, SpanDetails, SpanKind, attribute},
};

/// The time-out of the head of an answer, and of every part of its body.
const ANSWER: Duration = Duration::from_secs(15);

/// A client for hosts that are not the API's. Clones share connections.
#[derive(Clone)]
pub struct OutsideClient {
    client: Client,
    /// Keeps no connections, so that each of its requests has a new one.
    unpooled: Client,
    list: AddressList,
}

/// A request to such a host.
#[derive(Clone, Debug)]
pub struct OutsideRequest {
    method: Method,
    name: &'static str,
    url: Url,
    headers: HeaderMap,
    body: Bytes,
}

/// The answer, of which the head was read. The body may be read whole or part by part.
pub struct OutsideAnswer {
    /// Its status, whatever it is.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    body: Incoming,
    meter: Option<Meter>,
}

/// The reason why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutsideError {
    /// Nothing was sent, because the address is not permitted.
    Refused(String),
    /// Nothing was sent, because the attempt is over.
    Interrupted,
    /// The exchange failed, at this stage and with this message.
    Failed(TransportFailure, String),
}

impl OutsideClient {
    /// Makes a client for public addresses, `https` only, and for those of `allowed`, which the flag `allow_flag` names. It
    /// trusts the certificate authorities of the file that `ca` names, with its setting, beside the system's. A TLS provider
    /// must be installed before.
    pub fn new(
        allow_flag: &'static str,
        allowed: &[AddressEntry],
        ca: Option<(&str, &Path)>,
    ) -> Result<Self, ConfigError> {
        Self::with_resolver(AddressList::of_setting(allow_flag, allowed), ca, system_resolver())
    }

    fn with_resolver(list: AddressList, ca: Option<(&str, &Path)>, resolver: Resolver) -> Result<Self, ConfigError> {
        let (setting, file) = ca.unzip();
        let tls = tls::config(setting.unwrap_or_default(), file)?;
        let connector = Connector::new(resolver, list.clone(), tls);
        let unpooled = builder().pool_max_idle_per_host(0).build(connector.clone());
        Ok(Self { client: builder().build(connector), unpooled, list })
    }

    /// Sends `request` on behalf of `caller` and reads the head of the answer. A change is recorded in `audit`: its
    /// intent before it is sent, and its effect as the answer's status says.
    pub async fn send(
        &self,
        request: OutsideRequest,
        caller: &Caller<'_>,
        audit: &Audit,
    ) -> Result<OutsideAnswer, OutsideError> {
        self.check(&request.url)?;
        let outgoing = request.outgoing()?;
        let mut intent = intend(&request, caller, audit).await?;
        if caller.stop.is_cancelled() {
            return Err(OutsideError::Interrupted);
        }
        let mut span = request.begin_span(caller);
        if let Some(intent) = &mut intent {
            intent.mark_sent();
        }
        let exchange = self.exchange(outgoing).await;
        end_span(&mut span, &exchange);
        if let Some(intent) = intent {
            record_effect(intent, &exchange);
        }
        exchange
    }

    /// Checks what can be checked of an address before it is looked up; a redirect is checked like any other.
    fn check(&self, url: &Url) -> Result<(), OutsideError> {
        let refused = |why: &str| OutsideError::Refused(format!("{} {why}", origin(url)));
        if !["http", "https"].contains(&url.scheme()) || !url.username().is_empty() || url.password().is_some() {
            return Err(refused("is no http or https address without a password"));
        }
        if !self.list.allows_scheme(url) {
            return Err(refused(&format!("does not use https; {} permits that", self.list.flag())));
        }
        self.list.check_url(url).map_err(|error| refused(&error.to_string()))
    }

    async fn exchange(&self, outgoing: Request<Full<Bytes>>) -> Result<OutsideAnswer, OutsideError> {
        let host = outgoing.uri().host().unwrap_or_default().to_owned();
        let Ok(answered) = timeout(ANSWER, self.request(outgoing)).await else {
            let message = format!("{host} does not answer within {} s", ANSWER.as_secs());
            return Err(OutsideError::Failed(TransportFailure::TimedOut, message));
        };
        let (head, body) = answered.map_err(|error| connection_error(&host, &error))?.into_parts();
        let meter = head.extensions.get::<Meter>().cloned();
        meter.iter().for_each(Meter::reset);
        Ok(OutsideAnswer { status: head.status.as_u16(), headers: head.headers, body, meter })
    }

    /// Sends a request, and one that changes nothing once more on a new connection if the kept one broke before an answer.
    /// The pool notices most closed connections by itself, but not one that the host closes as the request is written.
    async fn request(&self, outgoing: Request<Full<Bytes>>) -> Result<Response<Incoming>, legacy::Error> {
        let again = (!changes(outgoing.method())).then(|| outgoing.clone());
        match (self.client.request(outgoing).await, again) {
            (Err(error), Some(again)) if was_reused(&error) => self.unpooled.request(again).await,
            (answered, _) => answered,
        }
    }
}

impl OutsideRequest {
    /// Makes a request. `name` names it in traces and in the audit; it is the same for all requests of its sort.
    pub fn new(method: Method, name: &'static str, url: Url) -> Self {
        Self { method, name, url, headers: HeaderMap::new(), body: Bytes::new() }
    }

    /// Sets a header. A secret is marked as [sensitive](HeaderValue::set_sensitive) by the caller.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    fn outgoing(&self) -> Result<Request<Full<Bytes>>, OutsideError> {
        let mut url = self.url.clone();
        url.set_fragment(None);
        post::request(self.method.clone(), url.as_str(), self.headers.clone(), self.body.clone()).map_err(|_| {
            let why = format!("{} has a path that cannot be sent", origin(&url));
            OutsideError::Failed(TransportFailure::NeverSent, why)
        })
    }

    fn begin_span(&self, caller: &Caller<'_>) -> Span {
        Span::start(caller.traces, || {
            SpanDetails::new(SpanKind::Client, format!("{} {}", self.method, self.name))
                .with(attribute::HTTP_REQUEST_METHOD, self.method.to_string())
                .with(attribute::URL_FULL, origin(&self.url))
                .with_some(attribute::SERVER_ADDRESS, self.url.host_str().map(str::to_owned))
                .with_some(attribute::SERVER_PORT, self.url.port_or_known_default().map(i64::from))
        })
    }
}

impl OutsideAnswer {
    /// Reads the next part of the body; `None` at its end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, OutsideError> {
        loop {
            let Ok(frame) = timeout(ANSWER, self.body.frame()).await else {
                let message = format!("the answer stopped for {} s", ANSWER.as_secs());
                return Err(OutsideError::Failed(TransportFailure::TimedOut, message));
            };
            self.meter.iter().for_each(Meter::reset);
            match frame {
                None => return Ok(None),
                Some(Err(error)) => {
                    let message = format!("the answer broke off: {}", in_full(&error));
                    return Err(OutsideError::Failed(TransportFailure::Broken, message));
                }
                // Trailers say nothing here.
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// Reads the whole body, of at most `most` bytes.
    pub async fn read(mut self, most: usize) -> Result<Bytes, OutsideError> {
        let mut whole = BytesMut::new();
        while let Some(part) = self.chunk().await? {
            if whole.len() + part.len() > most {
                let message = format!("the answer ({}) is longer than {most} bytes", self.status);
                return Err(OutsideError::Failed(TransportFailure::TooLong, message));
            }
            whole.extend_from_slice(&part);
        }
        Ok(whole.freeze())
    }

    /// Returns the wait that the answer asks for (`Retry-After`).
    pub fn retry_after(&self, now: Timestamp) -> Option<Duration> {
        retry_after(&self.headers, now)
    }
}

impl OutsideError {
    /// Returns whether the request may have reached the host.
    pub fn may_have_arrived(&self) -> bool {
        match self {
            Self::Refused(_) | Self::Interrupted | Self::Failed(TransportFailure::NeverSent, _) => false,
            Self::Failed(TransportFailure::TimedOut | TransportFailure::Broken | TransportFailure::TooLong, _) => true,
        }
    }

    /// Counts the requests that were sent.
    pub(crate) fn requests(&self) -> u32 {
        u32::from(matches!(self, Self::Failed(..)))
    }
}

/// Returns whether a request of this method changes something: all but GET and HEAD do.
fn changes(method: &Method) -> bool {
    ![Method::GET, Method::HEAD].contains(method)
}

/// Returns whether the connection that broke had answered an earlier request.
fn was_reused(error: &legacy::Error) -> bool {
    let mut extensions = Extensions::new();
    error.connect_info().inspect(|info| info.get_extras(&mut extensions));
    extensions.get::<Meter>().is_some_and(Meter::has_answered)
}

/// Scheme, host and port: path and query may hold a secret.
fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// Writes the intent of a change; `None` for a request that changes nothing.
async fn intend(request: &OutsideRequest, caller: &Caller<'_>, audit: &Audit) -> Result<Option<Intent>, OutsideError> {
    if !changes(&request.method) {
        return Ok(None);
    }
    if let Some(lease) = caller.lease.filter(|lease| !lease.is_current()) {
        let confirmed = caller.stop.run_until_cancelled(lease.wait_until_current()).await;
        confirmed.ok_or(OutsideError::Interrupted)?;
    }
    let detail = Detail::default()
        .with_some("bodySha256", (!request.body.is_empty()).then(|| hash::sha256(&request.body)))
        .with("endpoint", request.name)
        .with("host", origin(&request.url))
        .with_some("jobs", (caller.jobs.len() > 1).then_some(caller.jobs.len()))
        .with("method", request.method.as_str())
        .with("path", request.url.path());
    let intended = audit.intend(caller.kind, caller.jobs, &detail, caller.stop).await;
    intended.map(Some).map_err(|_| OutsideError::Interrupted)
}

fn record_effect(intent: Intent, exchange: &Result<OutsideAnswer, OutsideError>) {
    let (effect, status) = match exchange {
        Ok(answer) => {
            let effect = match answer.status {
                200..=299 => Effect::Done,
                400..=499 => Effect::Refused,
                _ => Effect::Unknown,
            };
            (effect, Some(answer.status))
        }
        Err(error) => (if error.may_have_arrived() { Effect::Unknown } else { Effect::Unsent }, None),
    };
    intent.effect(effect, &Detail::default().with_some("status", status));
}

fn end_span(span: &mut Span, exchange: &Result<OutsideAnswer, OutsideError>) {
    match exchange {
        Ok(answer) => {
            span.set(attribute::HTTP_RESPONSE_STATUS_CODE, i64::from(answer.status));
            if answer.status >= 400 {
                span.fail(answer.status.to_string());
            }
        }
        Err(OutsideError::Refused(_)) => span.fail("address_refused"),
        Err(OutsideError::Failed(TransportFailure::TimedOut, _)) => span.fail("timeout"),
        Err(OutsideError::Failed(..) | OutsideError::Interrupted) => span.fail("broken"),
    }
}

/// Finds the reason among the causes of `error`.
fn connection_error(host: &str, error: &legacy::Error) -> OutsideError {
    if let Some(refused) = post::causes(error).find_map(|cause| cause.downcast_ref::<AddressRefused>()) {
        return OutsideError::Refused(format!("{host} {refused}"));
    }
    let stage = if error.is_connect() { TransportFailure::NeverSent } else { TransportFailure::Broken };
    OutsideError::Failed(stage, format!("{host} cannot be reached: {}", in_full(error)))
}

impl fmt::Debug for OutsideClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutsideClient").field("list", &self.list).finish_non_exhaustive()
    }
}

impl fmt::Debug for OutsideAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutsideAnswer").field("status", &self.status).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
