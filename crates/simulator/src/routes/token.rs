//! The token endpoint, for the grant type client credentials only.

use std::time::Instant;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::errors::OAuthError;
use crate::pipeline::TOKEN_PATH;
use crate::tokens::{credentials, form_value};
use crate::world::Shared;

pub(crate) fn routes() -> Router<Shared> {
    Router::new().route(TOKEN_PATH, post(give_token))
}

async fn give_token(State(shared): State<Shared>, headers: HeaderMap, form: Bytes) -> Result<Json<Value>, OAuthError> {
    let mut world = shared.lock();
    let client_id = authenticate(&headers, &form, world.options.client.as_ref())?;
    if form_value(&form, "grant_type").as_deref() != Some("client_credentials") {
        return Err(OAuthError::UNSUPPORTED_GRANT);
    }
    if form_value(&form, "scope").is_some_and(|scope| scope.contains("invalid")) {
        return Err(OAuthError::INVALID_SCOPE);
    }
    let lifetime = world.options.token_lifetime;
    let token = world.tokens.mint(&client_id, lifetime, Instant::now());
    Ok(Json(json!({"access_token": token, "token_type": "bearer", "expires_in": lifetime.as_secs()})))
}

fn authenticate(headers: &HeaderMap, form: &[u8], only: Option<&(String, String)>) -> Result<String, OAuthError> {
    let given = credentials(headers, form).filter(|(id, secret)| !id.is_empty() && !secret.is_empty());
    let good = given.filter(|given| only.is_none_or(|only| only == given));
    good.map(|(id, _)| id).ok_or(OAuthError::INVALID_CLIENT)
}
