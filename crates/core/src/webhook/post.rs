//! The HTTP client for receivers: no redirects, no proxy, no retries, bounded in time, and only to permitted addresses.
//! Knows no jobs and no meaning of a status.

use std::{error::Error, fmt, io, iter::successors, net::IpAddr, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response,
    body::{Body, Incoming},
    header::{ACCEPT, HeaderMap, HeaderValue, USER_AGENT},
    http::uri::InvalidUri,
};
use hyper_util::{
    client::legacy,
    rt::{TokioExecutor, TokioTimer},
};
use jiff::Timestamp;
use tokio::time::timeout;
use url::Host;

use self::{connector::Connector, meter::Meter};
use super::{
    address_guard::{AddressList, AddressRefused, Resolver, system_resolver},
    options::WebhookOptions,
    receiver::Receiver,
};
use genfleet_genesys::retry_after;
use genfleet_job::options::ConfigError;
use genfleet_telemetry::http::in_full;

pub(crate) mod connector;
pub(crate) mod meter;
pub(crate) mod tls;

/// The time-out of connecting.
const CONNECT: Duration = Duration::from_secs(5);
/// The time-out of the whole request.
const WHOLE: Duration = Duration::from_secs(15);
/// The time for which idle connections are kept: receivers often close them after five seconds.
const IDLE: Duration = Duration::from_secs(2);
/// The longest head of a response, in bytes.
const HEAD: usize = 64 * 1024;
/// The number of bytes of a body that are read, so that the connection can be used again. The content is ignored.
const READ: usize = 64 * 1024;
/// The highest number of chunks in which it is read: chunks of one byte each would cost too much.
const PIECES: usize = 1024;
/// The longest time for which it is read.
const READING: Duration = Duration::from_secs(1);

/// The client. Clones share connections.
#[derive(Clone)]
pub struct WebhookClient {
    client: Client,
    pub(super) list: AddressList,
    resolver: Resolver,
}

/// HTTP/1.1 only: HTTP/2 gives a receiver more ways to keep a connection busy, and deliveries need nothing of it.
pub(crate) type Client = legacy::Client<Connector, Full<Bytes>>;

/// The response of a receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WebhookResponse {
    pub(super) status: u16,
    pub(super) retry_after: Option<Duration>,
}

/// The reason why there is no response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WebhookSendError {
    /// Nothing was sent: the address gets no deliveries.
    Refused(AddressRefused),
    /// No response in time.
    TimedOut,
    /// No connection, or it broke; with the reason.
    Broken(String),
}

impl WebhookClient {
    /// A client for the addresses that `options` permit, which trusts their certificate authorities beside the system's.
    pub fn new(options: &WebhookOptions) -> Result<Self, ConfigError> {
        Self::with_resolver(options.addresses(), options.webhook_ca_file.as_deref(), system_resolver())
    }

    pub(super) fn with_resolver(
        list: AddressList,
        ca_file: Option<&Path>,
        resolver: Resolver,
    ) -> Result<Self, ConfigError> {
        let connector = Connector::new(Arc::clone(&resolver), list.clone(), tls::config("--webhook-ca-file", ca_file)?);
        Ok(Self { client: builder().build(connector), list, resolver })
    }

    /// The likely address of `receiver`: for limits, not for checks.
    pub(super) async fn address(&self, receiver: &Receiver) -> Option<IpAddr> {
        match receiver.url().host()? {
            Host::Ipv4(ip) => Some(ip.into()),
            Host::Ipv6(ip) => Some(ip.into()),
            Host::Domain(host) => {
                let found = timeout(CONNECT, (self.resolver)(host.to_owned())).await.ok()?.ok()?;
                found.into_iter().min()
            }
        }
    }

    /// Checks that `receiver` answers: sends a HEAD for its root, and accepts any status.
    pub async fn reach(&self, receiver: &Receiver) -> Result<(), WebhookSendError> {
        self.list.check_url(receiver.url()).map_err(WebhookSendError::Refused)?;
        let request = request(Method::HEAD, &receiver.to_string(), HeaderMap::new(), Bytes::new());
        let request = request.map_err(|error| WebhookSendError::of(&error))?;
        self.exchange(request, CONNECT).await.map(drop)
    }

    /// Sends `body` to `receiver`; `now` is for a `Retry-After` that is a date.
    pub(super) async fn send(
        &self,
        receiver: &Receiver,
        headers: HeaderMap,
        body: Bytes,
        now: Timestamp,
    ) -> Result<WebhookResponse, WebhookSendError> {
        self.list.check_url(receiver.url()).map_err(WebhookSendError::Refused)?;
        let request = request(Method::POST, receiver.url().as_str(), headers, body);
        let request = request.map_err(|error| WebhookSendError::of(&error))?;
        let response = self.exchange(request, WHOLE).await?;
        let status = response.status().as_u16();
        let result = WebhookResponse { status, retry_after: retry_after(response.headers(), now) };
        // The result does not matter.
        let _ = timeout(READING, read(response.into_body())).await;
        Ok(result)
    }

    /// Sends a request and waits for the head of the response.
    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
        within: Duration,
    ) -> Result<Response<Incoming>, WebhookSendError> {
        let answered = timeout(within, self.client.request(request)).await.map_err(|_| WebhookSendError::TimedOut)?;
        let response = answered.map_err(|error| WebhookSendError::of(&error))?;
        if let Some(meter) = response.extensions().get::<Meter>() {
            meter.reset();
        }
        Ok(response)
    }
}

/// Builds a request with the headers that all requests have, unless `headers` sets them.
pub(crate) fn request(
    method: Method,
    url: &str,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Request<Full<Bytes>>, InvalidUri> {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = url.parse()?;
    *request.headers_mut() = headers;
    let user_agent = HeaderValue::from_static(concat!("genfleet/", env!("CARGO_PKG_VERSION")));
    request.headers_mut().entry(USER_AGENT).or_insert(user_agent);
    request.headers_mut().entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
    Ok(request)
}

pub(crate) fn builder() -> legacy::Builder {
    let mut builder = legacy::Client::builder(TokioExecutor::new());
    builder.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE).http1_max_buf_size(HEAD);
    builder
}

async fn read<B: Body<Error: Into<Box<dyn Error + Send + Sync>>> + Unpin>(body: B) {
    let mut body = Limited::new(body, READ);
    for _ in 0..PIECES {
        if !matches!(body.frame().await, Some(Ok(_))) {
            return;
        }
    }
}

impl fmt::Debug for WebhookClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookClient").field("list", &self.list).finish_non_exhaustive()
    }
}

impl WebhookSendError {
    /// Finds the reason among the causes of `error`.
    fn of(error: &(dyn Error + 'static)) -> Self {
        if let Some(refused) = causes(error).find_map(|cause| cause.downcast_ref::<AddressRefused>()) {
            return Self::Refused(refused.clone());
        }
        let is_timeout = |error: &io::Error| error.kind() == io::ErrorKind::TimedOut;
        if causes(error).any(|cause| cause.downcast_ref().is_some_and(is_timeout)) {
            return Self::TimedOut;
        }
        Self::Broken(format!("error sending request: {}", in_full(error)))
    }
}

/// `error` and its causes.
pub(crate) fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    successors(Some(error), |&error| error.source())
}

#[cfg(test)]
mod tests;
