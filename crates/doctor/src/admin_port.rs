//! The admin port: whether a genfleet process answers there, or whether the port is free for one.

use std::{io::ErrorKind, net::TcpListener, time::Duration};

use genfleet_core::admin::AdminAddr;

use crate::{
    finding::{Check, Finding},
    plain_http,
};

const TIMEOUT: Duration = Duration::from_secs(5);

/// Requests `/readyz` at the configured address, or at the default address if none is configured.
pub(crate) async fn check(configured: Option<&AdminAddr>) -> Finding {
    let address = configured.cloned().unwrap_or_default();
    let check = Check::new("admin.port", format!("the admin port {address}"));
    let host = plain_http::reachable(&address);
    let answer = tokio::task::spawn_blocking(move || plain_http::get(&host, "/readyz", TIMEOUT)).await;
    match answer {
        Ok(Ok((status, body))) => judge(&check, status, &body),
        Ok(Err(_)) | Err(_) => judge_silent(&check, &address),
    }
}

fn judge(check: &Check, status: u16, body: &str) -> Finding {
    let answer: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    let Some(ready) = answer["ready"].as_bool() else {
        return check.warning(format!("another program answers there (status {status})"), TAKEN);
    };
    if ready {
        return check.ok("a genfleet process is running there, and it is ready");
    }
    let reasons = answer["reasons"].as_array().into_iter().flatten().filter_map(|reason| reason.as_str());
    let reasons = reasons.collect::<Vec<_>>().join("; ");
    check.failed(
        format!("a genfleet process is running there, and it is not ready: {reasons}"),
        "remove the cause that it names; deploy/RUNBOOK.md, GenfleetNotReady, lists them",
    )
}

const TAKEN: &str = "set a free port with --admin-addr: a worker with this setting does not start, and one without \
                     --admin-addr takes another port, from which no metrics are collected";

/// Judges a port that does not answer HTTP.
fn judge_silent(check: &Check, address: &AdminAddr) -> Finding {
    match TcpListener::bind(address.to_string()) {
        Ok(_) => check.ok("free; no genfleet process is running there"),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            check.warning("used by a program that does not answer", TAKEN)
        }
        Err(error) => check.failed(
            format!("cannot be used: {error}"),
            "set an address of this machine with --admin-addr; a worker with this setting does not start",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Level, *};

    #[test]
    fn a_genfleet_process_is_distinguished_from_another_program() {
        let check = Check::new("x", "x");
        assert_eq!(judge(&check, 200, r#"{"ready":true,"reasons":[]}"#).level, Level::Ok);
        let not_ready = judge(&check, 503, r#"{"ready":false,"reasons":["no broker"]}"#);
        assert!(not_ready.level == Level::Failed && not_ready.found.ends_with("no broker"), "{not_ready:?}");
        assert_eq!(judge(&check, 200, "<html>").level, Level::Warning);
    }

    #[tokio::test]
    async fn a_free_port_is_ok_and_a_silent_one_is_reported() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = silent.local_addr().unwrap().to_string().parse().unwrap();
        assert_eq!(judge_silent(&Check::new("x", "x"), &address).level, Level::Warning);
        drop(silent);
        assert_eq!(check(Some(&address)).await.level, Level::Ok);
    }
}
