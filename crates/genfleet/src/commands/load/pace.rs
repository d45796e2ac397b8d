//! A fixed rate: the time of each job is determined in advance, and a delay is made up for. A rate that slowed down
//! with the queue would hide how slow the queue is.

use std::time::Duration;

use tokio::time::Instant;

use crate::commands::rate::Rate;

/// Computes when each job is due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    rate: Option<Rate>,
    start: Instant,
}

impl Pace {
    /// Creates a pace from `start` on. Without a rate all jobs are due at once.
    pub(super) fn new(rate: Option<Rate>, start: Instant) -> Self {
        Self { rate, start }
    }

    /// Returns the time at which job `number`, counted from 0, is due.
    pub(super) fn due(&self, number: u32) -> Instant {
        let after = self.rate.map_or(Duration::ZERO, |rate| rate.interval(number));
        self.start + after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_job_is_due_at_a_fixed_time() {
        let start = Instant::now();
        let pace = Pace::new(Some("4".parse().unwrap()), start);
        assert_eq!(pace.due(0), start);
        assert_eq!(pace.due(10), start + Duration::from_millis(2500));
        assert_eq!(Pace::new(None, start).due(1_000_000), start);
    }
}
