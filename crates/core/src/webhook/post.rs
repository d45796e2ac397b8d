//! One POST to a receiver: no redirects, no proxy, no retries, bounded in time, and only to addresses the guard lets
//! through. Knows no job and no meaning of a status.

use std::{
    collections::BTreeMap, error::Error, fmt, future::Future, io, net::IpAddr, path::Path, pin::Pin, sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use jiff::Timestamp;
use reqwest::{
    Client, Response,
    header::{HeaderMap, HeaderValue, USER_AGENT},
    redirect, retry,
};
use tokio::time::timeout;
use url::Host;

use super::{
    address_guard::{AddressList, AddressRefused, Guard, Names, SystemNames},
    receiver::Receiver,
};
use genfleet_genesys::limits;
use genfleet_job::options::ConfigError;
use genfleet_telemetry::http::{authorities, in_full};

/// Until there is a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Until there is an answer.
const WHOLE: Duration = Duration::from_secs(15);
/// Idle connections are closed before a receiver does it under a delivery: many keep them for five seconds.
const IDLE: Duration = Duration::from_secs(2);
/// Read of an answer, so that its connection can be used again; what it says is of no interest.
const READ: usize = 64 * 1024;
/// For as long, at most.
const READING: Duration = Duration::from_secs(1);

/// Where deliveries are sent over. Clones share connections.
#[derive(Clone)]
pub struct Post {
    /// Of each port that an entry of the list names: a look-up does not know which port it is for.
    clients: BTreeMap<u16, Client>,
    /// Of all others.
    others: Client,
    list: AddressList,
    names: LookUp,
}

type LookUp = Arc<dyn Fn(String) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>> + Send + Sync>;

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
        let client = |port| client(Guard::new(names.clone(), list.clone(), port), ca_file);
        let clients = list.ports().map(|port| Ok((port, client(Some(port))?))).collect::<Result<_, ConfigError>>()?;
        let others = client(None)?;
        let names: LookUp = Arc::new(move |host| {
            let names = names.clone();
            Box::pin(async move { names.look_up(&host).await })
        });
        Ok(Self { clients, others, list, names })
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

    fn client(&self, receiver: &Receiver) -> &Client {
        let port = receiver.url().port_or_known_default();
        port.and_then(|port| self.clients.get(&port)).unwrap_or(&self.others)
    }

    /// Whether `receiver` is there: a HEAD for its root, which is not what deliveries go to. Any answer will do.
    pub async fn reach(&self, receiver: &Receiver) -> Result<(), NoAnswer> {
        self.list.judge_literal(receiver).map_err(NoAnswer::Refused)?;
        let sent = self.client(receiver).head(receiver.to_string()).timeout(CONNECT).send().await;
        sent.map(drop).map_err(|error| NoAnswer::of(&error.without_url()))
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
        let request = self.client(receiver).post(receiver.url().clone()).headers(headers).body(body);
        let response = request.send().await.map_err(|error| NoAnswer::of(&error.without_url()))?;
        let status = response.status().as_u16();
        let answer = Answer { status, retry_after: limits::retry_after(response.headers(), now) };
        // Nothing depends on how this ends.
        let _ = timeout(READING, read(response)).await;
        Ok(answer)
    }
}

fn client<N: Names>(guard: Guard<N>, ca_file: Option<&Path>) -> Result<Client, ConfigError> {
    let user_agent = HeaderValue::from_static(concat!("genfleet/", env!("CARGO_PKG_VERSION")));
    let mut builder = Client::builder()
        .default_headers(HeaderMap::from_iter([(USER_AGENT, user_agent)]))
        .connect_timeout(CONNECT)
        .timeout(WHOLE)
        .pool_idle_timeout(IDLE)
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .no_proxy()
        .dns_resolver(guard);
    if let Some(path) = ca_file {
        builder = builder.tls_certs_merge(authorities("--webhook-ca-file", path)?);
    }
    let wrong = |error: reqwest::Error| ConfigError::new(format!("no HTTP client: {}", in_full(&error)));
    builder.build().map_err(wrong)
}

impl fmt::Debug for Post {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Post").field("list", &self.list).finish_non_exhaustive()
    }
}

async fn read(mut response: Response) {
    let mut length = 0;
    while let Ok(Some(chunk)) = response.chunk().await {
        length += chunk.len();
        if length > READ {
            return;
        }
    }
}

impl NoAnswer {
    fn of(error: &reqwest::Error) -> Self {
        if let Some(refused) = refusal(error) {
            return Self::Refused(refused);
        }
        if error.is_timeout() { Self::TimedOut } else { Self::Broken(in_full(error)) }
    }
}

/// The guard's word, somewhere among the causes.
fn refusal(error: &reqwest::Error) -> Option<AddressRefused> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(refused) = error.downcast_ref::<AddressRefused>() {
            return Some(refused.clone());
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
mod tests;
