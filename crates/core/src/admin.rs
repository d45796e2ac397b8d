//! The admin port: `/metrics`, `/livez`, `/readyz`, and a page at `/` (SPEC 9). Read-only.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Json, Router, extract::State, http::StatusCode, middleware, response::IntoResponse, routing::get};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tracing::info;

use crate::membership::Membership;
use genfleet_genesys::GenesysClient;
use genfleet_job::metric;
use genfleet_queue::Queue;

mod address;
mod connections;
mod console;
mod failures;
mod heartbeats;
mod host;

pub use self::address::AdminAddr;
use self::connections::ConnectionLimits;
pub(crate) use self::{
    address::listen,
    failures::{Failures, JobFailure},
    heartbeats::{Heartbeats, LoopHeartbeat},
};

/// A loop without a heartbeat for this time counts as dead.
const SILENCE: Duration = Duration::from_secs(60);
/// The addition for an exclusive kind whose lock nobody seems to hold.
const NOBODY: &str = "no process reports that it works them, and the broker keeps the lock for one: it is released with \
                      that process's connection, or with its node (deploy/RUNBOOK.md, GenfleetNotReady)";
const UPKEEP: Duration = Duration::from_secs(5);

/// The state that the admin port shows.
#[derive(Clone, Debug)]
pub(crate) struct Admin {
    pub(crate) metrics: PrometheusHandle,
    pub(crate) queue: Queue,
    pub(crate) genesys: GenesysClient,
    pub(crate) heartbeats: Heartbeats,
    pub(crate) membership: Membership,
    pub(crate) failures: Failures,
    /// True while the process drains.
    pub(crate) draining: Arc<AtomicBool>,
}

impl Admin {
    /// Serves until dropped. Accepts requests to an IP address, to localhost and to `name`.
    pub(crate) async fn serve(self, listener: TcpListener, name: Option<String>) {
        if let Ok(addr) = listener.local_addr() {
            info!(%addr, "admin port listening");
        }
        let upkeep = self.metrics.clone();
        let router = Router::new()
            .route("/", get(console::page))
            .route("/failures", get(failures))
            .route("/fleet", get(fleet))
            .route("/metrics", get(metrics))
            .route("/livez", get(livez))
            .route("/readyz", get(readyz))
            .with_state(self)
            .layer(middleware::from_fn_with_state(name.map(Into::into), host::check));
        let keep = async {
            loop {
                tokio::time::sleep(UPKEEP).await;
                upkeep.run_upkeep();
            }
        };
        tokio::select! {
            () = connections::serve(listener, router, ConnectionLimits::default()) => {}
            () = keep => {}
        }
    }

    /// The reasons why the process is not ready to take jobs; empty if it is.
    fn reasons(&self) -> Vec<String> {
        let health = self.queue.health();
        let mut reasons = health.problems;
        // A lock holder that is paused consumes nothing either, but reports that it works the kind.
        let unworked = health.standing_by.into_iter().filter_map(|(kind, why)| Some((kind, why?)));
        let unworked = unworked.filter(|(kind, _)| !self.membership.is_worked_elsewhere(*kind));
        reasons.extend(unworked.map(|(kind, why)| format!("standing by for {kind}: {why}; {NOBODY}")));
        reasons.extend(self.genesys.problems());
        if self.draining.load(Ordering::Relaxed) {
            reasons.push("the process is stopping".to_owned());
        }
        reasons
    }
}

async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    metrics_process::Collector::default().collect();
    metrics::gauge!(metric::READY).set(f64::from(u8::from(admin.reasons().is_empty())));
    ([("content-type", "text/plain; version=0.0.4; charset=utf-8")], admin.metrics.render())
}

async fn failures(State(admin): State<Admin>) -> Json<Vec<JobFailure>> {
    Json(admin.failures.list())
}

async fn fleet(State(admin): State<Admin>) -> Json<Value> {
    Json(admin.membership.to_json())
}

async fn livez(State(admin): State<Admin>) -> impl IntoResponse {
    // A draining process has ended its loops and waits for running jobs.
    let draining = admin.draining.load(Ordering::Relaxed);
    let silent = if draining { Vec::new() } else { admin.heartbeats.silent_for(SILENCE) };
    let reasons: Vec<String> = silent.into_iter().map(|name| format!("the loop {name} does not respond")).collect();
    answer("live", &reasons, Vec::new())
}

async fn readyz(State(admin): State<Admin>) -> impl IntoResponse {
    let notes = admin.queue.health().notes.into_iter().chain(admin.genesys.warnings()).collect();
    answer("ready", &admin.reasons(), notes)
}

/// Records are listed with the reasons but do not count as such.
fn answer(what: &str, reasons: &[String], notes: Vec<String>) -> impl IntoResponse + use<> {
    let so = reasons.is_empty();
    let status = if so { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let listed: Vec<String> = reasons.iter().cloned().chain(notes).collect();
    (status, Json(json!({ what: so, "reasons": listed })))
}
