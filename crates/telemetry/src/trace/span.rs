//! Spans, and the trace context that is passed on from them. Without an exporter a span costs a look at a flag and
//! passes on its parent's context.

use std::{borrow::Cow, fmt, sync::OnceLock};

use opentelemetry::{
    Context, KeyValue, SpanId, TraceFlags, TraceId, Value,
    trace::{Link, Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt, TraceState, Tracer},
};
use opentelemetry_sdk::trace::SdkTracer;
use opentelemetry_semantic_conventions::attribute;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use genfleet_job::trace_context::TraceContext;

/// The tracer, once spans are exported.
pub(super) static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// The details of a span; computed only if spans are exported.
#[derive(Debug)]
pub struct SpanDetails {
    kind: SpanKind,
    name: Cow<'static, str>,
    attributes: Vec<KeyValue>,
}

impl SpanDetails {
    /// A span of this kind and name; names are from a bounded set.
    pub fn new(kind: SpanKind, name: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, name: name.into(), attributes: Vec::new() }
    }

    /// Adds an attribute.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.attributes.push(KeyValue::new(name, value));
        self
    }

    /// Adds an attribute if there is a value.
    #[must_use]
    pub fn with_some(self, name: &'static str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }
}

/// A running span; it ends when it is dropped.
#[derive(Default)]
pub struct Span {
    /// Boxed: it is large, mostly absent, and moved with its delivery.
    recorded: Option<Box<opentelemetry_sdk::trace::Span>>,
    context: Option<TraceContext>,
}

impl Span {
    /// Starts a span. The first of `parents` is its parent, the others are linked; without any it starts a trace.
    pub fn start<'a>(
        parents: impl IntoIterator<Item = &'a TraceContext>,
        details: impl FnOnce() -> SpanDetails,
    ) -> Self {
        let mut parents = parents.into_iter();
        match TRACER.get() {
            Some(tracer) => Self::start_with(tracer, parents, details()),
            None => Self { recorded: None, context: parents.next().cloned() },
        }
    }

    fn start_with<'a>(
        tracer: &SdkTracer,
        mut parents: impl Iterator<Item = &'a TraceContext>,
        details: SpanDetails,
    ) -> Self {
        let parent = parents
            .next()
            .map_or_else(Context::new, |parent| Context::new().with_remote_span_context(to_span_context(parent)));
        let builder = SpanBuilder::from_name(details.name)
            .with_kind(details.kind)
            .with_attributes(details.attributes)
            .with_links(parents.map(|linked| Link::with_context(to_span_context(linked))).collect());
        let recorded = tracer.build_with_context(builder, &parent);
        let context = to_trace_context(recorded.span_context());
        Self { recorded: Some(Box::new(recorded)), context }
    }

    /// The context that is passed on to whatever is done within the span.
    pub fn context(&self) -> Option<&TraceContext> {
        self.context.as_ref()
    }

    /// Returns true if the span is exported; if not, its attributes need not be computed.
    pub fn is_recorded(&self) -> bool {
        self.recorded.is_some()
    }

    /// Adds the headers that pass on the context.
    pub fn inject(&self, headers: &mut HeaderMap) {
        for (name, value) in self.context.iter().flat_map(TraceContext::pairs) {
            // Both hold nothing but printable ASCII.
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
    }

    /// Links the span to others.
    pub fn link<'a>(&mut self, to: impl IntoIterator<Item = &'a TraceContext>) {
        if let Some(recorded) = &mut self.recorded {
            to.into_iter().for_each(|linked| recorded.add_link(to_span_context(linked), Vec::new()));
        }
    }

    /// Sets an attribute.
    pub fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        if let Some(recorded) = &mut self.recorded {
            recorded.set_attribute(KeyValue::new(name, value));
        }
    }

    /// Marks the span as failed; `error` is from a bounded set.
    pub fn fail(&mut self, error: impl Into<Cow<'static, str>>) {
        if let Some(recorded) = &mut self.recorded {
            recorded.set_attribute(KeyValue::new(attribute::ERROR_TYPE, error.into()));
            recorded.set_status(Status::error(""));
        }
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Span").field(&self.context).finish()
    }
}

/// Converts to the SDK's type, as a span of another process. A tracestate that the SDK cannot read is dropped (W3C).
fn to_span_context(context: &TraceContext) -> SpanContext {
    let trace = TraceId::from_hex(context.trace_id()).unwrap_or(TraceId::INVALID);
    let span = SpanId::from_hex(context.span_id()).unwrap_or(SpanId::INVALID);
    let flags = if context.is_sampled() { TraceFlags::SAMPLED } else { TraceFlags::NOT_SAMPLED };
    let members =
        context.tracestate().unwrap_or_default().split(',').map(str::trim).filter(|member| !member.is_empty());
    let state = members.collect::<Vec<_>>().join(",").parse().unwrap_or(TraceState::NONE);
    SpanContext::new(trace, span, flags, true, state)
}

/// Converts from the SDK's type.
fn to_trace_context(span: &SpanContext) -> Option<TraceContext> {
    let parent = format!("00-{}-{}-{:02x}", span.trace_id(), span.span_id(), span.trace_flags().to_u8());
    TraceContext::parse(&parent, Some(&span.trace_state().header()))
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TracerProvider;
    use opentelemetry_sdk::trace::SdkTracerProvider;

    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn context(state: Option<&str>) -> TraceContext {
        TraceContext::parse(PARENT, state).unwrap()
    }

    #[test]
    fn without_an_exporter_the_context_is_passed_on_unchanged_and_none_is_made_up() {
        let details = || -> SpanDetails { panic!("nothing is recorded") };
        let received = context(Some("a = b"));
        assert_eq!(Span::start([&received], details).context(), Some(&received));
        assert_eq!(Span::start(None, details).context(), None);
    }

    #[test]
    fn with_an_exporter_the_context_is_our_own_span_with_the_same_trace_and_state() {
        let provider = SdkTracerProvider::builder().build();
        let start = |parents: &[TraceContext]| {
            let details = SpanDetails::new(SpanKind::Client, "GET");
            Span::start_with(&provider.tracer("test"), parents.iter(), details).context().cloned().unwrap()
        };
        let ours = start(&[context(Some("a=b, c=d"))]);
        assert_eq!(ours.trace_id(), context(None).trace_id());
        assert_ne!(ours.span_id(), context(None).span_id());
        assert_eq!(ours.tracestate(), Some("a=b,c=d"));
        assert_eq!(start(&[context(Some("no state at all"))]).tracestate(), None);
        assert_ne!(start(&[]).trace_id(), ours.trace_id());
    }

    #[test]
    fn a_trace_that_the_producer_does_not_sample_is_not_sampled_here() {
        let provider = SdkTracerProvider::builder().build();
        let unsampled = TraceContext::parse(&PARENT.replace("-01", "-00"), None).unwrap();
        let span = Span::start_with(
            &provider.tracer("test"),
            [&unsampled].into_iter(),
            SpanDetails::new(SpanKind::Client, "GET"),
        );
        assert!(!span.context().unwrap().is_sampled());
        assert_eq!(span.context().unwrap().trace_id(), "0af7651916cd43dd8448eb211c80319c");
    }
}
