//! Rate limits: fixed windows for each token and for each client.
//!
//! A window starts with the first request after the end of the previous one. The time is a parameter. The caller
//! decides how a request over the limit is answered.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::errors::LimitHit;
use crate::faults::LimitOf;
use crate::options::SimulatorOptions;

const TOKEN_KEY: &str = "token.rate.per.minute";
/// The name of the platform's limit for all tokens of a client.
const CLIENT_KEY: &str = "org.app.user.rate.per.minute";

/// The state of a token's window, for the `inin-ratelimit-…` headers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RateLimitStatus {
    pub(crate) allowed: u32,
    pub(crate) count: u32,
    ends: Instant,
}

impl RateLimitStatus {
    /// Remaining whole seconds, rounded down as on the platform.
    pub(crate) fn seconds_left(&self, now: Instant) -> u64 {
        self.ends.saturating_duration_since(now).as_secs()
    }

    /// Whole seconds after which a request is accepted.
    pub(crate) fn seconds_to_wait(&self, now: Instant) -> u64 {
        round_up(self.ends.saturating_duration_since(now))
    }
}

/// A request over a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exceeded {
    pub(crate) limit: LimitHit,
    pub(crate) seconds_to_wait: u64,
}

#[derive(Debug)]
struct Window {
    ends: Instant,
    count: u32,
}

/// All windows, and the highest counts.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    tokens: HashMap<String, Window>,
    clients: HashMap<String, Window>,
    most_in_token_window: u32,
    most_in_client_window: u32,
}

impl Limits {
    /// Counts a request, even if it is over the limit.
    pub(crate) fn take(
        &mut self,
        token: &str,
        client: &str,
        options: &SimulatorOptions,
        now: Instant,
    ) -> Result<RateLimitStatus, (RateLimitStatus, Exceeded)> {
        let of_token = count(&mut self.tokens, token, options.requests_per_minute, options.rate_window, now);
        let of_client = count(&mut self.clients, client, options.client_requests_per_minute, options.rate_window, now);
        self.most_in_token_window = self.most_in_token_window.max(of_token.count);
        self.most_in_client_window = self.most_in_client_window.max(of_client.count);
        for (rate_limit, key) in [(of_token, TOKEN_KEY), (of_client, CLIENT_KEY)] {
            if rate_limit.count > rate_limit.allowed {
                let limit = LimitHit { key, value: rate_limit.allowed };
                return Err((of_token, Exceeded { limit, seconds_to_wait: rate_limit.seconds_to_wait(now) }));
            }
        }
        Ok(of_token)
    }

    /// Returns the state of a token's window, without counting a request.
    pub(crate) fn rate_limit(&self, token: Option<&str>, options: &SimulatorOptions, now: Instant) -> RateLimitStatus {
        let window = token.and_then(|token| self.tokens.get(token)).filter(|window| window.ends > now);
        let (count, ends) = window.map_or((0, now + options.rate_window), |window| (window.count, window.ends));
        RateLimitStatus { allowed: options.requests_per_minute, count, ends }
    }

    /// Returns the limit that an injected 429 names.
    pub(crate) fn limit_hit(limit: Option<LimitOf>, options: &SimulatorOptions) -> LimitHit {
        match limit.unwrap_or(LimitOf::Token) {
            LimitOf::Token => LimitHit { key: TOKEN_KEY, value: options.requests_per_minute },
            LimitOf::Client => LimitHit { key: CLIENT_KEY, value: options.client_requests_per_minute },
        }
    }

    /// The largest number of requests in a window, by token and by client.
    pub(crate) fn most_in_any_window(&self) -> (u32, u32) {
        (self.most_in_token_window, self.most_in_client_window)
    }

    /// Resets the largest counts, but not the current windows.
    pub(crate) fn forget_most(&mut self) {
        self.most_in_token_window = 0;
        self.most_in_client_window = 0;
    }
}

fn count(
    windows: &mut HashMap<String, Window>,
    key: &str,
    allowed: u32,
    length: Duration,
    now: Instant,
) -> RateLimitStatus {
    let fresh = || Window { ends: now + length, count: 0 };
    let window = windows.entry(key.to_owned()).or_insert_with(fresh);
    if window.ends <= now {
        *window = fresh();
    }
    window.count = window.count.saturating_add(1);
    RateLimitStatus { allowed, count: window.count, ends: window.ends }
}

fn round_up(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(per_token: u32, per_client: u32) -> SimulatorOptions {
        SimulatorOptions {
            requests_per_minute: per_token,
            client_requests_per_minute: per_client,
            ..SimulatorOptions::default()
        }
    }

    #[test]
    fn a_window_begins_with_its_first_request_and_ends_a_window_later() {
        let (options, start) = (options(2, 100), Instant::now());
        let mut limits = Limits::default();
        let first = limits.take("a", "client", &options, start).unwrap();
        assert_eq!((first.count, first.seconds_left(start)), (1, 60));
        let later = start + Duration::from_millis(30_500);
        let second = limits.take("a", "client", &options, later).unwrap();
        assert_eq!((second.count, second.seconds_left(later), second.seconds_to_wait(later)), (2, 29, 30));
        let (rate_limit, exceeded) = limits.take("a", "client", &options, later).unwrap_err();
        assert_eq!((rate_limit.count, exceeded.seconds_to_wait, exceeded.limit.key), (3, 30, TOKEN_KEY));
        let next = start + Duration::from_secs(60);
        assert_eq!(limits.take("a", "client", &options, next).unwrap().count, 1);
        assert_eq!(limits.most_in_any_window(), (3, 3));
    }

    #[test]
    fn tokens_of_one_client_share_its_limit() {
        let (options, now) = (options(2, 3), Instant::now());
        let mut limits = Limits::default();
        for token in ["a", "a", "b"] {
            limits.take(token, "client", &options, now).unwrap();
        }
        let (rate_limit, exceeded) = limits.take("b", "client", &options, now).unwrap_err();
        assert_eq!(rate_limit.count, 2);
        assert_eq!(exceeded.limit, LimitHit { key: CLIENT_KEY, value: 3 });
        limits.take("c", "another", &options, now).unwrap();
    }
}
