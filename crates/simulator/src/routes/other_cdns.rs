//! The CDNs of other vendors: purges at CloudFront, Cloudflare, Fastly and Varnish, and the requests that only ask
//! whether a purge would be taken. They have neither tokens nor limits of the platform, so they stand before the
//! pipeline.

use axum::body::{Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::Shared;

const FASTLY_KEY: HeaderName = HeaderName::from_static("fastly-key");
/// Longer than any purge that is sent.
const LONGEST_BODY: usize = 4 * 1024 * 1024;
const AWS_SIGNATURE: &str = "AWS4-HMAC-SHA256 Credential=";

/// Answers what is meant for a CDN, and lets everything else pass.
pub(crate) async fn pass(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    if matches!(method.as_str(), "PURGE" | "BAN") {
        let is_ban = method.as_str() == "BAN";
        return varnish(&shared, is_ban, &path, request.headers());
    }
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match (&method, parts.as_slice()) {
        (_, ["2020-05-31", "distribution", _, "invalidation"]) => {
            let (head, body) = request.into_parts();
            let body = to_bytes(body, LONGEST_BODY).await.unwrap_or_default();
            cloudfront(&shared, &method, &head.headers, &body)
        }
        (_, ["client", "v4", "zones", _, "purge_cache"] | ["client", "v4", "user", "tokens", "verify"]) => {
            let (head, body) = request.into_parts();
            let body = to_bytes(body, LONGEST_BODY).await.unwrap_or_default();
            cloudflare(&shared, &method, &head.headers, &body)
        }
        (&Method::POST, ["purge", _, rest @ ..]) => {
            fastly(&shared, Some(&format!("/{}", rest.join("/"))), request.headers())
        }
        (&Method::GET, ["tokens", "self"]) => fastly(&shared, None, request.headers()),
        _ => next.run(request).await,
    }
}

fn purge<'a>(shared: &Shared, paths: impl IntoIterator<Item = &'a str>) {
    let mut world = shared.lock();
    let cdn = &mut world.organisation.cdn;
    for path in paths {
        *cdn.purged.entry(path.to_owned()).or_default() += 1;
    }
    cdn.purge_requests += 1;
}

fn has(headers: &HeaderMap, name: &HeaderName, prefix: &str) -> bool {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty()))
}

fn varnish(shared: &Shared, is_ban: bool, path: &str, headers: &HeaderMap) -> Response {
    if is_ban && !headers.contains_key("x-ban-regex") {
        return (StatusCode::BAD_REQUEST, "X-Ban-Regex is missing").into_response();
    }
    purge(shared, [path]);
    let id = shared.lock().organisation.cdn.purge_requests.to_string();
    (StatusCode::OK, [("x-varnish", id)]).into_response()
}

fn cloudfront(shared: &Shared, method: &Method, headers: &HeaderMap, body: &Bytes) -> Response {
    let xml = |status: StatusCode, body: String| (status, [(CONTENT_TYPE, "text/xml")], body).into_response();
    let fail = |status, code: &str| {
        let id = Uuid::new_v4();
        let error = format!("<Error><Type>Sender</Type><Code>{code}</Code><Message>{code}</Message></Error>");
        xml(status, format!("<ErrorResponse>{error}<RequestId>{id}</RequestId></ErrorResponse>"))
    };
    if !has(headers, &AUTHORIZATION, AWS_SIGNATURE) {
        return fail(StatusCode::FORBIDDEN, "MissingAuthenticationToken");
    }
    if method == Method::GET {
        return xml(StatusCode::OK, "<InvalidationList><Quantity>0</Quantity></InvalidationList>".to_owned());
    }
    let body = String::from_utf8_lossy(body);
    let paths: Vec<&str> =
        body.split("<Path>").skip(1).filter_map(|rest| Some(rest.split_once("</Path>")?.0)).collect();
    if paths.is_empty() || !body.contains("<CallerReference>") {
        return fail(StatusCode::BAD_REQUEST, "InvalidArgument");
    }
    purge(shared, paths);
    let id = Uuid::new_v4().simple().to_string().to_uppercase();
    xml(StatusCode::CREATED, format!("<Invalidation><Id>I{}</Id><Status>InProgress</Status></Invalidation>", &id[..13]))
}

fn cloudflare(shared: &Shared, method: &Method, headers: &HeaderMap, body: &Bytes) -> Response {
    let json = |status: StatusCode, success: bool, errors: Value| {
        let result = if success { json!({"id": Uuid::new_v4().simple().to_string()}) } else { Value::Null };
        let body = json!({"success": success, "errors": errors, "messages": [], "result": result});
        (status, [(CONTENT_TYPE, "application/json")], body.to_string()).into_response()
    };
    if !has(headers, &AUTHORIZATION, "Bearer ") {
        return json(StatusCode::UNAUTHORIZED, false, json!([{"code": 10000, "message": "Authentication error"}]));
    }
    if method == Method::GET {
        return json(StatusCode::OK, true, json!([]));
    }
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let entries: Vec<&str> = ["files", "prefixes", "hosts"]
        .iter()
        .filter_map(|member| body[*member].as_array())
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if entries.is_empty() || entries.len() > 100 {
        let why = "Request must contain one of \"purge_everything\", \"files\", \"tags\", \"hosts\" or \"prefixes\"";
        return json(StatusCode::BAD_REQUEST, false, json!([{"code": 1012, "message": why}]));
    }
    purge(shared, entries);
    json(StatusCode::OK, true, json!([]))
}

/// Answers a purge of `path`, or a request for the owner of the token.
fn fastly(shared: &Shared, path: Option<&str>, headers: &HeaderMap) -> Response {
    let json = |status: StatusCode, body: Value| {
        (status, [(CONTENT_TYPE, "application/json")], body.to_string()).into_response()
    };
    if !has(headers, &FASTLY_KEY, "") {
        return json(StatusCode::UNAUTHORIZED, json!({"msg": "Provided credentials are missing or invalid"}));
    }
    let id = Uuid::new_v4().to_string();
    let Some(path) = path else { return json(StatusCode::OK, json!({"id": id})) };
    purge(shared, [path]);
    json(StatusCode::OK, json!({"status": "ok", "id": id}))
}
