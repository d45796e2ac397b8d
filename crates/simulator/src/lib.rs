//! A stand-in for the Genesys Cloud API, served over real HTTP.
//!
//! It owns a pretend organisation (`state`), the platform's way of refusing (`errors`, `limits`, `tokens`),
//! faults to rehearse (`faults`) and a list of what was received (`record`). It knows nothing of the workers:
//! they are its clients, and find here only what the platform would tell them.
//!
//! The path of one request: `connection` accepts it, `pipeline` takes it through the record, the token, the limits
//! and the faults (all in `world`), and one of `routes` answers it. A new worker's part is one file in `routes/`
//! and its rules in `state`.

mod connection;
mod errors;
mod faults;
mod limits;
mod options;
mod pipeline;
mod record;
mod routes;
mod server;
mod state;
mod tokens;
mod world;

pub use faults::{FaultRule, FaultRuleError, RetryAfter};
pub use options::SimulatorOptions;
pub use record::RecordedRequest;
pub use server::{Simulator, SimulatorError};
