//! A span of ours, and what is passed on from it. Where spans are not exported it costs a look at a flag, and passes on
//! its parent's place. Where it is told: [`super::export`].

use std::{borrow::Cow, fmt, sync::OnceLock};

use opentelemetry::{
    Context, KeyValue, SpanId, TraceFlags, TraceId, Value,
    trace::{Link, Span as _, SpanBuilder, SpanContext, Status, TraceContextExt, TraceState, Tracer},
};
use opentelemetry_sdk::trace::SdkTracer;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

pub use opentelemetry::trace::SpanKind;

use super::attribute;
use genfleet_job::trace_context::TraceContext;

/// Where spans are begun, once they are exported.
pub(super) static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// What a span is about; made only where spans are exported.
#[derive(Debug)]
pub struct About {
    /// The side of the exchange we are.
    pub kind: SpanKind,
    /// Of a bounded set of names.
    pub name: Cow<'static, str>,
    /// See [`attribute`].
    pub attributes: Vec<KeyValue>,
}

impl About {
    /// A span of this kind and name.
    pub fn new(kind: SpanKind, name: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, name: name.into(), attributes: Vec::new() }
    }

    /// With an attribute.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.attributes.push(KeyValue::new(name, value));
        self
    }

    /// With an attribute, where there is something to say.
    #[must_use]
    pub fn with_some(self, name: &'static str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }
}

/// Something that takes its time, until it is dropped.
#[derive(Default)]
pub struct Span {
    told: Option<opentelemetry_sdk::trace::Span>,
    place: Option<TraceContext>,
}

impl Span {
    /// Begins one. The first of `places` is its parent, the others are linked; without any it begins a trace.
    pub fn begin(places: &[TraceContext], about: impl FnOnce() -> About) -> Self {
        let Some(tracer) = TRACER.get() else { return Self { told: None, place: places.first().cloned() } };
        Self::begin_with(tracer, places, about())
    }

    fn begin_with(tracer: &SdkTracer, places: &[TraceContext], about: About) -> Self {
        let links: Vec<Link> = places.iter().skip(1).map(|place| Link::with_context(remote(place))).collect();
        let builder = SpanBuilder::from_name(about.name)
            .with_kind(about.kind)
            .with_attributes(about.attributes)
            .with_links(links);
        let parent =
            places.first().map_or_else(Context::new, |place| Context::new().with_remote_span_context(remote(place)));
        let told = tracer.build_with_context(builder, &parent);
        let place = local(told.span_context());
        Self { told: Some(told), place }
    }

    /// What is carried on to whatever is done within it.
    pub fn place(&self) -> Option<&TraceContext> {
        self.place.as_ref()
    }

    /// The same, as a list of at most one.
    pub fn places(&self) -> &[TraceContext] {
        self.place.as_slice()
    }

    /// Whether somebody is told of it: what it says need not be made where nobody is.
    pub fn is_told(&self) -> bool {
        self.told.is_some()
    }

    /// Puts the headers that carry it on.
    pub fn inject(&self, headers: &mut HeaderMap) {
        for (name, value) in self.place.iter().flat_map(TraceContext::pairs) {
            // Both hold nothing but printable ASCII.
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
    }

    /// It has to do with what happens there.
    pub fn link<'a>(&mut self, to: impl IntoIterator<Item = &'a TraceContext>) {
        if let Some(told) = &mut self.told {
            to.into_iter().for_each(|place| told.add_link(remote(place), Vec::new()));
        }
    }

    /// Says something more.
    pub fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        if let Some(told) = &mut self.told {
            told.set_attribute(KeyValue::new(name, value));
        }
    }

    /// It failed: `error` is of a bounded set of words.
    pub fn fail(&mut self, error: impl Into<Cow<'static, str>>) {
        if let Some(told) = &mut self.told {
            told.set_attribute(KeyValue::new(attribute::ERROR_TYPE, error.into()));
            told.set_status(Status::error(""));
        }
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Span").field(&self.place).finish()
    }
}

/// The place for the SDK, as one in another process. A state that it cannot read is left behind (W3C).
fn remote(place: &TraceContext) -> SpanContext {
    let trace = TraceId::from_hex(place.trace_id()).unwrap_or(TraceId::INVALID);
    let span = SpanId::from_hex(place.span_id()).unwrap_or(SpanId::INVALID);
    let flags = if place.is_sampled() { TraceFlags::SAMPLED } else { TraceFlags::NOT_SAMPLED };
    let members = place.tracestate().unwrap_or_default().split(',').map(str::trim).filter(|member| !member.is_empty());
    let state = members.collect::<Vec<_>>().join(",").parse().unwrap_or(TraceState::NONE);
    SpanContext::new(trace, span, flags, true, state)
}

/// The SDK's place for headers.
fn local(span: &SpanContext) -> Option<TraceContext> {
    let parent = format!("00-{}-{}-{:02x}", span.trace_id(), span.span_id(), span.trace_flags().to_u8());
    TraceContext::parse(&parent, Some(&span.trace_state().header()))
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TracerProvider;
    use opentelemetry_sdk::trace::SdkTracerProvider;

    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn place(state: Option<&str>) -> TraceContext {
        TraceContext::parse(PARENT, state).unwrap()
    }

    #[test]
    fn without_an_exporter_the_place_is_passed_on_as_it_came_and_none_is_made_up() {
        let about = || -> About { panic!("nobody is told") };
        let came = place(Some("a = b"));
        assert_eq!(Span::begin(std::slice::from_ref(&came), about).place(), Some(&came));
        assert_eq!(Span::begin(&[], about).place(), None);
    }

    #[test]
    fn with_one_the_place_is_our_own_in_the_same_trace_with_the_state_carried_on() {
        let provider = SdkTracerProvider::builder().build();
        let begin = |places: &[TraceContext]| {
            let about = About::new(SpanKind::Client, "GET");
            Span::begin_with(&provider.tracer("test"), places, about).place().cloned().unwrap()
        };
        let ours = begin(&[place(Some("a=b, c=d"))]);
        assert_eq!(ours.trace_id(), place(None).trace_id());
        assert_ne!(ours.span_id(), place(None).span_id());
        assert_eq!(ours.tracestate(), Some("a=b,c=d"));
        assert_eq!(begin(&[place(Some("no state at all"))]).tracestate(), None);
        assert_ne!(begin(&[]).trace_id(), ours.trace_id());
    }

    #[test]
    fn what_the_producer_does_not_keep_is_not_kept_here() {
        let provider = SdkTracerProvider::builder().build();
        let unsampled = TraceContext::parse(&PARENT.replace("-01", "-00"), None).unwrap();
        let span = Span::begin_with(&provider.tracer("test"), &[unsampled], About::new(SpanKind::Client, "GET"));
        assert!(!span.place().unwrap().is_sampled());
        assert_eq!(span.place().unwrap().trace_id(), "0af7651916cd43dd8448eb211c80319c");
    }
}
