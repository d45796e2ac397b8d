//! The polling interval: the time of the next poll, and how long a scan may be unfinished or unknown. Pure.
//!
//! **The interval grows by itself.** Every scan schedules its next poll after the interval, independently of the
//! budget. A due poll waits in the resume queue; workers take polls in the order of arrival, and send them when the
//! budget allows it. So with `N` waiting scans and `R` free requests per minute, each scan is polled every `N / R`
//! minutes if that is longer than the interval. This is even, because there is one queue, and causes no 429, because
//! every request uses the budget. New orders are in another queue, and the worker takes from both in turns.
//!
//! A longer interval, computed from the observed delay, would only change where a scan waits: a poll costs one request
//! in both cases, so there are never more polls than the budget allows. But it would react late to a larger budget, and
//! be less even. Therefore there is no such rule.
//!
//! The jitter spreads the polls of scans that were ordered at the same time.

use std::time::Duration;

use genfleet_core::options::ConfigError;

/// Time after the order during which a scan may be unknown, because reads lag behind writes.
const MAY_BE_UNKNOWN: Duration = Duration::from_secs(15);
/// Maximum random change of the wait, as a fraction of it.
const JITTER: f64 = 0.1;
/// Minimum wait. A poll just before the end of a scan's time would be useless, so the last one is made at the end.
const SHORTEST: Duration = Duration::from_millis(1);

/// The interval and duration of polling scans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pace {
    interval: Duration,
    timeout: Duration,
}

impl Pace {
    /// Creates a schedule with a poll about every `interval`. A scan without a verdict after `timeout` is given up.
    pub(crate) fn new(interval: Duration, timeout: Duration) -> Result<Self, ConfigError> {
        if interval.is_zero() {
            return Err(ConfigError::new("--poll-interval: must be longer than 0"));
        }
        Ok(Self { interval, timeout })
    }

    /// Returns the wait of a scan of this age before its next poll: about the interval, but not past the end of its
    /// time. `roll` is a random number from 0 to 1.
    pub(crate) fn wait(&self, age: Duration, roll: f64) -> Duration {
        let wait = self.interval.mul_f64(1.0 - JITTER + 2.0 * JITTER * roll.clamp(0.0, 1.0));
        match self.timeout.checked_sub(age) {
            Some(left) if !left.is_zero() => wait.min(left).max(SHORTEST),
            Some(_) | None => wait,
        }
    }

    /// Returns true if a scan of this age is given up when it is unfinished or its poll fails.
    pub(crate) fn is_over(&self, age: Duration) -> bool {
        age >= self.timeout
    }

    /// Returns true if a scan of this age may be unknown although it was ordered.
    pub(crate) fn may_be_unknown(age: Duration) -> bool {
        age < MAY_BE_UNKNOWN
    }
}

#[cfg(test)]
mod tests;
