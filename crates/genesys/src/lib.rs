//! Talking to Genesys Cloud (SPEC 4): the one place that sends HTTP to it.
//!
//! [`client::GenesysClient::send`] = permit (brakes → gate → breaker → token → budget) → HTTP → classify → short
//! retry. What an answer means is data, in [`classify`]; when a request may go is decided by [`admission`] alone,
//! out of [`gate`], [`service`], [`breaker`], [`brake`], [`budget`] and [`slow_start`]: pure state machines over the time.
//!
//! In reading order: a [`request`] gets a [`permit`], is sent by [`send`] over the [`http_transport`]; the [`token`] it
//! carries is minted by [`mint`]; what came back is cleared of our secrets by `redact`; what went wrong is an [`error`]. What a call changes is told to the audit by `change`.

mod admission;
mod brake;
mod circuit_breaker;
mod budget;
mod change_guard;
mod classify;
mod client;
mod admission_control;
mod error;
mod rate_limit_pause;
mod http_date;
mod fleet_key;
mod limits;
mod token_source;
mod options;
mod failure_causes;
mod permit;
mod redact;
mod region;
mod request;
mod send;
mod service_limits;
mod clock_skew;
mod slow_start;
mod token;
mod request_span;
mod http_transport;
mod credential_check;

#[cfg(test)]
mod script;

pub use admission::{Admission, ClosedReason, ActiveHold};
pub use budget::{Budget, LimitShare, SendTime, BudgetUsage};
pub use classify::TransportFailure;
pub use client::{Forbidden, GenesysClient};
pub use error::ApiError;
pub use http_date::read_http_date;
pub use fleet_key::FleetKey;
pub use limits::{LONG_PAUSE, RateLimitHeaders, retry_after};
pub use token_source::{CredentialSource, Credentials};
pub use options::GenesysOptions;
pub use permit::Permit;
pub use request::{ApiAnswer, ApiRequest, Caller};
pub use clock_skew::{clock_is_off, describe_skew};
pub use http_transport::HttpTimeouts;
pub use credential_check::{ApiCheck, ClockReading, TokenCheckOutcome};
