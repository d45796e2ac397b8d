//! The pace of polls: when a scan is asked for next, how long it may say "not yet", how long it may not be there.
//! Pure.
//!
//! **How the pace stretches.** Every scan asks for its next poll after the interval, whatever the budget. A poll that
//! is due waits in the resume queue; a worker takes it from there in the order of arrival, and it goes when the budget
//! lets it. So with `N` scans waiting and `R` requests a minute to spare, each is polled every `N / R` minutes where
//! that is longer than the interval: evenly, since the line has one end, and with no 429, since nothing passes by the
//! budget. New orders stand in the other line, and the worker takes from both in turns.
//!
//! A longer wait chosen from the observed lateness would change nothing but the place where a scan waits: a round
//! through the broker costs exactly one request either way, so there are never more rounds than budget. But it would
//! be late when the budget grows, and less even. Hence there is no such rule, and no memory of lateness.
//!
//! The jitter keeps scans that were ordered in one breath from coming back in one breath.

use std::time::Duration;

use genfleet_core::options::ConfigError;

/// Reads lag writes: for so long after its order a scan may be unknown.
const MAY_BE_UNKNOWN: Duration = Duration::from_secs(15);
/// The wait is longer or shorter by up to this share.
const JITTER: f64 = 0.1;
/// A last poll right before the end of a scan's time tells nothing: it comes at the end.
const SHORTEST: Duration = Duration::from_millis(1);

/// How often scans are asked for, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pace {
    interval: Duration,
    timeout: Duration,
}

impl Pace {
    /// A poll about every `interval`; a scan without a verdict after `timeout` is given up.
    pub(crate) fn new(interval: Duration, timeout: Duration) -> Result<Self, ConfigError> {
        if interval.is_zero() {
            return Err(ConfigError::new("--poll-interval: must be longer than 0"));
        }
        Ok(Self { interval, timeout })
    }

    /// How long a scan of this age waits for its next poll: about the interval, but not past the end of its time.
    /// `roll` is 0–1, chosen by chance.
    pub(crate) fn wait(&self, age: Duration, roll: f64) -> Duration {
        let wait = self.interval.mul_f64(1.0 - JITTER + 2.0 * JITTER * roll.clamp(0.0, 1.0));
        match self.timeout.checked_sub(age) {
            Some(left) if !left.is_zero() => wait.min(left).max(SHORTEST),
            Some(_) | None => wait,
        }
    }

    /// Is a scan of this age given up if it says "not yet", and is a poll that fails the job's failure?
    pub(crate) fn is_over(&self, age: Duration) -> bool {
        age >= self.timeout
    }

    /// May a scan of this age be unknown though it was ordered?
    pub(crate) fn may_be_unknown(age: Duration) -> bool {
        age < MAY_BE_UNKNOWN
    }
}

#[cfg(test)]
mod tests;
