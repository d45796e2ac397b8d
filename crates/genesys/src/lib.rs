//! Talking to Genesys Cloud (SPEC 4): the one place that sends HTTP to it.
//!
//! [`client::GenesysClient::send`] = permit (brakes → gate → breaker → token → budget) → HTTP → classify → short
//! retry. What an answer means is data, in [`classify`]; when a request may go is decided by [`door`] alone,
//! out of [`gate`], [`service`], [`breaker`], [`brake`], [`budget`] and [`slow_start`]: pure state machines over the time.
//!
//! In reading order: a [`request`] gets a [`permit`], is sent by [`send`] over the [`transport`]; the [`token`] it
//! carries is minted by [`mint`]; what came back is cleared of our secrets by `redact`; what went wrong is an [`error`]. What a call changes is told to the audit by `change`.

mod admission;
mod brake;
mod breaker;
mod budget;
mod change;
mod classify;
mod client;
mod door;
mod error;
mod gate;
mod http_date;
mod key;
mod limits;
mod mint;
mod options;
mod outage;
mod permit;
mod redact;
mod region;
mod request;
mod send;
mod service;
mod skew;
mod slow_start;
mod token;
mod traced;
mod transport;
mod trial;

#[cfg(test)]
mod script;

pub use admission::{Admission, ClosedReason, Shut};
pub use budget::{Budget, Part, Ready, Spending};
pub use classify::LostAnswer;
pub use client::{Forbidden, GenesysClient};
pub use error::ApiError;
pub use http_date::read_http_date;
pub use key::Key;
pub use limits::{LONG_PAUSE, Rates, retry_after};
pub use mint::{CredentialSource, Credentials};
pub use options::GenesysOptions;
pub use permit::Permit;
pub use request::{ApiAnswer, ApiRequest, Caller};
pub use skew::{clock_is_off, describe_skew};
pub use transport::TimeOuts;
pub use trial::{ApiTrial, Clocks, TokenOutcome};
