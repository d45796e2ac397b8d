//! What `eventbridge.configure` asks for: integrations, their configuration, their type, and the organisation.

use std::time::Instant;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::Value;

use super::body::{Answer, AnswerWithStatus, JsonBody};
use crate::state::integrations::Listing;
use crate::world::Shared;

pub(crate) fn routes() -> Router<Shared> {
    Router::new()
        .route("/api/v2/organizations/me", get(organization))
        .route("/api/v2/integrations", get(list).post(create))
        .route("/api/v2/integrations/types/{id}", get(integration_type))
        .route("/api/v2/integrations/{id}", get(read).patch(intend))
        .route("/api/v2/integrations/{id}/config/current", get(config).put(replace))
}

async fn organization(State(shared): State<Shared>) -> Json<Value> {
    Json(shared.lock().organisation.integrations.organization())
}

async fn integration_type(State(shared): State<Shared>, Path(id): Path<String>) -> Answer {
    shared.lock().organisation.integrations.integration_type(&id).map(Json)
}

async fn list(State(shared): State<Shared>, Query(listing): Query<Listing>) -> Answer {
    shared.lock().organisation.integrations.list(&listing, Instant::now()).map(Json)
}

async fn create(State(shared): State<Shared>, JsonBody(body): JsonBody) -> AnswerWithStatus {
    let created = shared.lock().organisation.integrations.create(&body, Instant::now())?;
    Ok((StatusCode::CREATED, Json(created)))
}

async fn read(State(shared): State<Shared>, Path(id): Path<String>, Query(listing): Query<Listing>) -> Answer {
    shared.lock().organisation.integrations.get(&id, listing.expands(), Instant::now()).map(Json)
}

async fn intend(State(shared): State<Shared>, Path(id): Path<String>, JsonBody(body): JsonBody) -> Answer {
    shared.lock().organisation.integrations.intend(&id, &body, Instant::now()).map(Json)
}

async fn config(State(shared): State<Shared>, Path(id): Path<String>) -> Answer {
    shared.lock().organisation.integrations.config(&id, Instant::now()).map(Json)
}

async fn replace(State(shared): State<Shared>, Path(id): Path<String>, JsonBody(body): JsonBody) -> Answer {
    shared.lock().organisation.integrations.replace(&id, &body, Instant::now()).map(Json)
}
