//! One HTTP exchange: no redirects, no retries, bounded in time and size. Knows no token, no budget and no meaning of
//! a status.

use std::{error::Error, path::Path, time::Duration};

use bytes::{Bytes, BytesMut};
use reqwest::{
    Client, Method, Response, Url,
    header::{HeaderMap, HeaderValue, USER_AGENT},
    redirect, retry,
};
use secrecy::{ExposeSecret, SecretString};

use crate::classify::TransportFailure;
use genfleet_job::options::ConfigError;
use genfleet_telemetry::http::{authorities, in_full};

/// What is read of a body, at most, in bytes.
const LONGEST_BODY: usize = 4 * 1024 * 1024;
/// Idle connections are closed before a load balancer does it under a request.
const IDLE: Duration = Duration::from_secs(30);

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct HttpTimeouts {
    /// Until there is a connection.
    pub connect: Duration,
    /// Until the whole answer is read.
    pub whole: Duration,
}

impl Default for HttpTimeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), whole: Duration::from_secs(15) }
    }
}

/// What is sent.
#[derive(Clone)]
pub(crate) struct HttpRequest {
    /// The method.
    pub method: Method,
    /// The whole address.
    pub url: Url,
    /// All headers but the user agent.
    pub headers: HeaderMap,
    /// The body, where there is one.
    pub body: Option<Bytes>,
    /// Id and secret for HTTP Basic.
    pub basic: Option<(SecretString, SecretString)>,
}

/// What came back.
#[derive(Clone, Debug)]
pub(crate) struct HttpResponse {
    /// Any status.
    pub status: u16,
    /// All headers.
    pub headers: HeaderMap,
    /// The whole body; of an answer that is no success possibly its beginning.
    pub body: Bytes,
}

/// Why nothing came back.
#[derive(Clone, Debug)]
pub(crate) struct TransportError {
    /// How far it came.
    pub why: TransportFailure,
    /// For people.
    pub message: String,
    /// What it comes down to, in a few words.
    pub cause: String,
}

/// Where requests are sent over.
#[derive(Clone, Debug)]
pub(crate) enum HttpTransport {
    /// The network.
    Http(Client),
    /// A test's own answers, under paused time.
    #[cfg(test)]
    ScriptedTransport(testing::ScriptedTransport),
}

/// Whether a proxy may be between us and the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProxyUse {
    /// As `HTTPS_PROXY` and its like say.
    FromEnvironment,
    /// None: the simulator in this process.
    Direct,
}

impl HttpTransport {
    /// The network, with the certificate authorities of `ca_file` beside the system's.
    pub(crate) fn http(ca_file: Option<&Path>, time_outs: HttpTimeouts, way: ProxyUse) -> Result<Self, ConfigError> {
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            return Err(ConfigError::new("no TLS provider is installed: main has to install one first"));
        }
        let user_agent = HeaderValue::from_static(concat!("genfleet/", env!("CARGO_PKG_VERSION")));
        let mut builder = Client::builder()
            .default_headers(HeaderMap::from_iter([(USER_AGENT, user_agent)]))
            .connect_timeout(time_outs.connect)
            .timeout(time_outs.whole)
            .pool_idle_timeout(IDLE)
            .redirect(redirect::Policy::none())
            .retry(retry::never());
        if let Some(path) = ca_file {
            builder = builder.tls_certs_merge(authorities("GENESYS_CA_FILE", path)?);
        }
        if way == ProxyUse::None {
            builder = builder.no_proxy();
        }
        let wrong = |error: reqwest::Error| ConfigError::new(format!("no HTTP client: {}", in_full(&error)));
        Ok(Self::Http(builder.build().map_err(wrong)?))
    }

    /// Sends and reads the whole answer.
    pub(crate) async fn exchange(&self, outgoing: HttpRequest) -> Result<HttpResponse, TransportError> {
        match self {
            Self::Http(client) => over_http(client, outgoing).await,
            #[cfg(test)]
            Self::ScriptedTransport(script) => script.exchange(outgoing).await,
        }
    }
}

async fn over_http(client: &Client, outgoing: HttpRequest) -> Result<HttpResponse, TransportError> {
    let mut builder = client.request(outgoing.method, outgoing.url).headers(outgoing.headers);
    if let Some((id, secret)) = &outgoing.basic {
        builder = builder.basic_auth(id.expose_secret(), Some(secret.expose_secret()));
    }
    if let Some(body) = outgoing.body {
        builder = builder.body(body);
    }
    let mut response = builder.send().await.map_err(TransportError::of)?;
    let (body, cut) = body(&mut response).await;
    // What no success says beside its status and headers is for people.
    if let Some(cut) = cut.filter(|_| response.status().is_success()) {
        return Err(cut);
    }
    Ok(HttpResponse { status: response.status().as_u16(), headers: std::mem::take(response.headers_mut()), body })
}

/// The body, and why it ends before its end, if it does.
async fn body(response: &mut Response) -> (Bytes, Option<TransportError>) {
    let mut body = BytesMut::new();
    loop {
        match response.chunk().await {
            Ok(None) => return (body.freeze(), None),
            Ok(Some(chunk)) if body.len() + chunk.len() > LONGEST_BODY => {
                let message = format!("the answer ({}) is longer than 4 MiB", response.status().as_u16());
                let cause = message.clone();
                return (body.freeze(), Some(TransportError { why: TransportFailure::TooLong, message, cause }));
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Err(error) => return (body.freeze(), Some(TransportError::of(error))),
        }
    }
}

impl TransportError {
    fn of(error: reqwest::Error) -> Self {
        let why = if error.is_connect() || error.is_builder() {
            TransportFailure::NeverSent
        } else if error.is_timeout() {
            TransportFailure::TimedOut
        } else {
            TransportFailure::Broken
        };
        let cause = match (error.is_timeout(), error.is_connect()) {
            (true, true) => "no connection in time".to_owned(),
            (true, false) => "no answer in time".to_owned(),
            (false, _) => innermost(&error),
        };
        Self { why, cause, message: in_full(&error.without_url()) }
    }
}

/// What an error comes down to: the cause of its causes.
fn innermost(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests;
