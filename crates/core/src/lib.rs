//! Genfleet's core: what the author of a worker uses. It hands on the crates that it stands on.
//!
//! In reading order: a [`job`] comes out of a [`queue`], a [`worker`] hands it to its [`handler`], which calls
//! the API through [`genesys`], within its part of what the [`membership`] may send; what went wrong is an [`error`], what
//! came of it an [`event`], what was changed is in the [`audit`], and where it was in a [`trace`] goes along. What upstream systems can rely on is the [`contract`].

pub use genfleet_audit as audit;
pub use genfleet_genesys as genesys;
pub use genfleet_job as job;
pub use genfleet_job::{
    clock, error, event, file, hash, job_headers, lease, message, metric, options, retry, shown, supervisor, tell,
    trace_context,
};
pub use genfleet_queue as queue;
pub use genfleet_telemetry as telemetry;
pub use genfleet_telemetry::{http, trace};

pub mod admin;
pub mod contract;
pub mod handler;
pub mod membership;
pub mod webhook;
pub mod worker;
