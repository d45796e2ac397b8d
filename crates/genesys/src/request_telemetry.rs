//! The telemetry of requests to Genesys Cloud: each has a span of its own by the conventions for HTTP clients, a child of
//! its job's and linked to all jobs that share it, and counts in the metrics.

use std::time::Duration;

use metrics::{counter, histogram};
use reqwest::{Method, Url};
use tracing::debug;

use crate::{
    answer_body::request_id,
    http_transport::{HttpResponse, TransportError, TransportFailure},
    request::{ApiRequest, Caller},
};
use genfleet_job::{metric, trace_context::TraceContext};
use genfleet_telemetry::trace::{
    attribute::{
        HTTP_METHOD, HTTP_RESEND_COUNT, HTTP_STATUS, SERVER_ADDRESS, SERVER_PORT, SHARED_BY, URL_FULL, URL_TEMPLATE,
    },
    span::{About, Span, SpanKind},
};

/// A request as its span shows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestSpan<'a> {
    pub(crate) method: &'a Method,
    /// The path's template.
    pub(crate) endpoint: &'a str,
    pub(crate) url: &'a Url,
}

impl RequestSpan<'_> {
    /// Begins the span of a request for `caller`, which was sent `resends` times before.
    pub(crate) fn begin(self, caller: &Caller<'_>, resends: u32) -> Span {
        Span::begin(caller.traces, || {
            let shared_by = i64::try_from(caller.jobs.len()).ok().filter(|jobs| *jobs > 1);
            let about = self.about().with_some(HTTP_RESEND_COUNT, (resends > 0).then_some(i64::from(resends)));
            about.with_some(SHARED_BY, shared_by)
        })
    }

    /// Begins the span of a request that is no job's.
    pub(crate) fn begin_unattended(self) -> Span {
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

/// Notes in `span` what the exchange came to.
pub(crate) fn end_span(span: &mut Span, exchange: &Result<HttpResponse, TransportError>) {
    match exchange {
        Ok(response) => {
            span.set(HTTP_STATUS, i64::from(response.status));
            if response.status >= 400 {
                span.fail(response.status.to_string());
            }
        }
        Err(error) => span.fail(match error.failure {
            TransportFailure::NeverSent => "not_connected",
            TransportFailure::TimedOut => "timeout",
            TransportFailure::Broken => "broken",
            TransportFailure::TooLong => "too_long",
        }),
    }
}

/// Counts and logs an exchange.
pub(crate) fn record_exchange(request: &ApiRequest, exchange: &Result<HttpResponse, TransportError>, took: Duration) {
    let (endpoint, method) = (request.endpoint, request.method.to_string());
    let status = exchange.as_ref().map_or_else(|_| "error".to_owned(), |response| response.status.to_string());
    let request_id = exchange.as_ref().ok().and_then(|response| request_id(&response.headers));
    debug!(method, endpoint, status, ms = took.as_millis(), request_id, "asked Genesys Cloud");
    counter!(metric::API_REQUESTS, "endpoint" => endpoint, "method" => method.clone(), "status" => status).increment(1);
    histogram!(metric::API_REQUEST_DURATION, "endpoint" => endpoint, "method" => method).record(took);
}
