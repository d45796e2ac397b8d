//! Routes for the purger: purges of the CDN.

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use serde_json::json;
use uuid::Uuid;

use super::body::{AnswerWithStatus, JsonBody};
use crate::world::Shared;

pub(crate) fn routes() -> Router<Shared> {
    Router::new().route("/api/v2/external/cdn/purge", post(purge))
}

async fn purge(State(shared): State<Shared>, JsonBody(body): JsonBody) -> AnswerWithStatus {
    let paths = shared.lock().organisation.cdn.purge(&body)?;
    let answer = json!({"id": Uuid::new_v4(), "status": "accepted", "paths": paths});
    Ok((StatusCode::ACCEPTED, Json(answer)))
}
