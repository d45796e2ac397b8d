//! The path of a job through a process, and the process itself.
//!
//! [`consume`] takes deliveries from the queue. [`process`] processes one of them; its steps are [`suspect`],
//! [`validate`], [`in_flight`] (claim), [`attempt`] (run), [`decide`], [`audit_outcome`] (record) and [`settlement`]
//! (publish, then acknowledge, many jobs together: [`batches`]); [`not_run`] settles what does not run. The handler's
//! types end in [`typed`]. An [`outcome`] is the result of an attempt, [`publications`] are what is published for it, and
//! [`unsettled`] keeps results whose session was lost.
//!
//! [`runtime`] puts a process together and drains it, and [`start`] starts it. [`command`] is the command line of a
//! worker, and [`kinds`] says which of its kinds it works.

pub(crate) mod activity;
mod attempt;
mod audit_outcome;
mod batches;
mod blockers;
mod command;
mod consume;
mod context;
mod decide;
mod delivery_trace;
mod in_flight;
mod kinds;
mod large_body;
mod metric_series;
#[cfg(test)]
mod model;
mod not_run;
mod options;
mod outcome;
mod process;
mod publications;
mod queue_options;
mod runtime;
mod settlement;
mod shutdown;
mod start;
mod suspect;
mod typed;
mod unknown_kinds;
mod unsettled;
mod validate;

pub use self::{
    audit_outcome::readable_payload_sha256,
    blockers::{Blocker, Blockers},
    command::{block_on, main, misspelt_variables, parse},
    kinds::{ChosenKinds, HandlerRow, JobHandlers, OptionsOfTwo, warnings_of_kinds},
    large_body::offload,
    options::WorkerOptions,
    queue_options::QueueOptions,
    runtime::{ProcessEnd, Runtime},
    shutdown::Signals,
    start::PreparedProcess,
    unknown_kinds::reject_unknown_job,
    validate::{JobRules, validate_job},
};
