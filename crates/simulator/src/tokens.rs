//! Tokens and their validity. Rate limits of tokens are in another module.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use url::form_urlencoded;
use uuid::Uuid;

use crate::errors::ApiError;

/// Limits a lifetime so that adding it to a time does not overflow.
const LONGEST_LIFETIME: Duration = Duration::from_secs(10 * 365 * 86_400);

/// All granted tokens.
#[derive(Debug, Default)]
pub(crate) struct Tokens(HashMap<String, Token>);

#[derive(Debug)]
struct Token {
    client_id: String,
    ends: Instant,
}

impl Tokens {
    /// Creates a token for a client.
    pub(crate) fn mint(&mut self, client_id: &str, lifetime: Duration, now: Instant) -> String {
        let token = Uuid::new_v4().simple().to_string();
        self.0.insert(
            token.clone(),
            Token { client_id: client_id.to_owned(), ends: now + lifetime.min(LONGEST_LIFETIME) },
        );
        token
    }

    /// Returns the client of a token, valid or not.
    pub(crate) fn client_of(&self, token: &str) -> Option<&str> {
        self.0.get(token).map(|token| token.client_id.as_str())
    }

    /// Returns the token and its client, or a 401.
    pub(crate) fn check<'a>(&'a self, token: Option<&'a str>, now: Instant) -> Result<(&'a str, &'a str), ApiError> {
        let Some(token) = token else {
            let message = "No authentication bearer token specified in authorization header.";
            return Err(ApiError::new(StatusCode::UNAUTHORIZED, "authentication.required", message));
        };
        match self.0.get(token) {
            Some(known) if known.ends > now => Ok((token, &known.client_id)),
            _ => Err(ApiError::new(StatusCode::UNAUTHORIZED, "bad.credentials", "Invalid login credentials.")),
        }
    }

    /// Revokes all tokens and returns how many were valid.
    pub(crate) fn expire_all(&mut self, now: Instant) -> usize {
        let good = self.good(now);
        for token in self.0.values_mut() {
            token.ends = token.ends.min(now);
        }
        good
    }

    /// Number of valid tokens.
    pub(crate) fn good(&self, now: Instant) -> usize {
        self.0.values().filter(|token| token.ends > now).count()
    }
}

/// Returns the bearer token of a request.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// Returns client id and secret of a token request, from HTTP Basic or the form.
pub(crate) fn credentials(headers: &HeaderMap, body: &[u8]) -> Option<(String, String)> {
    basic(headers).or_else(|| Some((form_value(body, "client_id")?, form_value(body, "client_secret")?)))
}

fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let (scheme, encoded) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (id, secret) = decoded.split_once(':')?;
    Some((id.to_owned(), secret.to_owned()))
}

/// Returns a value of a form.
pub(crate) fn form_value(body: &[u8], name: &str) -> Option<String> {
    form_urlencoded::parse(body).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}
