//! The client of Genesys Cloud (SPEC 4): the one place that sends HTTP to it.
//!
//! [`GenesysClient`] in `client.rs` sends a call: it waits for admission (`admission_control.rs` combines holds,
//! pauses, circuit breaker, token, slow start and budget, which are pure state machines over time), sends it with
//! `http_transport.rs`, classifies the answer (`classify.rs`), and sends the call again if that helps. The token comes
//! from `token_source.rs`; `redact.rs` removes secrets from answers; `change_guard.rs` audits changes.

mod admission;
mod admission_control;
mod answer;
mod answer_body;
mod budget;
mod change_guard;
mod circuit_breaker;
mod classify;
mod client;
mod clock_skew;
mod credential_check;
mod credential_hold;
mod credentials;
mod error;
mod failure_causes;
mod fleet_key;
mod http_date;
mod http_transport;
mod limits;
mod options;
mod paging;
mod permission_hold;
mod permit;
mod rate_limit_pause;
mod received_answer;
mod redact;
mod region;
mod request;
mod request_telemetry;
mod retries;
mod rights;
mod send_time;
mod service_limits;
mod slow_start;
mod token;
mod token_source;
mod worker_holds;

pub use self::{
    admission::{ActiveHold, Admission, ClosedReason},
    answer::ApiAnswer,
    budget::{Budget, BudgetUsage, share::LimitShare},
    circuit_breaker::OutageDetector,
    client::{GenesysClient, status::ClientStatus},
    clock_skew::{ClockReading, describe_skew},
    credential_check::{CredentialCheck, TokenCheckOutcome},
    credentials::{CredentialSource, Credentials},
    error::{ApiError, STALE_ROUNDS},
    fleet_key::FleetKey,
    http_date::read_http_date,
    http_transport::{HttpTimeouts, TransportFailure},
    limits::{LONG_PAUSE, RateLimitHeaders, retry_after},
    options::GenesysOptions,
    paging::{Listed, Listing},
    permit::Permit,
    request::{ApiRequest, Caller},
    rights::Rights,
    send_time::SendTime,
    worker_holds::WorkerHold,
};
