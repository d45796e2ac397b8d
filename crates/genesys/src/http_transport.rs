//! A single HTTP exchange: no redirects, no retries, limited in time and size. It depends on no other module of this
//! crate, so it can be used for HTTP without a token and a budget.

use std::{error::Error, path::Path, time::Duration};

use bytes::{Bytes, BytesMut};
use reqwest::{
    Client, Method, Response, Url,
    header::{HeaderMap, HeaderValue, USER_AGENT},
    redirect, retry,
};
use secrecy::{ExposeSecret, SecretString};

use genfleet_job::options::ConfigError;
use genfleet_telemetry::http::{authorities, in_full};

/// Maximum length that is read of a body, in bytes.
const LONGEST_BODY: usize = 4 * 1024 * 1024;
/// Time after which idle connections are closed, before a load balancer closes them during a request.
const IDLE: Duration = Duration::from_secs(30);

/// The time limits of an exchange.
#[derive(Clone, Copy, Debug)]
pub struct HttpTimeouts {
    /// Maximum time until a connection is established.
    pub connect: Duration,
    /// Maximum time until the whole answer is read.
    pub whole: Duration,
}

impl Default for HttpTimeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), whole: Duration::from_secs(15) }
    }
}

#[derive(Clone)]
pub(crate) struct HttpRequest {
    pub method: Method,
    pub url: Url,
    /// All headers except the user agent.
    pub headers: HeaderMap,
    pub body: Option<Bytes>,
    /// Id and secret for HTTP Basic.
    pub basic: Option<(SecretString, SecretString)>,
}

#[derive(Clone, Debug)]
pub(crate) struct HttpResponse {
    pub status: u16,
    pub headers: HeaderMap,
    /// The whole body; of an answer that is no success possibly its beginning.
    pub body: Bytes,
}

/// The stage at which an exchange failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportFailure {
    /// No connection: the request never arrived.
    NeverSent,
    /// The time ran out after sending began.
    TimedOut,
    /// The connection broke after sending began.
    Broken,
    /// The body is longer than what is read.
    TooLong,
}

/// An exchange without a usable answer.
#[derive(Clone, Debug)]
pub(crate) struct TransportError {
    pub failure: TransportFailure,
    /// The error with its causes.
    pub message: String,
    /// The innermost cause, in a few words.
    pub cause: String,
}

#[derive(Clone, Debug)]
pub(crate) enum HttpTransport {
    Network(Client),
    /// The answers of a test, under paused time.
    #[cfg(test)]
    Scripted(testing::ScriptedTransport),
}

/// The proxy between this process and the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProxyUse {
    /// The proxy in `HTTPS_PROXY` and similar variables.
    FromEnvironment,
    None,
}

impl HttpTransport {
    /// Sends over the network and trusts the certificate authorities of `ca_file` beside the system's.
    pub(crate) fn over_network(
        ca_file: Option<&Path>,
        time_outs: HttpTimeouts,
        way: ProxyUse,
    ) -> Result<Self, ConfigError> {
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
        Ok(Self::Network(builder.build().map_err(wrong)?))
    }

    /// Sends and reads the whole answer.
    pub(crate) async fn exchange(&self, outgoing: HttpRequest) -> Result<HttpResponse, TransportError> {
        match self {
            Self::Network(client) => send_over_network(client, outgoing).await,
            #[cfg(test)]
            Self::Scripted(script) => script.exchange(outgoing).await,
        }
    }
}

async fn send_over_network(client: &Client, outgoing: HttpRequest) -> Result<HttpResponse, TransportError> {
    let mut builder = client.request(outgoing.method, outgoing.url).headers(outgoing.headers);
    if let Some((id, secret)) = &outgoing.basic {
        builder = builder.basic_auth(id.expose_secret(), Some(secret.expose_secret()));
    }
    if let Some(body) = outgoing.body {
        builder = builder.body(body);
    }
    let mut response = builder.send().await.map_err(TransportError::from_reqwest)?;
    let (body, error) = read_body(&mut response).await;
    // The body of an error is for people, so its beginning is enough.
    if let Some(error) = error.filter(|_| response.status().is_success()) {
        return Err(error);
    }
    Ok(HttpResponse { status: response.status().as_u16(), headers: std::mem::take(response.headers_mut()), body })
}

/// Reads the body; the error says why it is incomplete.
async fn read_body(response: &mut Response) -> (Bytes, Option<TransportError>) {
    let mut body = BytesMut::new();
    loop {
        match response.chunk().await {
            Ok(None) => return (body.freeze(), None),
            Ok(Some(chunk)) if body.len() + chunk.len() > LONGEST_BODY => {
                let message = format!("the answer ({}) is longer than 4 MiB", response.status().as_u16());
                let cause = message.clone();
                return (body.freeze(), Some(TransportError { failure: TransportFailure::TooLong, message, cause }));
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Err(error) => return (body.freeze(), Some(TransportError::from_reqwest(error))),
        }
    }
}

impl TransportError {
    fn from_reqwest(error: reqwest::Error) -> Self {
        let failure = if error.is_connect() || error.is_builder() {
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
        Self { failure, cause, message: in_full(&error.without_url()) }
    }
}

/// Returns the last of the causes of `error`.
fn innermost(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
