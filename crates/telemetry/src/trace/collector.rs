//! Sends batches of spans to a collector: OTLP over HTTP, in protobuf. A batch that is not taken is tried again for as
//! long as one request may last, then dropped, counted, and told: once a minute at most.

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

/// Between two tries of a batch, at first; twice as long each time.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// Between two lines of the log that say the same.
const TOLD_AGAIN: Duration = Duration::from_secs(60);
/// Read of an answer, in bytes.
const LONGEST_ANSWER: usize = 64 * 1024;
/// Of what a collector says is wrong, in characters.
const LONGEST_REASON: usize = 200;

/// A collector, as it is reached.
#[derive(Clone)]
pub(super) struct Collector {
    endpoint: Url,
    client: Client,
    /// For a batch, with all its tries.
    time: Duration,
    /// Cancelled when the process stops: then each batch is tried once.
    pub(super) stopping: CancellationToken,
}

/// Sends from outside the executor: the SDK has a thread of its own for batches.
#[derive(Debug)]
pub(super) struct Exporter {
    collector: Collector,
    executor: Handle,
    resource: ResourceAttributesWithSchema,
    losses: Losses,
}

/// What was not taken, and what of it was told.
#[derive(Debug, Default)]
struct Losses(Mutex<Loss>);

#[derive(Debug, Default)]
struct Loss {
    untold: u64,
    in_all: u64,
    told: Option<Instant>,
}

/// How a try ended.
enum Answer {
    /// All but so many spans, with the collector's reason.
    Taken { rejected: u64, reason: String },
    /// It may go better in a moment.
    Later(String),
    /// It will not.
    Refused(String),
}

impl Collector {
    /// The collector at `endpoint`, told by `headers` who we are, with the certificate authorities of `ca_file` beside
    /// the system's.
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
        let wrong = |error: reqwest::Error| ConfigError::new(format!("no HTTP client: {}", in_full(&error)));
        Ok(Self { endpoint, client: builder.build().map_err(wrong)?, time, stopping: CancellationToken::new() })
    }

    /// Where it is, as far as it may be told.
    pub(super) fn origin(&self) -> String {
        self.endpoint.origin().ascii_serialization()
    }

    /// Sends by `executor`.
    pub(super) fn on(self, executor: Handle) -> Exporter {
        Exporter {
            collector: self,
            executor,
            resource: ResourceAttributesWithSchema::default(),
            losses: Losses::default(),
        }
    }

    /// Sends a batch; why it was not taken, if not, or how much of it.
    async fn send(&self, body: Bytes, spans: u64) -> Result<(), (u64, String)> {
        let (began, mut wait) = (Instant::now(), FIRST_WAIT);
        loop {
            let why = match self.once(body.clone()).await {
                Answer::Taken { rejected: 0, .. } => return Ok(()),
                Answer::Taken { rejected, reason } => return Err((rejected, reason)),
                Answer::Refused(why) => return Err((spans, why)),
                Answer::Later(why) => why,
            };
            let pause = sleep(wait.mul_f64(0.5 + fastrand::f64() / 2.0));
            if began.elapsed() + wait > self.time || self.stopping.run_until_cancelled(pause).await.is_none() {
                return Err((spans, why));
            }
            wait *= 2;
        }
    }

    async fn once(&self, body: Bytes) -> Answer {
        let request = self.client.post(self.endpoint.clone()).header(CONTENT_TYPE, "application/x-protobuf").body(body);
        let mut response = match request.send().await {
            Ok(response) => response,
            Err(error) => return Answer::Later(in_full(&error.without_url())),
        };
        let status = response.status();
        match status {
            _ if status.is_success() => {}
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => return Answer::Later(format!("it answers {status}")),
            _ => return Answer::Refused(format!("it answers {status}")),
        }
        let mut answer = Vec::new();
        while let Ok(Some(chunk)) = response.chunk().await {
            if answer.len() + chunk.len() > LONGEST_ANSWER {
                break;
            }
            answer.extend_from_slice(&chunk);
        }
        taken(&answer)
    }
}

/// What a success says; one that says nothing we can read is one all the same.
fn taken(answer: &[u8]) -> Answer {
    let partial = ExportTraceServiceResponse::decode(answer).ok().and_then(|answer| answer.partial_success);
    let partial = partial.unwrap_or_default();
    Answer::Taken {
        rejected: u64::try_from(partial.rejected_spans).unwrap_or(0),
        reason: partial.error_message.chars().take(LONGEST_REASON).collect(),
    }
}

impl SpanExporter for Exporter {
    /// Never an error for the SDK, which would log every one.
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len() as u64;
        let resource_spans = group_spans_by_resource_and_scope(batch, &self.resource);
        let body = Bytes::from(ExportTraceServiceRequest { resource_spans }.encode_to_vec());
        let collector = self.collector.clone();
        let sent = self.executor.spawn(async move { collector.send(body, spans).await }).await;
        match sent {
            Ok(Ok(())) => {}
            Ok(Err((lost, why))) => self.losses.note(lost, &why, &self.collector.origin()),
            Err(_) => self.losses.note(spans, "the process ends", &self.collector.origin()),
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
        loss.untold += spans;
        loss.in_all += spans;
        if loss.told.is_none_or(|told| told.elapsed() >= TOLD_AGAIN) {
            loss.told = Some(Instant::now());
            let spans = std::mem::take(&mut loss.untold);
            warn!(collector, why, spans, in_all = loss.in_all, "spans are lost: the collector does not take them");
        }
    }
}

/// Its address and its headers may hold what nobody is to see.
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
        match taken(answer) {
            Answer::Taken { rejected, reason } => (rejected, reason),
            Answer::Later(why) | Answer::Refused(why) => panic!("{why}"),
        }
    }

    #[test]
    fn a_success_says_how_many_spans_it_leaves_out_and_one_that_says_nothing_takes_all() {
        let partial = ExportTracePartialSuccess { rejected_spans: 3, error_message: "x".repeat(10_000) };
        let answer = ExportTraceServiceResponse { partial_success: Some(partial) };
        assert_eq!(rejected(&answer.encode_to_vec()), (3, "x".repeat(LONGEST_REASON)));
        for answer in [&b""[..], b"{}", b"\xff\xff"] {
            assert_eq!(rejected(answer), (0, String::new()));
        }
    }

    #[test]
    fn an_address_is_shown_without_what_may_be_a_secret() {
        let endpoint = Url::parse("http://user:hush@collector:4318/hush").unwrap();
        crate::http::install_tls();
        let collector = Collector::new(endpoint, HeaderMap::new(), Duration::from_secs(1), None).unwrap();
        assert_eq!(format!("{collector:?}"), "Collector(http://collector:4318)");
    }
}
