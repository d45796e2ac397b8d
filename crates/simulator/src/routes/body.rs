//! JSON bodies of requests and answers.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use serde_json::Value;

use crate::errors::ApiError;

/// The answer of a route with the status 200, or the platform's error.
pub(super) type Answer = Result<Json<Value>, ApiError>;

/// The answer of a route with another status, or the platform's error.
pub(super) type AnswerWithStatus = Result<(StatusCode, Json<Value>), ApiError>;

/// Reads the JSON body of a request, or returns the platform's error.
pub(crate) struct JsonBody(pub(crate) Value);

impl<S: Send + Sync> FromRequest<S> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        if !is_json(request.headers()) {
            return Err(ApiError::of_status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        }
        let unreadable = || ApiError::bad_request("The request body is not valid JSON.");
        let body = Bytes::from_request(request, state).await.map_err(|_| unreadable())?;
        serde_json::from_slice(&body).map(Self).map_err(|_| unreadable())
    }
}

pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}
