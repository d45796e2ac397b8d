//! Traces: spans of what happens to a job, exported with OTLP. The position of a job in a trace is a
//! [`genfleet_job::trace_context::TraceContext`].
//!
//! Attributes follow the OpenTelemetry conventions for messaging, `RabbitMQ` and HTTP clients. No value holds a
//! payload, a secret, or more of a receiver's URL than scheme and host: `url.full` has the path's template in place of
//! the path, and no query.

mod collector;
mod export;
mod span;

pub use opentelemetry::trace::SpanKind;
pub use opentelemetry_semantic_conventions::attribute;

pub use self::{
    export::{TraceExport, stop_export},
    span::{Span, SpanDetails},
};
