//! The time at which the next request may be sent.

use tokio::time::Instant;

/// The time at which a limit lets the next request through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendTime {
    /// Now.
    Now,
    /// Not before this time, unless an answer changes it.
    At(Instant),
}

impl SendTime {
    /// Returns the later of two.
    pub(crate) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Now, other) => other,
            (at, Self::Now) => at,
            (Self::At(one), Self::At(another)) => Self::At(one.max(another)),
        }
    }
}
