//! Routes for the vni-provisioner: private connections and routing tables.

use std::time::Instant;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde_json::Value;

use super::body::{Answer, AnswerWithStatus, JsonBody};
use crate::errors::ApiError;
use crate::state::network::Listing;
use crate::world::Shared;

const CONNECTIONS: &str = "/api/v2/organization/privateconnectivity/connections";
const TABLES: &str = "/api/v2/architect/networking/routingtables";

pub(crate) fn routes() -> Router<Shared> {
    Router::new()
        .route(CONNECTIONS, get(list).post(create))
        .route(&format!("{CONNECTIONS}/{{id}}"), delete(remove))
        .route(&format!("{TABLES}/{{id}}"), get(look_at_table))
        .route(&format!("{TABLES}/{{id}}/sync"), post(synchronise))
}

async fn list(State(shared): State<Shared>, Query(listing): Query<Listing>) -> Json<Value> {
    Json(shared.lock().organisation.network.list(&listing, Instant::now()))
}

async fn create(State(shared): State<Shared>, JsonBody(body): JsonBody) -> AnswerWithStatus {
    let created = shared.lock().organisation.network.create(&body, Instant::now())?;
    Ok((StatusCode::CREATED, Json(created)))
}

async fn remove(State(shared): State<Shared>, Path(id): Path<String>) -> Result<StatusCode, ApiError> {
    shared.lock().organisation.network.delete(&id, Instant::now())?;
    Ok(StatusCode::NO_CONTENT)
}

async fn look_at_table(State(shared): State<Shared>, Path(id): Path<String>) -> Answer {
    shared.lock().organisation.network.look_at(&id).map(Json)
}

async fn synchronise(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    JsonBody(body): JsonBody,
) -> AnswerWithStatus {
    let begun = shared.lock().organisation.network.synchronise(&id, &body)?;
    Ok((StatusCode::ACCEPTED, Json(begun)))
}
