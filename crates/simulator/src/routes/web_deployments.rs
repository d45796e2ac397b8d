//! What the channel-provisioner asks for in `webdeployment.provision` jobs: flows, limits, configurations and
//! deployments, and what browsers get of them, which takes no token.

use std::time::Instant;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde::Deserialize;

use super::body::{Answer, JsonBody};
use crate::errors::ApiError;
use crate::state::web_deployments::{Cursor, WebDeployments};
use crate::world::{Shared, World};

const CONFIGURATIONS: &str = "/api/v2/webdeployments/configurations";
const DEPLOYMENTS: &str = "/api/v2/webdeployments/deployments";
/// Prefix of the paths for browsers.
pub(crate) const EDGE: &str = "/webdeployments/v1/";

pub(crate) fn routes() -> Router<Shared> {
    Router::new()
        .route("/api/v2/flows/{id}", get(flow))
        .route("/api/v2/architect/dependencytracking/consumedresources", get(consumed_resources))
        .route("/api/v2/organizations/limits/namespaces/{namespace}", get(limits))
        .route(CONFIGURATIONS, get(configurations).post(create_configuration))
        .route(&format!("{CONFIGURATIONS}/{{id}}"), delete(delete_configuration))
        .route(&format!("{CONFIGURATIONS}/{{id}}/versions"), get(versions))
        .route(&format!("{CONFIGURATIONS}/{{id}}/versions/draft"), get(draft).put(put_draft))
        .route(&format!("{CONFIGURATIONS}/{{id}}/versions/draft/publish"), post(publish))
        .route(&format!("{CONFIGURATIONS}/{{id}}/versions/{{version}}"), get(version))
        .route(DEPLOYMENTS, get(deployments).post(create_deployment))
        .route(&format!("{DEPLOYMENTS}/{{id}}"), get(deployment).put(put_deployment))
        .route(&format!("{DEPLOYMENTS}/{{id}}/configurations"), get(active_version))
        .route(&format!("{EDGE}deployments/{{id}}/config.json"), get(edge))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Consumer {
    id: String,
    version: String,
    object_type: String,
}

fn of(world: &mut World) -> &mut WebDeployments {
    &mut world.organisation.web_deployments
}

async fn flow(State(shared): State<Shared>, Path(id): Path<String>) -> Answer {
    of(&mut shared.lock()).flow(&id).map(Json)
}

async fn consumed_resources(State(shared): State<Shared>, Query(consumer): Query<Consumer>) -> Answer {
    if consumer.object_type != "INBOUNDSHORTMESSAGEFLOW" || consumer.version.is_empty() {
        return Err(ApiError::invalid_value("objectType must be a versioned type, and version one of it"));
    }
    Ok(Json(of(&mut shared.lock()).consumed_resources(&consumer.id)))
}

async fn limits(State(shared): State<Shared>, Path(namespace): Path<String>) -> Answer {
    of(&mut shared.lock()).limits(&namespace).map(Json)
}

async fn configurations(State(shared): State<Shared>, Query(cursor): Query<Cursor>) -> Answer {
    of(&mut shared.lock()).configurations(&cursor, Instant::now()).map(Json)
}

async fn create_configuration(State(shared): State<Shared>, JsonBody(body): JsonBody) -> Answer {
    of(&mut shared.lock()).create_configuration(&body, Instant::now()).map(Json)
}

async fn delete_configuration(State(shared): State<Shared>, Path(id): Path<String>) -> Result<StatusCode, ApiError> {
    of(&mut shared.lock()).delete_configuration(&id, Instant::now())?;
    Ok(StatusCode::NO_CONTENT)
}

async fn versions(State(shared): State<Shared>, Path(id): Path<String>, Query(cursor): Query<Cursor>) -> Answer {
    of(&mut shared.lock()).versions(&id, &cursor, Instant::now()).map(Json)
}

async fn version(State(shared): State<Shared>, Path((id, version)): Path<(String, String)>) -> Answer {
    of(&mut shared.lock()).version(&id, &version, Instant::now()).map(Json)
}

async fn draft(State(shared): State<Shared>, Path(id): Path<String>) -> Answer {
    of(&mut shared.lock()).version(&id, "draft", Instant::now()).map(Json)
}

async fn put_draft(State(shared): State<Shared>, Path(id): Path<String>, JsonBody(body): JsonBody) -> Answer {
    of(&mut shared.lock()).put_draft(&id, &body, Instant::now()).map(Json)
}

async fn publish(State(shared): State<Shared>, Path(id): Path<String>) -> Answer {
    of(&mut shared.lock()).publish(&id, Instant::now()).map(Json)
}

async fn deployments(State(shared): State<Shared>, Query(cursor): Query<Cursor>) -> Answer {
    of(&mut shared.lock()).deployments(&cursor, Instant::now()).map(Json)
}

async fn create_deployment(State(shared): State<Shared>, JsonBody(body): JsonBody) -> Answer {
    of(&mut shared.lock()).create_deployment(&body, Instant::now()).map(Json)
}

async fn deployment(State(shared): State<Shared>, Path(id): Path<String>) -> Answer {
    of(&mut shared.lock()).deployment(&id, Instant::now()).map(Json)
}

async fn put_deployment(State(shared): State<Shared>, Path(id): Path<String>, JsonBody(body): JsonBody) -> Answer {
    of(&mut shared.lock()).put_deployment(&id, &body, Instant::now()).map(Json)
}

async fn active_version(State(shared): State<Shared>, Path(id): Path<String>) -> Answer {
    of(&mut shared.lock()).active_version(&id, Instant::now()).map(Json)
}

async fn edge(State(shared): State<Shared>, Path(id): Path<String>) -> Answer {
    of(&mut shared.lock()).edge(&id, Instant::now()).map(Json).ok_or_else(ApiError::not_found)
}
