//! The check of the `Host` header: a page of another site could make a browser send requests to this port, under that
//! site's name (DNS rebinding).

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{StatusCode, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};

const FOREIGN: &str = "this request names another host: use an IP address, localhost, or the name in --admin-addr\n";

/// Accepts requests to an IP address, to localhost or to `name`, with any port; answers others with 421.
pub(super) async fn check(State(name): State<Option<Arc<str>>>, request: Request, next: Next) -> Response {
    let hosts = request.headers().get_all(header::HOST);
    let mut hosts =
        hosts.iter().map(|host| host.to_str().ok()).chain(request.uri().authority().map(|at| Some(at.as_str())));
    if hosts.all(|host| host.is_some_and(|host| is_ours(host, name.as_deref()))) {
        next.run(request).await
    } else {
        (StatusCode::MISDIRECTED_REQUEST, FOREIGN).into_response()
    }
}

fn is_ours(host: &str, name: Option<&str>) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let host = authority.host();
    let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let is = |name: &str| host.strip_suffix('.').unwrap_or(host).eq_ignore_ascii_case(name);
    !authority.as_str().contains('@') && (literal.parse::<IpAddr>().is_ok() || is("localhost") || name.is_some_and(is))
}

#[cfg(test)]
mod tests {
    use super::is_ours;

    #[test]
    fn addresses_localhost_and_the_name_of_the_port_are_ours() {
        for host in
            ["127.0.0.1", "10.1.2.3:9464", "[::1]:9464", "[fe80::1]", "localhost", "LocalHost:80", "localhost.:1"]
        {
            assert!(is_ours(host, None), "{host}");
        }
        assert!(is_ours("Worker.internal:9464", Some("worker.internal")));
        for host in [
            "evil.example",
            "evil.example:9464",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "",
            ":9464",
            "user@127.0.0.1",
            "evil.example, localhost",
            "127.0.0.1/x",
            "worker.internal.evil.example",
        ] {
            assert!(!is_ours(host, Some("worker.internal")), "{host}");
        }
    }
}
