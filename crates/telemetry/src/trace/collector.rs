//! Sends batches of spans to a collector: OTLP over HTTP, in protobuf. A batch that is not accepted is retried for as
//! long as one request may last, then dropped and counted; losses are logged once a minute at most.

use std::{
    fmt,
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use opentelemetry_proto::{
    tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
    transform::{common::tonic::ResourceAttributesWithSchema, trace::tonic::group_spans_by_resource_and_scope},
};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{SpanData, SpanExporter},
};
use prost::Message;
use reqwest::{
    Client, StatusCode, Url,
    header::{CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT},
    redirect, retry,
};
use tokio::{runtime::Handle, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::http::{authorities, in_full};
use genfleet_job::options::ConfigError;

/// The wait before the first retry of a batch; it doubles with each retry.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// The interval between two log lines about losses.
const LOG_INTERVAL: Duration = Duration::from_secs(60);
/// The longest response that is read, in bytes.
const LONGEST_RESPONSE: usize = 64 * 1024;
/// The longest reason of a collector that is logged, in characters.
const LONGEST_REASON: usize = 200;

/// A collector and the client that reaches it.
#[derive(Clone)]
pub(super) struct Collector {
    endpoint: Url,
    client: Client,
    /// The longest time for a batch, with all its retries.
    time: Duration,
    /// Cancelled when the process stops: then batches are not retried.
    pub(super) stopping: CancellationToken,
}

/// The exporter for the SDK, which calls it from a thread of its own, outside the executor.
#[derive(Debug)]
pub(super) struct Exporter {
    collector: Collector,
    executor: Handle,
    resource: ResourceAttributesWithSchema,
    losses: Losses,
}

/// Spans that were lost.
#[derive(Debug, Default)]
struct Losses(Mutex<Loss>);

#[derive(Debug, Default)]
struct Loss {
    unlogged: u64,
    total: u64,
    logged: Option<Instant>,
}

/// The result of one try.
enum SendResult {
    /// Accepted but for `rejected` spans.
    Accepted {
        rejected: u64,
        reason: String,
    },
    Retryable(String),
    Refused(String),
}

impl Collector {
    /// A client for the collector at `endpoint`, which trusts the certificate authorities of `ca_file` beside the
    /// system's.
    pub(super) fn new(
        endpoint: Url,
        mut headers: HeaderMap,
        time: Duration,
        ca_file: Option<&str>,
    ) -> Result<Self, ConfigError> {
        let user_agent = HeaderValue::from_static(concat!("genfleet/", env!("CARGO_PKG_VERSION")));
        headers.entry(USER_AGENT).or_insert(user_agent);
        let mut builder = Client::builder()
            .default_headers(headers)
            .timeout(time)
            .redirect(redirect::Policy::none())
            .retry(retry::never());
        if let Some(path) = ca_file {
            builder = builder.tls_certs_merge(authorities("OTEL_EXPORTER_OTLP_CERTIFICATE", Path::new(path))?);
        }
        let wrong =
            |error: reqwest::Error| ConfigError::new(format!("the HTTP client cannot be built: {}", in_full(&error)));
        Ok(Self { endpoint, client: builder.build().map_err(wrong)?, time, stopping: CancellationToken::new() })
    }

    /// The address without what may be secret.
    pub(super) fn origin(&self) -> String {
        self.endpoint.origin().ascii_serialization()
    }

    /// An exporter that sends in `executor`.
    pub(super) fn exporter(self, executor: Handle) -> Exporter {
        Exporter {
            collector: self,
            executor,
            resource: ResourceAttributesWithSchema::default(),
            losses: Losses::default(),
        }
    }

    /// Sends a batch; returns how many spans are lost, and why.
    async fn send(&self, body: Bytes, spans: u64) -> Result<(), (u64, String)> {
        let (began, mut wait) = (Instant::now(), FIRST_WAIT);
        loop {
            let why = match self.try_once(body.clone()).await {
                SendResult::Accepted { rejected: 0, .. } => return Ok(()),
                SendResult::Accepted { rejected, reason } => return Err((rejected, reason)),
                SendResult::Refused(why) => return Err((spans, why)),
                SendResult::Retryable(why) => why,
            };
            let pause = sleep(wait.mul_f64(0.5 + fastrand::f64() / 2.0));
            if began.elapsed() + wait > self.time || self.stopping.run_until_cancelled(pause).await.is_none() {
                return Err((spans, why));
            }
            wait *= 2;
        }
    }

    async fn try_once(&self, body: Bytes) -> SendResult {
        let request = self.client.post(self.endpoint.clone()).header(CONTENT_TYPE, "application/x-protobuf").body(body);
        let mut response = match request.send().await {
            Ok(response) => response,
            Err(error) => return SendResult::Retryable(in_full(&error.without_url())),
        };
        let status = response.status();
        match status {
            _ if status.is_success() => {}
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => return SendResult::Retryable(format!("it answers {status}")),
            _ => return SendResult::Refused(format!("it answers {status}")),
        }
        let mut answer = Vec::new();
        while let Ok(Some(chunk)) = response.chunk().await {
            if answer.len() + chunk.len() > LONGEST_RESPONSE {
                break;
            }
            answer.extend_from_slice(&chunk);
        }
        read_result(&answer)
    }
}

/// Reads the body of a success; an unreadable one counts as complete.
fn read_result(answer: &[u8]) -> SendResult {
    let partial = ExportTraceServiceResponse::decode(answer).ok().and_then(|answer| answer.partial_success);
    let partial = partial.unwrap_or_default();
    SendResult::Accepted {
        rejected: u64::try_from(partial.rejected_spans).unwrap_or(0),
        reason: partial.error_message.chars().take(LONGEST_REASON).collect(),
    }
}

impl SpanExporter for Exporter {
    /// Never returns an error: the SDK would log every one.
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len() as u64;
        let resource_spans = group_spans_by_resource_and_scope(batch, &self.resource);
        let body = Bytes::from(ExportTraceServiceRequest { resource_spans }.encode_to_vec());
        let collector = self.collector.clone();
        let sent = self.executor.spawn(async move { collector.send(body, spans).await }).await;
        match sent {
            Ok(Ok(())) => {}
            Ok(Err((lost, why))) => self.losses.note(lost, &why, &self.collector.origin()),
            Err(_) => self.losses.note(spans, "the process stops", &self.collector.origin()),
        }
        Ok(())
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.resource = resource.into();
    }
}

impl Losses {
    fn note(&self, spans: u64, why: &str, collector: &str) {
        let mut loss = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        loss.unlogged += spans;
        loss.total += spans;
        if loss.logged.is_none_or(|logged| logged.elapsed() >= LOG_INTERVAL) {
            loss.logged = Some(Instant::now());
            let spans = std::mem::take(&mut loss.unlogged);
            warn!(collector, why, spans, in_all = loss.total, "spans are lost: the collector does not accept them");
        }
    }
}

/// Omits the address and the headers, which may contain secrets.
impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Collector({})", self.origin())
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;

    use super::*;

    fn rejected(answer: &[u8]) -> (u64, String) {
        match read_result(answer) {
            SendResult::Accepted { rejected, reason } => (rejected, reason),
            SendResult::Retryable(why) | SendResult::Refused(why) => panic!("{why}"),
        }
    }

    #[test]
    fn a_success_tells_how_many_spans_are_rejected_and_an_unreadable_one_none() {
        let partial = ExportTracePartialSuccess { rejected_spans: 3, error_message: "x".repeat(10_000) };
        let answer = ExportTraceServiceResponse { partial_success: Some(partial) };
        assert_eq!(rejected(&answer.encode_to_vec()), (3, "x".repeat(LONGEST_REASON)));
        for answer in [&b""[..], b"{}", b"\xff\xff"] {
            assert_eq!(rejected(answer), (0, String::new()));
        }
    }

    #[test]
    fn an_address_is_shown_without_secrets() {
        let endpoint = Url::parse("http://user:hush@collector:4318/hush").unwrap();
        crate::http::install_tls();
        let collector = Collector::new(endpoint, HeaderMap::new(), Duration::from_secs(1), None).unwrap();
        assert_eq!(format!("{collector:?}"), "Collector(http://collector:4318)");
    }
}
