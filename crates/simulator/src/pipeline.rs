//! The processing of all requests except those to the control routes: they are admitted or refused, get their fault,
//! are answered with the platform's headers, and recorded.
//!
//! The effect happens before any wait, so that it also happens if the client times out.

use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use uuid::Uuid;

use crate::connection::Severer;
use crate::errors::{ApiError, OAuthError, render};
use crate::faults::{FaultRule, RetryAfter};
use crate::limits::{Limits, RateLimitStatus};
use crate::record::now_micros;
use crate::routes::web_deployments::EDGE;
use crate::world::{Arrival, HttpHost, MOST_BODY_BYTES, Shared};

pub(crate) const TOKEN_PATH: &str = "/oauth/token";
/// Number of bytes that are read of a body that is too long. They are read so that the client receives the answer.
const READ_AT_MOST: usize = 16 * 1024 * 1024;
const LONGEST_HANG: Duration = Duration::from_secs(600);

const CORRELATION_ID: HeaderName = HeaderName::from_static("inin-correlation-id");
const LIMIT_ALLOWED: HeaderName = HeaderName::from_static("inin-ratelimit-allowed");
const LIMIT_COUNT: HeaderName = HeaderName::from_static("inin-ratelimit-count");
const LIMIT_RESET: HeaderName = HeaderName::from_static("inin-ratelimit-reset");

/// A request that was admitted or refused.
struct Visit {
    shared: Shared,
    host: HttpHost,
    number: u64,
    rate_limit: RateLimitStatus,
    correlation_id: String,
}

/// Processes a request.
pub(crate) async fn pass(
    State(shared): State<Shared>,
    ConnectInfo(severer): ConnectInfo<Severer>,
    request: Request,
    next: Next,
) -> Response {
    let at_us = now_micros();
    let (parts, body) = request.into_parts();
    // If the body is longer than what is read, the exact length does not matter.
    let body = to_bytes(body, READ_AT_MOST).await.unwrap_or_else(|_| Bytes::from(vec![b' '; MOST_BODY_BYTES + 1]));
    let host = match parts.uri.path() {
        TOKEN_PATH => HttpHost::Token,
        path if path.starts_with(EDGE) => HttpHost::Edge,
        _ => HttpHost::Api,
    };
    let arrival = Arrival { at_us, host, parts: &parts, body: &body };
    let admission = shared.lock().admit(arrival, Instant::now());
    let visit = Visit {
        shared,
        host,
        number: admission.number,
        rate_limit: admission.rate_limit,
        correlation_id: Uuid::new_v4().to_string(),
    };
    let answer = match admission.verdict {
        Err(error) => Some(render(error.into_response(), &visit.correlation_id)),
        Ok(fault) => visit.apply_fault(fault.as_ref(), Request::from_parts(parts, Body::from(body)), next).await,
    };
    visit.pause(admission.latency).await;
    visit.finish(answer, &severer)
}

impl Visit {
    /// Calls the route and applies the fault. `None` means that no answer is sent.
    async fn apply_fault(&self, fault: Option<&FaultRule>, request: Request, next: Next) -> Option<Response> {
        let Some(rule) = fault else {
            return Some(self.ask_route(request, next).await);
        };
        let routed = if rule.has_effect() { Some(self.ask_route(request, next).await) } else { None };
        self.pause(Duration::from_millis(rule.latency.unwrap_or(0))).await;
        if rule.hang {
            self.pause(LONGEST_HANG).await;
        }
        if rule.lost || rule.hang {
            return None;
        }
        Some(self.replace(rule, routed))
    }

    async fn ask_route(&self, request: Request, next: Next) -> Response {
        let response = render(next.run(request).await, &self.correlation_id);
        if response.status().is_success() {
            self.shared.lock().record.record_effect(self.number);
        }
        response
    }

    /// Returns the answer of a fault rule, which replaces the route's.
    fn replace(&self, rule: &FaultRule, routed: Option<Response>) -> Response {
        let status = rule.status.and_then(|status| StatusCode::from_u16(status).ok());
        let mut response = match (status, routed) {
            (None, Some(routed)) => routed,
            (status, _) => self.error_response(status.unwrap_or_default(), rule),
        };
        if let Some(body) = &rule.body {
            let content_type = rule.content_type.as_deref().unwrap_or("application/json");
            response = (response.status(), [(CONTENT_TYPE, content_type)], body.clone()).into_response();
        }
        if let Some(Ok(value)) = rule.retry_after.as_ref().map(|value| HeaderValue::from_str(&value.to_string())) {
            response.headers_mut().insert(RETRY_AFTER, value);
        }
        response
    }

    /// Returns the platform's answer with this status.
    fn error_response(&self, status: StatusCode, rule: &FaultRule) -> Response {
        let is_error = status.is_client_error() || status.is_server_error();
        if !is_error {
            return status.into_response();
        }
        if self.host == HttpHost::Token {
            return OAuthError::of_status(status).into_response();
        }
        let error = if status == StatusCode::TOO_MANY_REQUESTS {
            let limit = Limits::limit_hit(rule.limit, &self.shared.lock().options);
            ApiError::too_many_requests(self.retry_after_seconds(rule), limit)
        } else {
            ApiError::of_status(status)
        };
        render(error.into_response(), &self.correlation_id)
    }

    fn retry_after_seconds(&self, rule: &FaultRule) -> u64 {
        match rule.retry_after {
            Some(RetryAfter::Seconds(seconds)) => seconds,
            _ => self.rate_limit.seconds_to_wait(Instant::now()),
        }
    }

    /// Waits until the time is over or the simulator stops.
    async fn pause(&self, duration: Duration) {
        if duration.is_zero() {
            return;
        }
        // Both results end the wait.
        let _ = tokio::time::timeout(duration, self.shared.stopping.cancelled()).await;
    }

    fn finish(&self, answer: Option<Response>, severer: &Severer) -> Response {
        let Some(mut response) = answer else {
            severer.sever();
            return StatusCode::NO_CONTENT.into_response();
        };
        self.add_headers(response.headers_mut());
        self.shared.lock().record.record_answer(self.number, response.status().as_u16());
        response
    }

    fn add_headers(&self, headers: &mut HeaderMap) {
        if let Ok(value) = HeaderValue::from_str(&self.correlation_id) {
            headers.insert(CORRELATION_ID, value);
        }
        if self.host != HttpHost::Api {
            return;
        }
        headers.insert(LIMIT_ALLOWED, HeaderValue::from(self.rate_limit.allowed));
        headers.insert(LIMIT_COUNT, HeaderValue::from(self.rate_limit.count));
        headers.insert(LIMIT_RESET, HeaderValue::from(self.rate_limit.seconds_left(Instant::now())));
    }
}
