//! Talking to Genesys Cloud (SPEC 4): the one place that sends HTTP to it.
//!
//! [`GenesysClient::send`] = token → gate → breaker → budget → HTTP → classify → short retry. What an answer
//! means is data, in [`classify`]; when a request may go is decided by [`budget`], [`gate`] and [`breaker`].

pub mod breaker;
pub mod brake;
pub mod budget;
pub mod classify;
pub mod client;
pub mod error;
pub mod gate;
pub mod region;
pub mod request;
pub mod token;
