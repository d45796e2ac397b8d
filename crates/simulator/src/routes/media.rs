//! What `media.scan` asks for: attachments and documents, links to them, and changes of conversations and documents.
//! The files themselves are served beside the pipeline, as by another host: without a token.

use axum::extract::{Path, Query, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, LOCATION};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, patch, post, put};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::Value;

use super::body::{Answer, AnswerWithStatus, JsonBody};
use crate::errors::ApiError;
use crate::record::now_micros;
use crate::world::Shared;

pub(crate) fn routes() -> Router<Shared> {
    let messages = "/api/v2/conversations/messages/{conversation_id}";
    let attributes = "participants/{participant_id}/attributes";
    Router::new()
        .route(&format!("{messages}/communications/{{communication_id}}/messages/media/{{media_id}}"), get(medium))
        .route(&format!("{messages}/messages/{{message_id}}"), get(message))
        .route("/api/v2/conversations/emails/{conversation_id}/messages/{message_id}", get(email))
        .route("/api/v2/contentmanagement/documents/{document_id}/content", get(content))
        .route("/api/v2/contentmanagement/documents/{document_id}", delete(delete_document))
        .route("/api/v2/downloads/{download_id}", get(download))
        .route(&format!("{messages}/{attributes}"), patch(flag))
        .route(&format!("/api/v2/conversations/emails/{{conversation_id}}/{attributes}"), patch(flag))
        .route("/api/v2/conversations/{conversation_id}", get(conversation))
        .route("/api/v2/conversations/{conversation_id}/tags", put(tag))
        .route("/api/v2/conversations/{conversation_id}/disconnect", post(disconnect))
}

/// Serves the files to every client that has a link.
pub(crate) fn files() -> Router<Shared> {
    Router::new().route("/media/{file_id}", get(fetch))
}

/// The address at which the simulator was asked.
fn base(headers: &HeaderMap) -> String {
    format!("http://{}", headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("127.0.0.1"))
}

async fn medium(
    State(shared): State<Shared>,
    Path((conversation, communication, id)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Answer {
    let media = &mut shared.lock().organisation.media;
    media.medium(&conversation, &communication, &id, &base(&headers), now_micros()).map(Json)
}

async fn message(
    State(shared): State<Shared>,
    Path((conversation, id)): Path<(String, String)>,
    headers: HeaderMap,
) -> Answer {
    shared.lock().organisation.media.message(&conversation, &id, &base(&headers), now_micros()).map(Json)
}

async fn email(State(shared): State<Shared>, Path((_, id)): Path<(String, String)>, headers: HeaderMap) -> Answer {
    shared.lock().organisation.media.email(&id, &base(&headers)).map(Json)
}

async fn content(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let found = shared.lock().organisation.media.document(&id, &base(&headers), now_micros())?;
    Ok(match found {
        Some(found) => Json(found).into_response(),
        None => StatusCode::ACCEPTED.into_response(),
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Redirect {
    #[serde(default = "yes")]
    issue_redirect: bool,
}

fn yes() -> bool {
    true
}

async fn download(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    Query(Redirect { issue_redirect }): Query<Redirect>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let url = shared.lock().organisation.media.download(&id, &base(&headers), now_micros())?;
    if issue_redirect {
        return Ok((StatusCode::SEE_OTHER, [(LOCATION, url)]).into_response());
    }
    Ok(Json(serde_json::json!({ "url": url })).into_response())
}

#[derive(Deserialize)]
struct Key {
    expires: u64,
    key: String,
}

async fn fetch(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    Query(Key { expires, key }): Query<Key>,
    headers: HeaderMap,
) -> Response {
    let is_authorized = headers.contains_key(AUTHORIZATION);
    let fetched = shared.lock().organisation.media.fetch(&id, (expires, &key), is_authorized, now_micros());
    match fetched {
        Ok(bytes) => ([(CONTENT_TYPE, "text/plain")], bytes).into_response(),
        Err(status) => status.into_response(),
    }
}

async fn flag(
    State(shared): State<Shared>,
    Path((_, participant)): Path<(String, String)>,
    JsonBody(body): JsonBody,
) -> AnswerWithStatus {
    let attributes = shared.lock().organisation.media.flag(&participant, &body)?;
    Ok((StatusCode::ACCEPTED, Json(attributes)))
}

async fn conversation(State(shared): State<Shared>, Path(id): Path<String>) -> Json<Value> {
    Json(shared.lock().organisation.media.conversation(&id))
}

async fn tag(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    JsonBody(body): JsonBody,
) -> Result<StatusCode, ApiError> {
    shared.lock().organisation.media.tag(&id, &body)?;
    Ok(StatusCode::ACCEPTED)
}

async fn disconnect(State(shared): State<Shared>, Path(id): Path<String>) -> StatusCode {
    shared.lock().organisation.media.disconnect(&id);
    StatusCode::ACCEPTED
}

async fn delete_document(State(shared): State<Shared>, Path(id): Path<String>) -> Result<StatusCode, ApiError> {
    shared.lock().organisation.media.delete(&id)?;
    Ok(StatusCode::ACCEPTED)
}
