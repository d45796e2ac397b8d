//! What a request to Genesys Cloud tells in a trace, by the conventions for HTTP clients: each sending has a span of its
//! own, a child of its job's, and linked to all jobs it is shared by.

use reqwest::{Method, Url};

use super::{
    classify::LostAnswer,
    request::Caller,
    transport::{NoAnswer, Received},
};
use genfleet_telemetry::trace::{
    Span, SpanDetails, SpanKind,
    attribute::{
        HTTP_REQUEST_METHOD, HTTP_REQUEST_RESEND_COUNT, HTTP_RESPONSE_STATUS_CODE, SERVER_ADDRESS, SERVER_PORT,
        URL_FULL, URL_TEMPLATE,
    },
};

/// The attribute for the number of jobs that share a request.
const SHARED_BY: &str = "genfleet.request.jobs";

/// What is sent where.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'a> {
    pub(super) method: &'a Method,
    /// The path's template.
    pub(super) endpoint: &'a str,
    pub(super) url: &'a Url,
}

impl Request<'_> {
    /// The span of sending it for `caller`, after so many sendings of the same.
    pub(super) fn span(self, caller: &Caller<'_>, sent: u32) -> Span {
        Span::start(caller.traces, || {
            let shared_by = i64::try_from(caller.jobs.len()).ok().filter(|jobs| *jobs > 1);
            let details = self.details().with_some(HTTP_REQUEST_RESEND_COUNT, (sent > 0).then_some(i64::from(sent)));
            details.with_some(SHARED_BY, shared_by)
        })
    }

    /// The span of sending it for nobody in particular.
    pub(super) fn span_of_its_own(self) -> Span {
        Span::start(None, || self.details())
    }

    fn details(self) -> SpanDetails {
        let Self { method, endpoint, url } = self;
        SpanDetails::new(SpanKind::Client, format!("{method} {endpoint}"))
            .with(HTTP_REQUEST_METHOD, method.to_string())
            .with(URL_TEMPLATE, endpoint.to_owned())
            .with(URL_FULL, format!("{}{endpoint}", url.origin().ascii_serialization()))
            .with_some(SERVER_ADDRESS, url.host_str().map(str::to_owned))
            .with_some(SERVER_PORT, url.port_or_known_default().map(i64::from))
    }
}

/// What came of it.
pub(super) fn answered(span: &mut Span, exchange: &Result<Received, NoAnswer>) {
    match exchange {
        Ok(received) => {
            span.set(HTTP_RESPONSE_STATUS_CODE, i64::from(received.status));
            if received.status >= 400 {
                span.fail(received.status.to_string());
            }
        }
        Err(no_answer) => span.fail(match no_answer.why {
            LostAnswer::NeverSent => "not_connected",
            LostAnswer::TimedOut => "timeout",
            LostAnswer::Broken => "broken",
            LostAnswer::TooLong => "too_long",
        }),
    }
}
