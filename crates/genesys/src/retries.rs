//! The short retries of one call: how many there are, and how long each waits.

use std::time::Duration;

use backoff::{ExponentialBackoff, backoff::Backoff};
use tokio::time::Instant;

use crate::{error::ApiError, request::RetryMode};
use genfleet_job::{error::ErrorClass, retry};

/// Maximum number of short retries of one call.
const RETRIES: u32 = 3;
/// Maximum time between the first request and a retry.
const RETRY_TIME: Duration = Duration::from_secs(10);

/// The requests and retries that one call has used.
pub(crate) struct CallRetries {
    pub(crate) requests: u32,
    left: u32,
    waits: ExponentialBackoff,
    first_sent: Option<Instant>,
    has_replaced_token: bool,
}

impl CallRetries {
    pub(crate) fn new(mode: RetryMode) -> Self {
        let left = match mode {
            RetryMode::Short => RETRIES,
            RetryMode::None => 0,
        };
        Self { requests: 0, left, waits: retry::short(), first_sent: None, has_replaced_token: false }
    }

    pub(crate) fn note_sent(&mut self) {
        self.requests += 1;
        self.first_sent.get_or_insert_with(Instant::now);
    }

    /// Excludes a pause of the API from the time of the call.
    pub(crate) fn restart_clock(&mut self) {
        self.first_sent = None;
    }

    /// Returns true if the call may ask for another token: once.
    pub(crate) fn take_token_replacement(&mut self) -> bool {
        !std::mem::replace(&mut self.has_replaced_token, true)
    }

    /// Returns the wait before the next retry; `None` if there is none.
    pub(crate) fn next_wait(&mut self, error: &ApiError) -> Option<Duration> {
        if error.class != ErrorClass::Transient || self.left == 0 {
            return None;
        }
        let began = *self.first_sent.get_or_insert_with(Instant::now);
        let wait = self.waits.next_backoff()?.max(error.retry_after);
        self.left -= 1;
        (began.elapsed() + wait < RETRY_TIME).then_some(wait)
    }
}
