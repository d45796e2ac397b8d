//! Talking to Genesys Cloud (SPEC 4): the one place that sends HTTP to it.
//!
//! [`client::GenesysClient::send`] = permit (brakes → gate → breaker → token → budget) → HTTP → classify → short
//! retry. What an answer means is data, in [`classify`]; when a request may go is decided by [`door`] alone,
//! out of [`gate`], [`service`], [`breaker`], [`brake`], [`budget`] and [`slow_start`]: pure state machines over the time.
//!
//! In reading order: a [`request`] gets a [`permit`], is sent by [`send`] over the [`transport`]; the [`token`] it
//! carries is minted by [`mint`]; what came back is cleared of our secrets by `redact`; what went wrong is an [`error`]. What a call changes is told to the audit by `change`.

pub mod admission;
pub mod brake;
pub mod breaker;
pub mod budget;
mod change;
pub mod classify;
pub mod client;
pub mod door;
pub mod error;
pub mod gate;
pub mod http_date;
pub mod key;
pub mod limits;
pub mod mint;
pub mod options;
mod outage;
pub mod permit;
mod redact;
pub mod region;
pub mod request;
pub mod send;
pub mod service;
pub mod skew;
pub mod slow_start;
pub mod token;
mod traced;
pub mod transport;
pub mod trial;

#[cfg(test)]
mod script;
