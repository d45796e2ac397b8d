//! Genfleet's core: everything between a queue and the Genesys Cloud API that is the same for all workers.
//!
//! In reading order: a [`job`] comes out of a [`queue`], a [`worker`] hands it to its [`handler`], which calls
//! the API through [`genesys`]; what went wrong is an [`error`], what came of it an [`event`],
//! and what was given up a [`letter`].

pub mod admin;
pub mod clock;
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
pub mod worker;
