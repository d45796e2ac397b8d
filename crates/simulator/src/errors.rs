//! Error bodies of the platform: one form for the API, another for the token endpoint.
//!
//! The rules decide which error is returned; this module only formats it.

use axum::Json;
use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// An error of the API. Its body is written by [`render`], if the correlation id is known.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) limit: Option<LimitHit>,
    pub(crate) retry_after: Option<u64>,
}

/// The limit that a 429 names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LimitHit {
    pub(crate) key: &'static str,
    pub(crate) value: u32,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), limit: None, retry_after: None }
    }

    /// 400: an invalid value.
    pub(crate) fn invalid_value(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid.value", message)
    }

    /// 400: a request that cannot be processed.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad.request", message)
    }

    /// 404: there is no such object.
    pub(crate) fn not_found() -> Self {
        Self::of_status(StatusCode::NOT_FOUND)
    }

    /// 429 without `Retry-After`; the message names `seconds`.
    pub(crate) fn too_many_requests(seconds: u64, limit: LimitHit) -> Self {
        let message = format!("Rate limit exceeded the maximum. Retry the request in [{seconds}] seconds");
        Self { limit: Some(limit), ..Self::new(StatusCode::TOO_MANY_REQUESTS, "too.many.requests", message) }
    }

    /// An error about which the platform says only the status.
    pub(crate) fn of_status(status: StatusCode) -> Self {
        let message = format!("The requested operation failed with status {}", status.as_u16());
        Self::new(status, code_of(status), message)
    }

    fn body(&self, correlation_id: &str) -> String {
        let mut body = json!({
            "message": self.message,
            "code": self.code,
            "status": self.status.as_u16(),
            "contextId": correlation_id,
            "details": [],
            "errors": [],
        });
        if let Some(LimitHit { key, value }) = self.limit {
            body["limit"] = json!({"key": key, "namespace": "platform.api", "value": value.to_string()});
        }
        body.to_string()
    }
}

fn code_of(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "bad.credentials",
        403 => "missing.permissions",
        404 => "not.found",
        405 => "method.not.allowed",
        408 | 504 => "request.timeout",
        409 => "conflict",
        412 => "precondition.failed",
        413 => "request.entity.too.large",
        415 => "unsupported.media.type",
        429 => "too.many.requests",
        501 => "not.implemented",
        502 => "bad.gateway",
        503 => "service.unavailable",
        500..=599 => "internal.server.error",
        _ => "bad.request",
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Writes the body of an [`ApiError`] that a route has returned; other answers are unchanged.
pub(crate) fn render(mut response: Response, correlation_id: &str) -> Response {
    let Some(error) = response.extensions_mut().remove::<ApiError>() else {
        return response;
    };
    *response.body_mut() = Body::from(error.body(correlation_id));
    // axum has already set the length of the empty body.
    response.headers_mut().remove(CONTENT_LENGTH);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(seconds) = error.retry_after {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// An error of the token endpoint. As on the platform, its text is in two fields.
#[derive(Debug)]
pub(crate) struct OAuthError {
    pub(crate) status: StatusCode,
    pub(crate) error: &'static str,
    pub(crate) description: &'static str,
}

impl OAuthError {
    pub(crate) const INVALID_CLIENT: Self =
        Self { status: StatusCode::UNAUTHORIZED, error: "invalid_client", description: "authentication failed" };
    pub(crate) const UNSUPPORTED_GRANT: Self = Self {
        status: StatusCode::BAD_REQUEST,
        error: "unsupported_grant_type",
        description: "only client_credentials is served",
    };
    pub(crate) const INVALID_SCOPE: Self =
        Self { status: StatusCode::BAD_REQUEST, error: "invalid_scope", description: "the scope is not known" };

    /// The error for a fault with this status. The platform throttles its token endpoint with a 400.
    pub(crate) fn of_status(status: StatusCode) -> Self {
        match status.as_u16() {
            401 | 403 => Self { status, ..Self::INVALID_CLIENT },
            400 | 429 => Self {
                status,
                error: "invalid_request",
                description: "rate limit exceeded; too many token requests, try again later",
            },
            500..=599 => Self { status, error: "server_error", description: "the request failed" },
            _ => Self { status, error: "invalid_request", description: "the request was refused" },
        }
    }
}

impl IntoResponse for OAuthError {
    fn into_response(self) -> Response {
        let Self { status, error, description } = self;
        let body = json!({"error": error, "description": description, "error_description": description});
        (status, Json(body)).into_response()
    }
}
