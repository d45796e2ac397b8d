//! Everything that the author of a worker uses:
//!
//! - [`handler`]: the trait `JobHandler` of a worker, its context and its result;
//! - [`job`], [`error`] and [`options`]: kinds and violations, errors with their class, and settings;
//! - [`genesys`]: requests to Genesys Cloud, sent with `JobContext::send`;
//! - [`outside`]: requests to other hosts, which cannot carry the token of Genesys Cloud;
//! - [`contract`]: examples, rules and error codes that the worker publishes;
//! - [`worker::main`]: the `main` of a worker's binary.
//!
//! The rest is for the tool and for processes: [`membership`] in the fleet, [`webhook`] deliveries, the [`admin`] port,
//! and the crates below. `examples/minimal_worker.rs` is a complete worker.

pub use genfleet_audit as audit;
pub use genfleet_genesys as genesys;
pub use genfleet_job as job;
pub use genfleet_job::{
    clock, eprint_line, error, escape, event, file, hash, job_headers, lease, message, metric, options, retry,
    supervisor, trace_context,
};
pub use genfleet_queue as queue;
pub use genfleet_telemetry as telemetry;

pub mod admin;
pub mod contract;
mod error_code;
pub mod failure;
pub mod handler;
pub mod membership;
pub mod outside;
mod terms;
pub mod turns;
pub mod webhook;
pub mod worker;
