//! How spans are exported: what the `OTEL_*` variables say, as the OpenTelemetry specification has it, once per process.
//! Nothing is exported where `OTEL_EXPORTER_OTLP_ENDPOINT` is not set. Sending them is `collector`'s.
//!
//! An address that is none ends the process with exit 64; whatever else cannot be understood is told and ignored, as the
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
use genfleet_job::options::{ConfigError, is_readable_on_the_way, secret, written};

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
/// Of a request to the collector, where nothing else is said.
const TIMEOUT: Duration = Duration::from_secs(10);
/// What the SDK takes a number from, and is silent where it is none.
const NUMBERS: [&str; 7] = [
    "OTEL_BSP_SCHEDULE_DELAY",
    "OTEL_BSP_MAX_QUEUE_SIZE",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
    "OTEL_BSP_EXPORT_TIMEOUT",
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_SPAN_EVENT_COUNT_LIMIT",
    "OTEL_SPAN_LINK_COUNT_LIMIT",
];

/// Longer than anybody waits: [`stop`] has a time of its own, and says itself when it is over.
const NEVER: Duration = Duration::from_secs(3600);

/// Kept for [`stop`], and so that no span is ended after it is gone; cancelled when it is asked to stop.
static PROVIDER: OnceLock<(SdkTracerProvider, CancellationToken)> = OnceLock::new();

/// Spans are to be exported, and how.
#[derive(Debug)]
pub struct Export {
    /// Its sampler is what the variables say.
    provider: TracerProviderBuilder,
    resource: Resource,
    collector: Collector,
}

/// What the variables say; `None` where nothing is to be exported. `service` is what this process is called where they
/// do not say. Logs, and the one TLS provider, have to be set up.
pub fn from_environment(service: &str) -> Result<Option<Export>, ConfigError> {
    if is_off() {
        return Ok(None);
    }
    let Some(endpoint) = endpoint()? else { return Ok(None) };
    tell_misunderstood();
    tell_readable(&endpoint);
    let collector = Collector::new(endpoint, headers()?, timeout(), set_of("CERTIFICATE").as_deref())?;
    Ok(Some(Export { provider: SdkTracerProvider::builder(), resource: resource(service), collector }))
}

impl Export {
    /// From now on. Must be called inside the executor that also sends them; again, it does nothing.
    pub fn start(self) {
        info!(collector = self.collector.origin(), "traces are exported");
        let stopping = self.collector.stopping.clone();
        let processor = BatchSpanProcessor::builder(self.collector.on(Handle::current())).build();
        let provider = self.provider.with_span_processor(processor).with_resource(self.resource).build();
        let scope = InstrumentationScope::builder("genfleet").with_version(env!("CARGO_PKG_VERSION")).build();
        let _ = TRACER.set(provider.tracer_with_scope(scope));
        let _ = PROVIDER.set((provider, stopping));
    }
}

/// Sends what is left, once and for so long at most. Spans that end later are lost.
pub async fn stop(within: Duration) {
    let Some((provider, stopping)) = PROVIDER.get() else { return };
    stopping.cancel();
    let (tell, told) = oneshot::channel();
    // It blocks; and a blocking task of the executor would hold up a process that is told to end at once.
    thread::spawn(move || tell.send(provider.shutdown_with_timeout(NEVER)));
    if tokio::time::timeout(within, told).await.is_err() {
        warn!("the last spans are lost: the collector did not take them in {}", written(within));
    }
}

/// A variable that says something: an empty one counts as not set.
fn set(name: &str) -> Option<String> {
    env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

/// What `OTEL_EXPORTER_OTLP_TRACES_…` says, else `OTEL_EXPORTER_OTLP_…`.
fn set_of(name: &str) -> Option<String> {
    set(&format!("OTEL_EXPORTER_OTLP_TRACES_{name}")).or_else(|| set(&format!("OTEL_EXPORTER_OTLP_{name}")))
}

fn is_off() -> bool {
    let disabled = set("OTEL_SDK_DISABLED").map(|value| value.to_ascii_lowercase());
    if let Some(value) = disabled.as_deref().filter(|value| !["true", "false"].contains(value)) {
        warn!(value, "OTEL_SDK_DISABLED is neither true nor false: taken for false");
    }
    disabled.as_deref() == Some("true") || set("OTEL_TRACES_EXPORTER").as_deref() == Some("none")
}

/// Where spans go. The address for all signals is the one that `/v1/traces` is put to.
fn endpoint() -> Result<Option<Url>, ConfigError> {
    let (name, mut address) = match (set(TRACES_ENDPOINT), set(ENDPOINT)) {
        (Some(address), _) => (TRACES_ENDPOINT, address),
        (None, Some(address)) => (ENDPOINT, format!("{}/v1/traces", address.trim_end_matches('/'))),
        (None, None) => return Ok(None),
    };
    let url = Url::parse(&address).ok().filter(|url| ["http", "https"].contains(&url.scheme()) && url.has_host());
    // It may hold a password.
    address.clear();
    url.map(Some).ok_or_else(|| {
        ConfigError::new(format!("{name}: not the address of a collector; write http://HOST:4318 (OTLP over HTTP)"))
    })
}

fn timeout() -> Duration {
    let Some(value) = set_of("TIMEOUT") else { return TIMEOUT };
    let read = value.parse().ok().filter(|millis| *millis > 0).map(Duration::from_millis);
    read.unwrap_or_else(|| {
        warn!(value, "OTEL_EXPORTER_OTLP_TIMEOUT: not a number of milliseconds: ignored");
        TIMEOUT
    })
}

/// `name=value,…`, values percent-encoded; may be secrets, so they are never told.
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
            warn!(entry = number + 1, "{name}: an entry is no NAME=VALUE that fits in a header: ignored");
        }
    }
    Ok(headers)
}

fn header(entry: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = entry.split_once('=')?;
    let mut value = HeaderValue::from_bytes(&percent_decoded(value.trim())?).ok()?;
    value.set_sensitive(true);
    Some((HeaderName::from_bytes(name.trim().as_bytes()).ok()?, value))
}

fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (code, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(code, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    Some(bytes)
}

/// What the SDK would pass over in silence, and what it would take us for able to do.
fn tell_misunderstood() {
    for name in NUMBERS {
        if let Some(value) = set(name).filter(|value| value.parse::<u32>().is_err()) {
            warn!(value, "{name}: not a number: ignored");
        }
    }
    if let Some(value) = set_of("PROTOCOL").filter(|value| value != "http/protobuf") {
        warn!(value, "OTEL_EXPORTER_OTLP_PROTOCOL: only http/protobuf is spoken here (port 4318): ignored");
    }
    if let Some(value) = set_of("COMPRESSION").filter(|value| value != "none") {
        warn!(value, "OTEL_EXPORTER_OTLP_COMPRESSION: nothing is compressed here: ignored");
    }
    if let Some(value) = set("OTEL_TRACES_EXPORTER").filter(|value| value != "otlp") {
        warn!(value, "OTEL_TRACES_EXPORTER: there is only otlp: ignored");
    }
    let attributes = set("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    if attributes.split_terminator(',').any(|entry| !entry.contains('=')) {
        warn!("OTEL_RESOURCE_ATTRIBUTES: an entry is no NAME=VALUE: ignored");
    }
}

/// What goes to the collector can be read on the way, or nobody there is asked for a certificate.
fn tell_readable(endpoint: &Url) {
    if is_readable_on_the_way(endpoint) {
        let collector = endpoint.origin().ascii_serialization();
        warn!(
            collector,
            "OTEL_EXPORTER_OTLP_ENDPOINT: not encrypted, so that traces and headers can be read on the way; write https://"
        );
    }
    if endpoint.scheme() == "http" && set_of("CERTIFICATE").is_some() {
        warn!("OTEL_EXPORTER_OTLP_CERTIFICATE has no effect: the endpoint begins with http://");
    }
}

/// What this process is: what the variables say, else `service`.
fn resource(service: &str) -> Resource {
    let said = Resource::builder().build();
    let has = |name: &'static str| {
        said.get(&Key::from_static_str(name)).filter(|value| !value.as_str().starts_with("unknown_service"))
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
    fn headers_are_read_as_they_are_written_in_variables() {
        let read = |entry| header(entry).map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
        let of = |name: &str, value: &str| Some((name.to_owned(), value.to_owned()));
        assert_eq!(read(" Authorization = Basic%20abc== "), of("authorization", "Basic abc=="));
        assert_eq!(read("api-key=key"), of("api-key", "key"));
        for wrong in ["api-key", "=key", "api key=1", "a=%0A", "a=%2", "a=%zz", "a=%\u{e9}\u{e9}"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_a_header_says_is_never_shown() {
        let (_, value) = header("authorization=Bearer hush").unwrap();
        assert!(!format!("{value:?}").contains("hush"));
    }
}
