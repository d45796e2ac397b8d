//! Routes for the scan-monitor: scans of files, and webhooks.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};

use super::body::{Answer, AnswerWithStatus, JsonBody};
use crate::record::now_micros;
use crate::world::Shared;

pub(crate) fn routes() -> Router<Shared> {
    Router::new()
        .route("/api/v2/files/{file_id}/scans", post(order))
        .route("/api/v2/files/{file_id}/scans/{scan_id}", get(poll))
        .route("/api/v2/platform/webhooks/webhooks", post(register))
}

async fn order(State(shared): State<Shared>, Path(file_id): Path<String>, JsonBody(_): JsonBody) -> AnswerWithStatus {
    let scan = shared.lock().organisation.files.order(&file_id, now_micros())?;
    Ok((StatusCode::ACCEPTED, Json(scan)))
}

async fn poll(State(shared): State<Shared>, Path((file_id, scan_id)): Path<(String, String)>) -> Answer {
    shared.lock().organisation.files.poll(&file_id, &scan_id, now_micros()).map(Json)
}

async fn register(State(shared): State<Shared>, JsonBody(webhook): JsonBody) -> Answer {
    shared.lock().organisation.files.register(&webhook).map(Json)
}
