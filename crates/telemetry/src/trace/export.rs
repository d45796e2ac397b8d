//! The settings of the export of spans: the `OTEL_*` variables of the OpenTelemetry specification. Nothing is exported
//! without `OTEL_EXPORTER_OTLP_ENDPOINT`.
//!
//! An invalid address ends the process with exit code 64; any other invalid value is logged and ignored, as the
//! specification asks. Spans wait in a bounded queue: a collector that is slow or away costs spans, never jobs.

use std::{env, sync::OnceLock, thread, time::Duration};

use opentelemetry::{InstrumentationScope, Key, KeyValue, trace::TracerProvider};
use opentelemetry_sdk::{
    Resource,
    trace::{BatchSpanProcessor, SdkTracerProvider, TracerProviderBuilder},
};
use reqwest::{
    Url,
    header::{HeaderMap, HeaderName, HeaderValue},
};
use secrecy::ExposeSecret;
use tokio::{runtime::Handle, sync::oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use super::{collector::Collector, span::TRACER};
use genfleet_job::options::{ConfigError, format_duration, is_unencrypted_remote, secret};

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
/// The default time-out of a request to the collector.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Variables with numbers, which the SDK ignores silently if they are invalid.
const NUMBERS: [&str; 7] = [
    "OTEL_BSP_SCHEDULE_DELAY",
    "OTEL_BSP_MAX_QUEUE_SIZE",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
    "OTEL_BSP_EXPORT_TIMEOUT",
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_SPAN_EVENT_COUNT_LIMIT",
    "OTEL_SPAN_LINK_COUNT_LIMIT",
];

/// No limit: [`stop_export`] limits the time itself.
const NO_LIMIT: Duration = Duration::from_secs(3600);

/// The provider, kept for [`stop_export`] and so that it outlives all spans, and a token that is cancelled to stop it.
static PROVIDER: OnceLock<(SdkTracerProvider, CancellationToken)> = OnceLock::new();

/// The settings of the export of spans.
#[derive(Debug)]
pub struct TraceExport {
    /// The provider; its sampler follows the variables.
    provider: TracerProviderBuilder,
    resource: Resource,
    collector: Collector,
}

impl TraceExport {
    /// Reads the variables; `None` if nothing is to be exported. `service` is the default service name. Needs the log
    /// and the TLS provider.
    pub fn from_environment(service: &str) -> Result<Option<Self>, ConfigError> {
        if is_off() {
            return Ok(None);
        }
        let Some(endpoint) = endpoint()? else { return Ok(None) };
        warn_of_ignored();
        warn_of_plaintext(&endpoint);
        let collector = Collector::new(endpoint, headers()?, timeout(), otlp_variable("CERTIFICATE").as_deref())?;
        Ok(Some(Self { provider: SdkTracerProvider::builder(), resource: resource(service), collector }))
    }

    /// Starts the export. Must be called inside the executor that sends the spans; a second call does nothing.
    pub fn start(self) {
        info!(collector = self.collector.origin(), "traces are exported");
        let stopping = self.collector.stopping.clone();
        let processor = BatchSpanProcessor::builder(self.collector.exporter(Handle::current())).build();
        let provider = self.provider.with_span_processor(processor).with_resource(self.resource).build();
        let scope = InstrumentationScope::builder("genfleet").with_version(env!("CARGO_PKG_VERSION")).build();
        let _ = TRACER.set(provider.tracer_with_scope(scope));
        let _ = PROVIDER.set((provider, stopping));
    }
}

/// Sends the spans that are left, without retries and within this time. Spans that end later are lost.
pub async fn stop_export(within: Duration) {
    let Some((provider, stopping)) = PROVIDER.get() else { return };
    stopping.cancel();
    let (sender, stopped) = oneshot::channel();
    // It blocks, and a blocking task of the executor would delay a process that must end at once.
    thread::spawn(move || sender.send(provider.shutdown_with_timeout(NO_LIMIT)));
    if tokio::time::timeout(within, stopped).await.is_err() {
        warn!("the last spans are lost: the collector did not accept them within {}", format_duration(within));
    }
}

/// The value of a variable; an empty one counts as not set.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

/// The value of `OTEL_EXPORTER_OTLP_TRACES_…`, else of `OTEL_EXPORTER_OTLP_…`.
fn otlp_variable(name: &str) -> Option<String> {
    variable(&format!("OTEL_EXPORTER_OTLP_TRACES_{name}")).or_else(|| variable(&format!("OTEL_EXPORTER_OTLP_{name}")))
}

fn is_off() -> bool {
    let disabled = variable("OTEL_SDK_DISABLED").map(|value| value.to_ascii_lowercase());
    if let Some(value) = disabled.as_deref().filter(|value| !["true", "false"].contains(value)) {
        warn!(value, "OTEL_SDK_DISABLED is neither true nor false: false is assumed");
    }
    disabled.as_deref() == Some("true") || variable("OTEL_TRACES_EXPORTER").as_deref() == Some("none")
}

/// The address for traces; the address for all signals gets the suffix `/v1/traces`.
fn endpoint() -> Result<Option<Url>, ConfigError> {
    let (name, address) = match (variable(TRACES_ENDPOINT), variable(ENDPOINT)) {
        (Some(address), _) => (TRACES_ENDPOINT, address),
        (None, Some(address)) => (ENDPOINT, format!("{}/v1/traces", address.trim_end_matches('/'))),
        (None, None) => return Ok(None),
    };
    let url = Url::parse(&address).ok().filter(|url| ["http", "https"].contains(&url.scheme()) && url.has_host());
    url.map(Some).ok_or_else(|| {
        ConfigError::new(format!("{name}: not the address of a collector; write http://HOST:4318 (OTLP over HTTP)"))
    })
}

fn timeout() -> Duration {
    let Some(value) = otlp_variable("TIMEOUT") else { return TIMEOUT };
    let read = value.parse().ok().filter(|millis| *millis > 0).map(Duration::from_millis);
    read.unwrap_or_else(|| {
        warn!(value, "OTEL_EXPORTER_OTLP_TIMEOUT: not a number of milliseconds: ignored");
        TIMEOUT
    })
}

/// Headers written as `name=value,…` with percent-encoded values. They may be secrets and are never logged.
fn headers() -> Result<HeaderMap, ConfigError> {
    let name = "OTEL_EXPORTER_OTLP_TRACES_HEADERS";
    let written = match secret(name)? {
        Some(written) => Some((name, written)),
        None => secret("OTEL_EXPORTER_OTLP_HEADERS")?.map(|written| ("OTEL_EXPORTER_OTLP_HEADERS", written)),
    };
    let Some((name, written)) = written else { return Ok(HeaderMap::new()) };
    let mut headers = HeaderMap::new();
    for (number, entry) in written.expose_secret().split(',').enumerate().filter(|(_, entry)| !entry.trim().is_empty())
    {
        if let Some((header, value)) = header(entry) {
            headers.insert(header, value);
        } else {
            warn!(entry = number + 1, "{name}: an entry is not a valid NAME=VALUE: ignored");
        }
    }
    Ok(headers)
}

fn header(entry: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = entry.split_once('=')?;
    let mut value = HeaderValue::from_bytes(&percent_decode(value.trim())?).ok()?;
    value.set_sensitive(true);
    Some((HeaderName::from_bytes(name.trim().as_bytes()).ok()?, value))
}

fn percent_decode(text: &str) -> Option<Vec<u8>> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (code, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(code, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    Some(bytes)
}

/// Warns of values that have no effect and that the SDK would ignore silently.
fn warn_of_ignored() {
    for name in NUMBERS {
        if let Some(value) = variable(name).filter(|value| value.parse::<u32>().is_err()) {
            warn!(value, "{name}: not a number: ignored");
        }
    }
    if let Some(value) = otlp_variable("PROTOCOL").filter(|value| value != "http/protobuf") {
        warn!(value, "OTEL_EXPORTER_OTLP_PROTOCOL: only http/protobuf is supported (port 4318): ignored");
    }
    if let Some(value) = otlp_variable("COMPRESSION").filter(|value| value != "none") {
        warn!(value, "OTEL_EXPORTER_OTLP_COMPRESSION: compression is not supported: ignored");
    }
    if let Some(value) = variable("OTEL_TRACES_EXPORTER").filter(|value| value != "otlp") {
        warn!(value, "OTEL_TRACES_EXPORTER: only otlp is supported: ignored");
    }
    let attributes = variable("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    if attributes.split_terminator(',').any(|entry| !entry.contains('=')) {
        warn!("OTEL_RESOURCE_ATTRIBUTES: an entry is not NAME=VALUE: ignored");
    }
}

/// Warns if the connection is not encrypted.
fn warn_of_plaintext(endpoint: &Url) {
    if is_unencrypted_remote(endpoint) {
        let collector = endpoint.origin().ascii_serialization();
        warn!(
            collector,
            "OTEL_EXPORTER_OTLP_ENDPOINT: not encrypted, so that traces and headers can be read on the way; write https://"
        );
    }
    if endpoint.scheme() == "http" && otlp_variable("CERTIFICATE").is_some() {
        warn!("OTEL_EXPORTER_OTLP_CERTIFICATE has no effect: the endpoint begins with http://");
    }
}

/// The resource that the variables describe, with our defaults for what is missing.
fn resource(service: &str) -> Resource {
    let given = Resource::builder().build();
    let has = |name: &'static str| {
        given.get(&Key::from_static_str(name)).filter(|value| !value.as_str().starts_with("unknown_service"))
    };
    let ours = [
        ("service.name", service.to_owned()),
        ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("service.instance.id", Uuid::new_v4().to_string()),
    ];
    let missing: Vec<_> = ours.into_iter().filter(|(name, _)| has(name).is_none()).collect();
    Resource::builder().with_attributes(missing.into_iter().map(|(name, value)| KeyValue::new(name, value))).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_from_variables() {
        let read = |entry| header(entry).map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
        let of = |name: &str, value: &str| Some((name.to_owned(), value.to_owned()));
        assert_eq!(read(" Authorization = Basic%20abc== "), of("authorization", "Basic abc=="));
        assert_eq!(read("api-key=key"), of("api-key", "key"));
        for wrong in ["api-key", "=key", "api key=1", "a=%0A", "a=%2", "a=%zz", "a=%\u{e9}\u{e9}"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_value_of_a_header_is_never_shown() {
        let (_, value) = header("authorization=Bearer hush").unwrap();
        assert!(!format!("{value:?}").contains("hush"));
    }
}
