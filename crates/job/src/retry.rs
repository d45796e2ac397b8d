//! Delays that several crates need: between attempts of a job (pure, in the queue), between looks at a state, between
//! retries of one request and between connection attempts to the broker (in memory, with full jitter).

use std::{iter, time::Duration};

use backoff::{ExponentialBackoff, ExponentialBackoffBuilder, backoff::Backoff};

/// The rule for the wait of a job between attempts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RetryPolicy {
    /// `initial · 4ⁿ`, between three quarters and whole, at most `longest` (SPEC 5.2).
    Growing {
        /// The wait after the first failed attempt.
        initial: Duration,
        /// The longest wait, unless the API asks for more.
        longest: Duration,
    },
    /// The listed waits one after the other, then the last again; each up to a tenth longer (SPEC 7).
    Listed {
        /// The waits.
        waits: &'static [Duration],
        /// A factor for all waits.
        scale: f64,
    },
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self::Growing { initial: Duration::from_secs(1), longest: Duration::from_secs(3600) }
    }
}

impl RetryPolicy {
    /// Computes the wait after `failed` attempts (from 1). `jitter` is a random number from 0 to 1; `at_least` is what
    /// the API asked for (`Retry-After`).
    pub fn delay(&self, failed: u32, jitter: f64, at_least: Duration) -> Duration {
        let (before, jitter) = (failed.saturating_sub(1), jitter.clamp(0.0, 1.0));
        let wait = match self {
            Self::Growing { initial, longest } => {
                let whole = initial.saturating_mul(4_u32.saturating_pow(before)).min(*longest);
                whole.mul_f64(0.75 + 0.25 * jitter)
            }
            Self::Listed { waits, scale } => {
                let index = usize::try_from(before).unwrap_or(usize::MAX);
                let listed = waits.get(index).or(waits.last()).copied().unwrap_or_default();
                listed.mul_f64(scale * (1.0 + 0.1 * jitter))
            }
        };
        wait.max(at_least)
    }
}

/// The wait before the next look at a state that changes by itself, and where to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextLook {
    /// Waits in memory, within the attempt.
    Here(Duration),
    /// Waits in the queue, after which the job is redelivered.
    InQueue(Duration),
}

/// Looks that are made within the attempt.
const LOOKS_HERE: u32 = 10;
const LOOK_HERE: Duration = Duration::from_secs(2);
const FIRST_IN_QUEUE: Duration = Duration::from_secs(5);
const LONGEST_IN_QUEUE: Duration = Duration::from_secs(60);

/// Computes the wait before the next look, after `looks` of them: every 2 s, after ten of them in the queue for 5 s, 10
/// s, 20 s and so on, up to a minute. The first look, too, waits 2 s: an earlier one may see an old state and make it
/// stay.
pub fn next_look(looks: u32) -> NextLook {
    match looks.checked_sub(LOOKS_HERE) {
        None => NextLook::Here(LOOK_HERE),
        Some(in_queue) => {
            let wait = FIRST_IN_QUEUE.saturating_mul(2_u32.saturating_pow(in_queue));
            NextLook::InQueue(wait.min(LONGEST_IN_QUEUE))
        }
    }
}

/// Random waits from zero to a limit that doubles from `first` to `longest` (full jitter). Never ends.
pub fn full_jitter(first: Duration, longest: Duration) -> ExponentialBackoff {
    // The crate draws from (1 ± factor) around an interval: half the bound, factor 1, is zero to the bound.
    ExponentialBackoffBuilder::new()
        .with_initial_interval(first / 2)
        .with_max_interval(longest / 2)
        .with_multiplier(2.0)
        .with_randomization_factor(1.0)
        .with_max_elapsed_time(None)
        .build()
}

/// The waits between the short retries of one request (SPEC 5.2).
pub fn short() -> ExponentialBackoff {
    full_jitter(Duration::from_millis(250), Duration::from_secs(4))
}

/// The waits between the rounds of a handler that retries within one attempt. Never ends.
pub fn rounds() -> impl Iterator<Item = Duration> + Send {
    let mut waits = short();
    iter::from_fn(move || waits.next_backoff())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_state_is_looked_at_every_two_seconds_and_then_ever_more_rarely_from_the_queue() {
        assert!((0..10).all(|looks| next_look(looks) == NextLook::Here(Duration::from_secs(2))));
        let in_queue = [10, 11, 12, 13, 14, 1000].map(next_look);
        let expected = [5, 10, 20, 40, 60, 60].map(|seconds| NextLook::InQueue(Duration::from_secs(seconds)));
        assert_eq!(in_queue, expected);
    }

    proptest! {
        #[test]
        fn a_delay_lies_between_three_quarters_and_whole(failed in 1_u32..60, jitter in 0.0_f64..=1.0) {
            let policy = RetryPolicy::default();
            let whole = Duration::from_secs(4_u64.saturating_pow(failed - 1).min(3600));
            let delay = policy.delay(failed, jitter, Duration::ZERO);
            prop_assert!(delay >= whole.mul_f64(0.75) && delay <= whole, "{delay:?} of {whole:?}");
        }

        #[test]
        fn a_delay_is_never_shorter_than_the_api_asked_for(failed in 1_u32..60, asked in 0_u64..100_000) {
            let asked = Duration::from_secs(asked);
            prop_assert!(RetryPolicy::default().delay(failed, 0.0, asked) >= asked);
        }
    }

    #[test]
    fn seven_waits_outlast_an_outage_of_an_hour() {
        let policy = RetryPolicy::default();
        let total: Duration = (1..8).map(|failed| policy.delay(failed, 0.0, Duration::ZERO)).sum();
        assert!(total > Duration::from_secs(3600), "{total:?}");
    }

    #[test]
    fn full_jitter_stays_in_its_bounds_and_never_ends() {
        let mut waits = full_jitter(Duration::from_millis(500), Duration::from_secs(30));
        for _ in 0..200 {
            let wait = waits.next_backoff();
            assert!(wait.is_some_and(|wait| wait <= Duration::from_secs(30)), "{wait:?}");
        }
    }
}
