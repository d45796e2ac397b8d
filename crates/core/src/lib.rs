//! Genfleet's core: everything between a queue and the Genesys Cloud API that is the same for all workers.
//!
//! In reading order: a [`job`] comes out of a [`queue`], a [`worker`] hands it to its [`handler`], which calls
//! the API through [`genesys`]; what went wrong is an [`error`], what came of it an [`event`], what was changed is in the
//! [`audit`], and what was given up a [`letter`]. Where it is in a [`trace`] goes along. What upstream systems can rely on
//! is the [`contract`].

pub mod admin;
pub mod audit;
pub mod clock;
pub mod contract;
pub mod error;
pub mod event;
pub mod genesys;
pub mod handler;
pub mod hash;
pub mod job;
pub mod letter;
pub mod metric;
pub mod options;
pub mod queue;
pub mod retry;
pub mod telemetry;
pub mod trace;
pub mod webhook;
pub mod worker;
