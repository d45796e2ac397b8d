//! The wall clock, passed in: code that asks it can be tested at any time of day. Durations and time-outs use
//! tokio's clock, which tests pause.

use std::{fmt, sync::Arc};

use jiff::Timestamp;

/// Where "now" comes from.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The time of day.
    fn now(&self) -> Timestamp;
}

/// Shared by everything in a process.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that asks the machine")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}
