//! The admin port: whether a process of ours is there and well, or whether the port is free for one.

use std::{io::ErrorKind, net::TcpListener, time::Duration};

use genfleet_core::admin::AdminAddr;

use crate::{finding::Finding, plain_http};

const CHECK: &str = "admin.port";
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks what is there; where nothing is `set`, at the default address.
pub(crate) async fn check(set: Option<&AdminAddr>) -> Finding {
    let address = set.cloned().unwrap_or_default();
    let looked_at = format!("the admin port {address}");
    let host = plain_http::reachable(&address);
    let asked = tokio::task::spawn_blocking(move || plain_http::get(&host, "/readyz", PATIENCE)).await;
    match asked {
        Ok(Ok((status, body))) => judge(&looked_at, status, &body),
        Ok(Err(_)) | Err(_) => free(&looked_at, &address),
    }
}

fn judge(looked_at: &str, status: u16, body: &str) -> Finding {
    let message: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    let Some(ready) = message["ready"].as_bool() else {
        return Finding::warning(CHECK, looked_at, format!("another program answers there ({status})"), TAKEN);
    };
    if ready {
        return Finding::ok(CHECK, looked_at, "a process of ours is there, and ready");
    }
    let reasons = message["reasons"].as_array().into_iter().flatten().filter_map(|reason| reason.as_str());
    let reasons = reasons.collect::<Vec<_>>().join("; ");
    let found = format!("a process of ours is there, and not ready: {reasons}");
    Finding::failed(
        CHECK,
        looked_at,
        found,
        "remove the cause that it names; deploy/RUNBOOK.md, GenfleetNotReady, lists them",
    )
}

const TAKEN: &str = "name a free port with --admin-addr: a worker that is message this one does not start, and one that is message none takes another, \
    which nobody scrapes";

fn free(looked_at: &str, address: &AdminAddr) -> Finding {
    match TcpListener::bind(address.to_string()) {
        Ok(_) => Finding::ok(CHECK, looked_at, "free; no process of ours is there"),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            Finding::warning(CHECK, looked_at, "taken by something that does not answer", TAKEN)
        }
        Err(error) => {
            let found = format!("cannot be listened at: {error}");
            Finding::failed(
                CHECK,
                looked_at,
                found,
                "name an address of this machine with --admin-addr; no worker starts like this",
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Level, *};

    #[test]
    fn a_process_of_ours_is_told_from_another_program() {
        assert_eq!(judge("x", 200, r#"{"ready":true,"reasons":[]}"#).level, Level::Ok);
        let shut = judge("x", 503, r#"{"ready":false,"reasons":["no broker"]}"#);
        assert!(shut.level == Level::Failed && shut.found.ends_with("no broker"), "{shut:?}");
        assert_eq!(judge("x", 200, "<html>").level, Level::Warning);
    }

    #[tokio::test]
    async fn a_free_port_is_well_and_a_silent_one_is_told() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = silent.local_addr().unwrap().to_string().parse().unwrap();
        assert_eq!(free("x", &address).level, Level::Warning);
        drop(silent);
        assert_eq!(check(Some(&address)).await.level, Level::Ok);
    }
}
