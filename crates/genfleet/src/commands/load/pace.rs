//! So many a second, whatever becomes of them: the moment of each job is fixed in advance, and time lost is made up for.
//! A pace that slowed down with the queue would hide how slow the queue is.

use std::time::Duration;

use tokio::time::Instant;

use crate::commands::rate::Rate;

/// When each is due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    rate: Option<Rate>,
    begun: Instant,
}

impl Pace {
    /// From `begun` on; without a rate all are due at once.
    pub(super) fn new(rate: Option<Rate>, begun: Instant) -> Self {
        Self { rate, begun }
    }

    /// When number `number`, from 0, is due.
    pub(super) fn due(&self, number: u32) -> Instant {
        let after = self.rate.map_or(Duration::ZERO, |rate| rate.interval(number));
        self.begun + after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_moment_whatever_happened_before() {
        let begun = Instant::now();
        let pace = Pace::new(Some("4".parse().unwrap()), begun);
        assert_eq!(pace.due(0), begun);
        assert_eq!(pace.due(10), begun + Duration::from_millis(2500));
        assert_eq!(Pace::new(None, begun).due(1_000_000), begun);
    }
}
