//! One POST to a receiver: no redirects, no proxy, no retries, bounded in time, and only to addresses the guard lets
//! through. Knows no job and no meaning of a status.

use std::{error::Error, fmt, io, iter::successors, net::IpAddr, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, Uri,
    body::{Body, Incoming},
    header::{ACCEPT, HeaderMap, HeaderValue, USER_AGENT},
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
    address_guard::{AddressList, AddressRefused, LookUp, Names, SystemNames},
    receiver::Receiver,
};
use genfleet_genesys::retry_after;
use genfleet_job::options::ConfigError;
use genfleet_telemetry::http::in_full;

mod connector;
mod meter;
mod tls;

/// Until there is a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Until there is an answer.
const WHOLE: Duration = Duration::from_secs(15);
/// Idle connections are closed before a receiver does it under a delivery: many keep them for five seconds.
const IDLE: Duration = Duration::from_secs(2);
/// The head of an answer, at most.
const HEAD: usize = 64 * 1024;
/// Read of an answer, so that its connection can be used again; what it says is of no interest.
const READ: usize = 64 * 1024;
/// In as many pieces, at most: chunks of a byte each would cost far more than what they hold.
const PIECES: usize = 1024;
/// For as long, at most.
const READING: Duration = Duration::from_secs(1);

/// Where deliveries are sent over. Clones share connections.
#[derive(Clone)]
pub struct Post {
    client: Client,
    list: AddressList,
    names: LookUp,
}

/// Of HTTP/1.1 only: a connection of HTTP/2 has more ways to be kept busy, and receivers need none of what it offers.
type Client = legacy::Client<Connector, Full<Bytes>>;

/// What came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Any status.
    pub status: u16,
    /// What the receiver asked for.
    pub retry_after: Option<Duration>,
}

/// Why nothing came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// Never sent: the address is not delivered to.
    Refused(AddressRefused),
    /// In no time.
    TimedOut,
    /// No connection, or it broke; in words.
    Broken(String),
}

impl Post {
    /// To public addresses as `list` says, with the certificate authorities of `ca_file` beside the system's.
    pub fn new(list: AddressList, ca_file: Option<&Path>) -> Result<Self, ConfigError> {
        Self::with_names(list, ca_file, SystemNames)
    }

    /// The same, with names looked up elsewhere.
    pub fn with_names<N: Names>(list: AddressList, ca_file: Option<&Path>, names: N) -> Result<Self, ConfigError> {
        let names: LookUp = Arc::new(move |host| {
            let names = names.clone();
            Box::pin(async move { names.look_up(&host).await })
        });
        let connector = Connector::new(Arc::clone(&names), list.clone(), tls::config(ca_file)?);
        Ok(Self { client: client(connector), list, names })
    }

    /// Whether `receiver` is reached by `https`, or may do without.
    pub fn allows_scheme(&self, receiver: &Receiver) -> bool {
        self.list.allows_scheme(receiver)
    }

    /// The address that `receiver` is likely to be connected to at: for bounds, not for judging it.
    pub async fn address(&self, receiver: &Receiver) -> Option<IpAddr> {
        match receiver.url().host()? {
            Host::Ipv4(ip) => Some(ip.into()),
            Host::Ipv6(ip) => Some(ip.into()),
            Host::Domain(host) => {
                let found = timeout(CONNECT, (self.names)(host.to_owned())).await.ok()?.ok()?;
                found.into_iter().min()
            }
        }
    }

    /// Whether `receiver` is there: a HEAD for its root, which is not what deliveries go to. Any answer will do.
    pub async fn reach(&self, receiver: &Receiver) -> Result<(), NoAnswer> {
        self.list.judge_literal(receiver).map_err(NoAnswer::Refused)?;
        let request = request(Method::HEAD, &receiver.to_string(), HeaderMap::new(), Bytes::new())?;
        self.answer(request, CONNECT).await.map(drop)
    }

    /// Sends `body` to `receiver`; `now` is for a `Retry-After` that is a date.
    pub async fn send(
        &self,
        receiver: &Receiver,
        headers: HeaderMap,
        body: Bytes,
        now: Timestamp,
    ) -> Result<Answer, NoAnswer> {
        self.list.judge_literal(receiver).map_err(NoAnswer::Refused)?;
        let request = request(Method::POST, receiver.url().as_str(), headers, body)?;
        let response = self.answer(request, WHOLE).await?;
        let status = response.status().as_u16();
        let answer = Answer { status, retry_after: retry_after(response.headers(), now) };
        // Nothing depends on how this ends.
        let _ = timeout(READING, read(response.into_body())).await;
        Ok(answer)
    }

    /// The head of the answer.
    async fn answer(&self, request: Request<Full<Bytes>>, within: Duration) -> Result<Response<Incoming>, NoAnswer> {
        let answered = timeout(within, self.client.request(request)).await.map_err(|_| NoAnswer::TimedOut)?;
        let response = answered.map_err(|error| NoAnswer::of(&error))?;
        if let Some(meter) = response.extensions().get::<Meter>() {
            meter.begin_anew();
        }
        Ok(response)
    }
}

fn request(method: Method, url: &str, headers: HeaderMap, body: Bytes) -> Result<Request<Full<Bytes>>, NoAnswer> {
    let uri: Uri = url.parse().map_err(|error| NoAnswer::of(&error))?;
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    let user_agent = HeaderValue::from_static(concat!("genfleet/", env!("CARGO_PKG_VERSION")));
    request.headers_mut().insert(USER_AGENT, user_agent);
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static("*/*"));
    Ok(request)
}

fn client(connector: Connector) -> Client {
    legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .http1_max_buf_size(HEAD)
        .build(connector)
}

async fn read<B: Body<Error: Into<Box<dyn Error + Send + Sync>>> + Unpin>(body: B) {
    let mut body = Limited::new(body, READ);
    for _ in 0..PIECES {
        if !matches!(body.frame().await, Some(Ok(_))) {
            return;
        }
    }
}

impl fmt::Debug for Post {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Post").field("list", &self.list).finish_non_exhaustive()
    }
}

impl NoAnswer {
    /// By what is among the causes: the guard's word, or that time was up.
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

/// `error`, and what is behind it.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    successors(Some(error), |&error| error.source())
}

#[cfg(test)]
mod tests;
