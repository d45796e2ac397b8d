//! The telemetry of requests to Genesys Cloud: each has a span of its own by the conventions for HTTP clients, a child
//! of its job's and linked to all jobs that share it, and counts in the metrics.

use std::time::Duration;

use metrics::{counter, histogram};
use reqwest::{Method, Url};
use tracing::debug;

use crate::{
    answer_body::request_id,
    http_transport::{HttpResponse, TransportError, TransportFailure},
    request::{ApiRequest, Caller},
};
use genfleet_job::metric;
use genfleet_telemetry::trace::{
    Span, SpanDetails, SpanKind,
    attribute::{
        HTTP_REQUEST_METHOD, HTTP_REQUEST_RESEND_COUNT, HTTP_RESPONSE_STATUS_CODE, SERVER_ADDRESS, SERVER_PORT,
        URL_FULL, URL_TEMPLATE,
    },
};

/// The attribute for the number of jobs that share a request.
const SHARED_BY: &str = "genfleet.request.jobs";

/// The data of a request for its span.
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
        Span::start(caller.traces, || {
            let shared_by = i64::try_from(caller.jobs.len()).ok().filter(|jobs| *jobs > 1);
            let resends = (resends > 0).then_some(i64::from(resends));
            self.details().with_some(HTTP_REQUEST_RESEND_COUNT, resends).with_some(SHARED_BY, shared_by)
        })
    }

    /// Begins the span of a request that belongs to no job.
    pub(crate) fn begin_unattended(self) -> Span {
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

/// Records the result of the exchange in `span`.
pub(crate) fn end_span(span: &mut Span, exchange: &Result<HttpResponse, TransportError>) {
    match exchange {
        Ok(response) => {
            span.set(HTTP_RESPONSE_STATUS_CODE, i64::from(response.status));
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

pub(crate) fn record_exchange(request: &ApiRequest, exchange: &Result<HttpResponse, TransportError>, took: Duration) {
    let (endpoint, method) = (request.endpoint, request.method.to_string());
    let status = exchange.as_ref().map_or_else(|_| "error".to_owned(), |response| response.status.to_string());
    let request_id = exchange.as_ref().ok().and_then(|response| request_id(&response.headers));
    debug!(method, endpoint, status, ms = took.as_millis(), request_id, "asked Genesys Cloud");
    counter!(metric::API_REQUESTS, "endpoint" => endpoint, "method" => method.clone(), "status" => status).increment(1);
    histogram!(metric::API_REQUEST_DURATION, "endpoint" => endpoint, "method" => method).record(took);
}
