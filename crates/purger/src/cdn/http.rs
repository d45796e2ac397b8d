//! HTTP to a CDN, and to whoever gives credentials for it: one exchange, without the bearer token of Genesys Cloud.

use std::time::Duration;

use bytes::Bytes;
use genfleet_core::{
    audit::Audit,
    clock::SharedClock,
    genesys::{Caller, TransportFailure},
    job::Kind,
    metric,
    options::ConfigError,
    outside::{OutsideClient, OutsideError, OutsideRequest},
    webhook::AddressEntry,
};
use hyper::header::HeaderValue;
use metrics::{counter, histogram};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::provider::{CdnAnswer, CdnRequest};

/// The most that is read of an answer, in bytes.
const LONGEST_ANSWER: usize = 1024 * 1024;
/// Every address: which CDN is asked is the operator's choice, and no job's.
const EVERYWHERE: [&str; 2] = ["0.0.0.0/0", "::/0"];
/// Stands for a secret of the request in an answer.
const REDACTED: &str = "[redacted]";
/// Shorter values are too common to be cut out.
const LEAST_SECRET: usize = 8;

/// Sends requests to a CDN. Clones share connections.
#[derive(Clone, Debug)]
pub(crate) struct CdnHttp {
    client: OutsideClient,
    /// The exchanges are recorded by who sends them, since an answer's status does not tell its effect.
    no_audit: Audit,
    clock: SharedClock,
}

/// The reason why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CdnFailure {
    pub(crate) code: &'static str,
    pub(crate) why: String,
    /// The CDN may have got the request.
    pub(crate) may_have_arrived: bool,
}

impl CdnHttp {
    /// Makes a client, which may speak to the hosts of `urls` without TLS, too.
    pub(crate) fn new<'a>(clock: SharedClock, urls: impl IntoIterator<Item = &'a Url>) -> Result<Self, ConfigError> {
        let mut allowed: Vec<AddressEntry> = EVERYWHERE.iter().map(|net| net.parse()).collect::<Result<_, _>>()?;
        allowed.extend(urls.into_iter().filter_map(|url| url.domain()?.parse().ok()));
        let client = OutsideClient::new("--cdn-url", &allowed, None)?;
        Ok(Self { client, no_audit: Audit::off(), clock })
    }

    /// Sends a request that is no job's.
    pub(crate) async fn exchange(&self, request: CdnRequest) -> Result<CdnAnswer, CdnFailure> {
        let stop = CancellationToken::new();
        let nobody = Caller { kind: Kind::CdnPurge, jobs: &[], traces: &[], stop: &stop, lease: None };
        self.exchange_for(request, &nobody).await
    }

    /// Sends a request of the caller's jobs. Once it is sent, it is waited for.
    pub(crate) async fn exchange_for(&self, request: CdnRequest, caller: &Caller<'_>) -> Result<CdnAnswer, CdnFailure> {
        let CdnRequest { method, endpoint, url, headers, body } = request;
        let secrets: Vec<HeaderValue> = headers.values().filter(|value| value.is_sensitive()).cloned().collect();
        let (verb, began) = (method.to_string(), Instant::now());
        let outgoing = OutsideRequest::new(method, endpoint, url).body(body);
        let outgoing =
            headers.iter().fold(outgoing, |outgoing, (name, value)| outgoing.header(name.clone(), value.clone()));
        let result = self.answer(outgoing, caller, &secrets).await;
        let status = result.as_ref().map_or_else(|_| "error".to_owned(), |answer| answer.status.to_string());
        counter!(metric::API_REQUESTS, "endpoint" => endpoint, "method" => verb.clone(), "status" => status)
            .increment(1);
        histogram!(metric::API_REQUEST_DURATION, "endpoint" => endpoint, "method" => verb).record(began.elapsed());
        result
    }

    async fn answer(
        &self,
        request: OutsideRequest,
        caller: &Caller<'_>,
        secrets: &[HeaderValue],
    ) -> Result<CdnAnswer, CdnFailure> {
        let answer = self.client.send(request, caller, &self.no_audit).await.map_err(CdnFailure::of)?;
        let (status, headers) = (answer.status, answer.headers.clone());
        let retry_after: Option<Duration> = answer.retry_after(self.clock.now());
        let body = answer.read(LONGEST_ANSWER).await.map_err(CdnFailure::of)?;
        Ok(CdnAnswer { status, headers, retry_after, body: without_secrets(body, secrets) })
    }
}

/// Cuts the secrets of a request out of what was answered.
fn without_secrets(body: Bytes, secrets: &[HeaderValue]) -> Bytes {
    let mut body = body;
    for secret in secrets.iter().filter_map(|value| value.to_str().ok()) {
        let secret = secret.strip_prefix("Bearer ").unwrap_or(secret);
        let text = String::from_utf8_lossy(&body);
        if secret.len() >= LEAST_SECRET && text.contains(secret) {
            body = text.replace(secret, REDACTED).into();
        }
    }
    body
}

impl CdnFailure {
    fn of(error: OutsideError) -> Self {
        let may_have_arrived = error.may_have_arrived();
        let (code, why) = match error {
            OutsideError::Failed(TransportFailure::TimedOut, why) => ("api_timeout", why),
            OutsideError::Failed(_, why) | OutsideError::Refused(why) => ("api_unavailable", why),
            OutsideError::Interrupted => ("interrupted", "stopped before it was sent".to_owned()),
        };
        Self { code, why, may_have_arrived }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_the_request_are_cut_out_of_the_answer() {
        let secrets = ["Bearer hush-hush-hush", "tiny"].map(HeaderValue::from_static);
        let cut = without_secrets("a hush-hush-hush b hush-hush-hush tiny".into(), &secrets);
        assert_eq!(&cut[..], b"a [redacted] b [redacted] tiny");
    }
}
