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

use crate::{
    fleet::Fleet,
    worker::{
        failures::{Failure, Failures},
        runtime::Beats,
    },
};
use genfleet_genesys::GenesysClient;
use genfleet_job::metric;
use genfleet_queue::Queue;

mod address;
mod connections;
mod console;
mod host;

pub use address::{AdminAddr, DEFAULT, listen};
use connections::Bounds;

/// A loop that did not come round for this long is dead.
const SILENCE: Duration = Duration::from_secs(60);
/// Of a kind that one process at a time works, while another connection seems to hold its lock.
const NOBODY: &str = "no process says that it works them, and the broker keeps the lock for one: it goes with that \
                      process's connection, or with its node (deploy/RUNBOOK.md, GenfleetNotReady)";
const UPKEEP: Duration = Duration::from_secs(5);

/// What the admin port looks at.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Renders the metrics.
    pub metrics: PrometheusHandle,
    /// For readiness.
    pub queue: Queue,
    /// For readiness.
    pub genesys: GenesysClient,
    /// For liveness.
    pub beats: Beats,
    /// For the page.
    pub fleet: Fleet,
    /// For the page.
    pub failures: Failures,
    /// Set while the process drains.
    pub draining: Arc<AtomicBool>,
}

impl Admin {
    /// Serves until dropped; answers requests to this machine, and to `name` where one is given.
    pub async fn serve(self, listener: TcpListener, name: Option<String>) {
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
            () = connections::serve(listener, router, Bounds::default()) => {}
            () = keep => {}
        }
    }

    /// Why the process is not ready to take jobs; empty when it is.
    pub fn reasons(&self) -> Vec<String> {
        let health = self.queue.health();
        let mut reasons = health.problems;
        // A holder whose gate is shut consumes nothing either, and says that it is there.
        let unworked = health.standing_by.into_iter().filter_map(|(kind, why)| Some((kind, why?)));
        let unworked = unworked.filter(|(kind, _)| !self.fleet.is_worked_elsewhere(*kind));
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

async fn failures(State(admin): State<Admin>) -> Json<Vec<Failure>> {
    Json(admin.failures.last())
}

async fn fleet(State(admin): State<Admin>) -> Json<Value> {
    Json(admin.fleet.shown())
}

async fn livez(State(admin): State<Admin>) -> impl IntoResponse {
    // A process that drains has ended its loops, and may take its time over what still runs.
    let draining = admin.draining.load(Ordering::Relaxed);
    let silent = if draining { Vec::new() } else { admin.beats.silent_for(SILENCE) };
    let reasons: Vec<String> = silent.into_iter().map(|name| format!("the loop {name} does not come round")).collect();
    answer("live", &reasons)
}

async fn readyz(State(admin): State<Admin>) -> impl IntoResponse {
    answer_with("ready", &admin.reasons(), admin.genesys.warnings())
}

fn answer(what: &str, reasons: &[String]) -> impl IntoResponse + use<> {
    answer_with(what, reasons, Vec::new())
}

/// What is noted is told with the reasons, and is none.
fn answer_with(what: &str, reasons: &[String], notes: Vec<String>) -> impl IntoResponse + use<> {
    let so = reasons.is_empty();
    let status = if so { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let told: Vec<String> = reasons.iter().cloned().chain(notes).collect();
    (status, Json(json!({ what: so, "reasons": told })))
}
