//! A trace collector that a test controls: it decodes the spans that a process exports over OTLP.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value},
    trace::v1::{self as otlp, span::SpanKind},
};
use prost::Message;

use crate::{Delivery, Launch, Receiver, eventually};

/// A trace collector.
pub struct Collector {
    /// The HTTP receiver below it, which can refuse, hang and be unavailable.
    pub receiver: Receiver,
}

/// An exported span.
#[derive(Clone, Debug)]
pub struct Span {
    /// The name.
    pub name: String,
    /// The kind: client, server, producer, consumer or internal.
    pub kind: SpanKind,
    /// The trace, in hex.
    pub trace: String,
    /// The span's id, in hex.
    pub id: String,
    /// The parent's id, in hex; empty if there is none.
    pub parent: String,
    /// Trace and id of each linked span.
    pub links: Vec<(String, String)>,
    /// The attributes as text.
    pub attributes: BTreeMap<String, String>,
    /// True if its status is an error.
    pub failed: bool,
    /// The attributes of the process.
    pub resource: BTreeMap<String, String>,
}

impl Collector {
    /// Starts on a free port and accepts everything.
    pub async fn start() -> Self {
        Self { receiver: Receiver::start().await }
    }

    /// The address for all signals.
    pub fn endpoint(&self) -> String {
        self.receiver.url().trim_end_matches("/hook").to_owned()
    }

    /// Configures a process to export all its spans here at once.
    #[must_use]
    pub fn collect_from(&self, launch: Launch) -> Launch {
        launch.env("OTEL_EXPORTER_OTLP_ENDPOINT", &self.endpoint()).env("OTEL_BSP_SCHEDULE_DELAY", "50")
    }

    /// Returns all received spans, each once.
    pub fn spans(&self) -> Vec<Span> {
        let mut seen = HashSet::new();
        let spans = self.receiver.deliveries().iter().flat_map(spans_of).collect::<Vec<_>>();
        spans.into_iter().filter(|span| seen.insert(span.id.clone())).collect()
    }

    /// Waits for `count` spans with this name, and returns all with this name.
    pub async fn named(&self, name: &str, count: usize) -> Vec<Span> {
        eventually(Duration::from_secs(30), format!("{count} spans {name:?}"), async || {
            let spans = self.spans();
            let named: Vec<_> = spans.iter().filter(|span| span.name == name).cloned().collect();
            if named.len() >= count { Ok(named) } else { Err(format!("of {spans:#?}")) }
        })
        .await
    }
}

impl Span {
    /// Returns an attribute; empty if it is missing.
    pub fn says(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }

    /// Returns the `traceparent` for its children.
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-01", self.trace, self.id)
    }

    /// Returns true if it is a child of the span, or linked to it.
    pub fn belongs_to(&self, other: &Self) -> bool {
        let (trace, id) = (other.trace.clone(), other.id.clone());
        (self.trace == trace && self.parent == id) || self.links.contains(&(trace, id))
    }
}

fn spans_of(request: &Delivery) -> Vec<Span> {
    assert_eq!((request.target.as_str(), request.header("content-type")), ("/v1/traces", "application/x-protobuf"));
    let export = ExportTraceServiceRequest::decode(request.body.as_slice()).expect("an export request");
    let mut spans = Vec::new();
    for of_resource in export.resource_spans {
        let resource = plain(&of_resource.resource.unwrap_or_default().attributes);
        let all = of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
        spans.extend(all.map(|span| read(&span, &resource)));
    }
    spans
}

fn read(span: &otlp::Span, resource: &BTreeMap<String, String>) -> Span {
    Span {
        name: span.name.clone(),
        kind: span.kind(),
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        links: span.links.iter().map(|link| (hex(&link.trace_id), hex(&link.span_id))).collect(),
        attributes: plain(&span.attributes),
        failed: span.status.as_ref().is_some_and(|status| status.code() == otlp::status::StatusCode::Error),
        resource: resource.clone(),
    }
}

fn plain(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    attributes.iter().map(|each| (each.key.clone(), text(each.value.as_ref()))).collect()
}

fn text(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
