//! Routes for the stream-configurator: definitions, with their versions as `ETag`.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::header::{ETAG, IF_MATCH};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::Value;

use super::body::is_json;
use crate::errors::ApiError;
use crate::state::event_streams::{MOST_BYTES, Version};
use crate::world::Shared;

pub(crate) fn routes() -> Router<Shared> {
    Router::new().route("/api/v2/configuration/event-streams/{id}", get(read).put(replace))
}

async fn read(State(shared): State<Shared>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let world = shared.lock();
    Ok(respond(StatusCode::OK, world.organisation.event_streams.get(&id)?))
}

async fn replace(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    let definition = definition(&headers, &body)?;
    let if_match = headers.get(IF_MATCH).and_then(|value| value.to_str().ok());
    let mut world = shared.lock();
    let version = world.organisation.event_streams.put(&id, if_match, &definition)?;
    let status = if version.is_first() { StatusCode::CREATED } else { StatusCode::OK };
    Ok(respond(status, version))
}

/// This API has a smaller maximum length than the others, so the length is checked before the content.
fn definition(headers: &HeaderMap, body: &Bytes) -> Result<Value, ApiError> {
    if !is_json(headers) {
        return Err(ApiError::of_status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    if body.len() > MOST_BYTES {
        return Err(ApiError::of_status(StatusCode::PAYLOAD_TOO_LARGE));
    }
    let unreadable = |_| ApiError::bad_request("The request body is not valid JSON.");
    serde_json::from_slice(body).map_err(unreadable)
}

fn respond(status: StatusCode, version: &Version) -> Response {
    (status, [(ETAG, version.etag())], Json(version.json())).into_response()
}
