//! The page at `/` of the admin port, and what it reads beside the metrics: the fleet, and the last failures (SPEC 9). One file that asks
//! nobody else for anything.

use axum::response::IntoResponse;

const PAGE: &str = include_str!("console.html");
/// Its own style and script stand in the page; it may ask this port, and is part of no other page.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; \
    img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page.
pub async fn page() -> impl IntoResponse {
    let headers = [
        ("content-type", "text/html; charset=utf-8"),
        ("content-security-policy", POLICY),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-cache"),
    ];
    (headers, PAGE)
}
