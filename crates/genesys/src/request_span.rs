//! What a request to Genesys Cloud tells in a trace, by the conventions for HTTP clients: each sending has a span of its
//! own, a child of its job's, and linked to all jobs it is shared by.

use reqwest::{Method, Url};

use super::{
    classify::TransportFailure,
    request::Caller,
    http_transport::{TransportError, HttpResponse},
};
use genfleet_job::trace_context::TraceContext;
use genfleet_telemetry::trace::{
    attribute::{
        HTTP_METHOD, HTTP_RESEND_COUNT, HTTP_STATUS, SERVER_ADDRESS, SERVER_PORT, SHARED_BY, URL_FULL, URL_TEMPLATE,
    },
    span::{About, Span, SpanKind},
};

/// What is sent where.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestSpan<'a> {
    pub(super) method: &'a Method,
    /// The path's template.
    pub(super) endpoint: &'a str,
    pub(super) url: &'a Url,
}

impl RequestSpan<'_> {
    /// The span of sending it for `caller`, after so many sendings of the same.
    pub(super) fn span(self, caller: &Caller<'_>, sent: u32) -> Span {
        Span::begin(caller.traces, || {
            let shared_by = i64::try_from(caller.jobs.len()).ok().filter(|jobs| *jobs > 1);
            let about = self.about().with_some(HTTP_RESEND_COUNT, (sent > 0).then_some(i64::from(sent)));
            about.with_some(SHARED_BY, shared_by)
        })
    }

    /// The span of sending it for nobody in particular.
    pub(super) fn span_of_its_own(self) -> Span {
        Span::begin(&[] as &[TraceContext], || self.about())
    }

    fn about(self) -> About {
        let Self { method, endpoint, url } = self;
        About::new(SpanKind::Client, format!("{method} {endpoint}"))
            .with(HTTP_METHOD, method.to_string())
            .with(URL_TEMPLATE, endpoint.to_owned())
            .with(URL_FULL, format!("{}{endpoint}", url.origin().ascii_serialization()))
            .with_some(SERVER_ADDRESS, url.host_str().map(str::to_owned))
            .with_some(SERVER_PORT, url.port_or_known_default().map(i64::from))
    }
}

/// What came of it.
pub(super) fn answered(span: &mut Span, exchange: &Result<HttpResponse, TransportError>) {
    match exchange {
        Ok(received) => {
            span.set(HTTP_STATUS, i64::from(received.status));
            if received.status >= 400 {
                span.fail(received.status.to_string());
            }
        }
        Err(no_answer) => span.fail(match no_answer.why {
            TransportFailure::NeverSent => "not_connected",
            TransportFailure::TimedOut => "timeout",
            TransportFailure::Broken => "broken",
            TransportFailure::TooLong => "too_long",
        }),
    }
}
