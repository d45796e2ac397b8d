//! Routes for the channel-provisioner: routing queues and web messaging channels.

use std::time::Instant;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;

use super::body::{Answer, AnswerWithStatus, JsonBody};
use crate::world::Shared;

pub(crate) fn routes() -> Router<Shared> {
    Router::new()
        .route("/api/v2/routing/queues/{id}", get(queue))
        .route("/api/v2/purecloudv2/webchat", get(list).post(create))
        .route("/api/v2/purecloudv2/webchat/{id}", get(channel))
}

#[derive(Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Page {
    page_size: u64,
    page_number: u64,
}

impl Default for Page {
    fn default() -> Self {
        Self { page_size: 25, page_number: 1 }
    }
}

async fn queue(State(shared): State<Shared>, Path(id): Path<String>) -> Answer {
    shared.lock().organisation.web_messaging.queue(&id).map(Json)
}

async fn channel(State(shared): State<Shared>, Path(id): Path<String>) -> Answer {
    shared.lock().organisation.web_messaging.channel(&id, Instant::now()).map(Json)
}

async fn list(State(shared): State<Shared>, Query(page): Query<Page>) -> Answer {
    shared.lock().organisation.web_messaging.page(page.page_size, page.page_number, Instant::now()).map(Json)
}

async fn create(State(shared): State<Shared>, JsonBody(body): JsonBody) -> AnswerWithStatus {
    let created = shared.lock().organisation.web_messaging.create(&body, Instant::now())?;
    Ok((StatusCode::CREATED, Json(created)))
}
