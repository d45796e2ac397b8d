//! Spans of what happens to a job, where they are exported (OTLP): see [`export`]. Where a job is in a trace is in
//! [`genfleet_job::trace_context`].

pub mod attribute;
mod collector;
pub mod export;
pub mod span;
