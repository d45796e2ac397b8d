//! A simulator of the Genesys Cloud API over HTTP.
//!
//! It contains a simulated organisation (`state`), the platform's errors and limits (`errors`, `limits`, `tokens`),
//! injected faults (`faults`) and a record of the received requests (`record`). It does not know the workers:
//! they are its clients.
//!
//! The path of a request: `connection` accepts it, `pipeline` applies the record, the token check, the limits
//! and the faults (all in `world`), and one of `routes` answers it. For a new worker, add a file in `routes/`
//! and its rules in `state/`.

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

pub use self::{
    faults::{FaultRule, RetryAfter},
    options::SimulatorOptions,
    record::RecordedRequest,
    server::Simulator,
};
