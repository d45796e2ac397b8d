//! Genfleet's core: everything between a queue and the Genesys Cloud API that is the same for all workers.
//!
//! In reading order: a [`job`] comes out of a [`queue`], a [`worker`] hands it to its [`handler`], which calls
//! the API through [`genesys`], within its part of what the [`fleet`] may send; what went wrong is an [`error`], what
//! came of it an [`event`], what was changed is in the [`audit`], what was given up a [`letter`], and where it was in a
//! [`trace`] goes along. What upstream systems can rely on is the [`contract`].

/// A line on stderr; where nobody reads it any more, none, and the process goes on to its own exit code. What could
/// steer a terminal is written out.
#[macro_export]
macro_rules! tell {
    ($($told:tt)*) => {
        $crate::shown::tell(format_args!($($told)*))
    };
}

pub mod admin;
pub mod audit;
pub mod clock;
pub mod contract;
pub mod error;
pub mod event;
pub mod file;
pub mod fleet;
pub mod genesys;
pub mod handler;
pub mod hash;
pub mod http;
pub mod job;
pub mod job_headers;
pub mod lease;
pub mod message;
pub mod metric;
pub mod options;
pub mod queue;
pub mod retry;
pub mod shown;
pub mod supervisor;
pub mod telemetry;
pub mod trace;
pub mod trace_context;
pub mod webhook;
pub mod worker;
