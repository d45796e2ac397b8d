//! The control routes under `/_sim/`: the record, the organisation, faults and settings.
//!
//! They need no token, and have no limits, faults and records.

use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post, put};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::faults::{FaultRule, Faults};
use crate::options::SimulatorOptions;
use crate::record::{RecordedRequest, Tally};
use crate::world::{Shared, World};

const ROUTES: [(&str, &str); 12] = [
    ("GET /_sim/", "this list"),
    ("GET /_sim/requests?since=0&path=/", "what was received after a number, with a path that begins so"),
    ("GET /_sim/state", "what the organisation holds"),
    (
        "PUT /_sim/organisation/{part}",
        "changes a part: eventStreams, integrations, webMessaging, webDeployments, network, files, media",
    ),
    ("GET /_sim/stats", "how many requests, by path and status, and the fullest windows"),
    ("GET /_sim/faults", "the fault rules, how often each met a request and how often it fired"),
    ("PUT /_sim/faults", "replaces the rules: a JSON list of rules or of their text form, or a line of text each"),
    ("POST /_sim/faults", "adds one rule, as JSON or as text"),
    ("DELETE /_sim/faults", "removes all rules"),
    ("POST /_sim/reset", "empties the organisation and the record; tokens, windows and faults stay"),
    ("POST /_sim/expire-tokens", "ends all tokens"),
    (
        "GET, PUT /_sim/options",
        "requestsPerMinute, clientRequestsPerMinute, latencyMs, tokenLifetimeSeconds (of tokens to come)",
    ),
];

pub(crate) fn routes() -> Router<Shared> {
    Router::new()
        .route("/_sim", get(list))
        .route("/_sim/", get(list))
        .route("/_sim/requests", get(requests))
        .route("/_sim/state", get(state))
        .route("/_sim/organisation/{part}", put(change_organisation))
        .route("/_sim/stats", get(stats))
        .route("/_sim/faults", get(faults).put(replace_faults).post(add_fault).delete(remove_faults))
        .route("/_sim/reset", post(reset))
        .route("/_sim/expire-tokens", post(expire_tokens))
        .route("/_sim/options", get(options).put(change_options))
        .route("/_sim/{*rest}", any(unknown))
}

/// An invalid control request.
struct Refused(StatusCode, String);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(json!({"error": self.1}))).into_response()
    }
}

fn bad_request(error: impl std::fmt::Display) -> Refused {
    Refused(StatusCode::BAD_REQUEST, error.to_string())
}

async fn unknown() -> Refused {
    Refused(StatusCode::NOT_FOUND, "no such control route; GET /_sim/ lists them".to_owned())
}

async fn list() -> Json<Value> {
    let routes: Vec<Value> = ROUTES.iter().map(|(route, what)| json!({"route": route, "what": what})).collect();
    Json(json!({"routes": routes}))
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Wanted {
    since: u64,
    path: String,
}

impl Default for Wanted {
    fn default() -> Self {
        Self { since: 0, path: "/".to_owned() }
    }
}

async fn requests(State(shared): State<Shared>, Query(wanted): Query<Wanted>) -> Json<Vec<RecordedRequest>> {
    Json(shared.lock().record.after(wanted.since, &wanted.path))
}

async fn state(State(shared): State<Shared>) -> Json<Value> {
    let world = shared.lock();
    let mut state = world.organisation.to_json();
    state["goodTokens"] = world.tokens.good(Instant::now()).into();
    Json(state)
}

async fn change_organisation(
    State(shared): State<Shared>,
    Path(part): Path<String>,
    Json(change): Json<Value>,
) -> Result<Json<Value>, (StatusCode, Json<Value>)> {
    let mut world = shared.lock();
    let refused = |wrong: String| (StatusCode::BAD_REQUEST, Json(json!({ "message": wrong })));
    world.organisation.set(&part, &change).map_err(refused)?;
    Ok(Json(world.organisation.to_json()))
}

async fn stats(State(shared): State<Shared>) -> Json<Value> {
    let world = shared.lock();
    let (in_token_window, in_client_window) = world.limits.most_in_any_window();
    let requests: Vec<Value> = world.record.tallies().iter().map(tally_json).collect();
    Json(json!({
        "received": world.record.tallies().values().map(|tally| tally.received).sum::<u64>(),
        "requests": requests,
        "purgeRequests": world.organisation.cdn.purge_requests,
        "mostInTokenWindow": in_token_window,
        "mostInClientWindow": in_client_window,
    }))
}

fn tally_json(((method, path), tally): (&(String, String), &Tally)) -> Value {
    let unanswered = tally.received.saturating_sub(tally.answered.values().sum());
    json!({
        "method": method,
        "path": path,
        "received": tally.received,
        "answered": tally.answered,
        "unanswered": unanswered,
    })
}

fn faults_json(world: &World) -> Json<Value> {
    Json(json!(world.faults.all()))
}

async fn faults(State(shared): State<Shared>) -> Json<Value> {
    faults_json(&shared.lock())
}

async fn replace_faults(State(shared): State<Shared>, body: Bytes) -> Result<Json<Value>, Refused> {
    let rules = read_rules(&body)?;
    let mut world = shared.lock();
    world.faults = Faults::new(rules);
    Ok(faults_json(&world))
}

async fn add_fault(State(shared): State<Shared>, body: Bytes) -> Result<Json<Value>, Refused> {
    let rules = read_rules(&body)?;
    let mut world = shared.lock();
    for rule in rules {
        world.faults.add(rule);
    }
    Ok(faults_json(&world))
}

async fn remove_faults(State(shared): State<Shared>) -> Json<Value> {
    let mut world = shared.lock();
    world.faults = Faults::default();
    faults_json(&world)
}

/// Reads rules as JSON (a rule, its text form, or a list of them), or as lines of text.
fn read_rules(body: &[u8]) -> Result<Vec<FaultRule>, Refused> {
    let text = std::str::from_utf8(body).map_err(bad_request)?.trim();
    if !text.starts_with(['[', '{', '"']) {
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        return lines.map(|line| line.parse().map_err(bad_request)).collect();
    }
    match serde_json::from_str(text).map_err(bad_request)? {
        Value::Array(rules) => rules.into_iter().map(read_rule).collect(),
        rule => read_rule(rule).map(|rule| vec![rule]),
    }
}

fn read_rule(rule: Value) -> Result<FaultRule, Refused> {
    if let Value::String(text) = rule {
        return text.parse().map_err(bad_request);
    }
    let rule: FaultRule = serde_json::from_value(rule).map_err(bad_request)?;
    rule.check().map_err(bad_request)?;
    Ok(rule)
}

async fn reset(State(shared): State<Shared>) -> StatusCode {
    shared.lock().reset();
    StatusCode::NO_CONTENT
}

async fn expire_tokens(State(shared): State<Shared>) -> Json<Value> {
    Json(json!({"expired": shared.lock().tokens.expire_all(Instant::now())}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct StateChange {
    requests_per_minute: Option<u32>,
    client_requests_per_minute: Option<u32>,
    latency_ms: Option<u64>,
    token_lifetime_seconds: Option<u64>,
}

fn options_json(options: &SimulatorOptions) -> Json<Value> {
    Json(json!({
        "requestsPerMinute": options.requests_per_minute,
        "clientRequestsPerMinute": options.client_requests_per_minute,
        "latencyMs": u64::try_from(options.latency.as_millis()).unwrap_or(u64::MAX),
        "tokenLifetimeSeconds": options.token_lifetime.as_secs(),
    }))
}

async fn options(State(shared): State<Shared>) -> Json<Value> {
    options_json(&shared.lock().options)
}

async fn change_options(State(shared): State<Shared>, body: Bytes) -> Result<Json<Value>, Refused> {
    let change: StateChange = serde_json::from_slice(&body).map_err(bad_request)?;
    let options = &mut shared.lock().options;
    options.requests_per_minute = change.requests_per_minute.unwrap_or(options.requests_per_minute);
    options.client_requests_per_minute =
        change.client_requests_per_minute.unwrap_or(options.client_requests_per_minute);
    options.latency = change.latency_ms.map_or(options.latency, Duration::from_millis);
    options.token_lifetime = change.token_lifetime_seconds.map_or(options.token_lifetime, Duration::from_secs);
    Ok(options_json(options))
}
