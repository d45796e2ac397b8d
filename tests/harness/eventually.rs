//! Waits for an expected result. This is the only place where tests let time pass.

use std::{fmt::Display, panic::Location, time::Duration};

use tokio::time::{Instant, sleep, timeout_at};

const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// The result of a check: success with a value, or not yet, with what was found instead.
pub trait Verdict {
    /// The type of the value.
    type Value;

    /// Returns the value, or what was found instead.
    fn verdict(self) -> Result<Self::Value, String>;
}

impl Verdict for bool {
    type Value = ();

    fn verdict(self) -> Result<(), String> {
        self.then_some(()).ok_or_else(|| "still not so".to_owned())
    }
}

impl<T> Verdict for Option<T> {
    type Value = T;

    fn verdict(self) -> Result<T, String> {
        self.ok_or_else(|| "still nothing".to_owned())
    }
}

impl<T, E: Display> Verdict for Result<T, E> {
    type Value = T;

    fn verdict(self) -> Result<T, String> {
        self.map_err(|error| format!("{error:#}"))
    }
}

/// Returns a duration in whole seconds.
pub fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Repeats a check every 20 ms until it succeeds (`true`, `Some`, `Ok`) and returns its value. After `timeout` it
/// panics with `what` did not happen, the place in the test, and the result of the last check.
#[track_caller]
pub fn eventually<V: Verdict>(
    timeout: Duration,
    what: impl Display,
    look: impl AsyncFnMut() -> V,
) -> impl Future<Output = V::Value> {
    let caller = Location::caller();
    async move {
        match poll_until(Instant::now() + timeout, look).await {
            Ok(value) => value,
            Err(last) => panic!("at {caller}: after {timeout:?} not so: {what} ({last})"),
        }
    }
}

async fn poll_until<V: Verdict>(deadline: Instant, mut look: impl AsyncFnMut() -> V) -> Result<V::Value, String> {
    let mut last = "the first look did not end".to_owned();
    loop {
        match timeout_at(deadline, look()).await.map(V::verdict) {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(seen)) => last = seen,
            Err(_) => return Err(last),
        }
        if Instant::now() >= deadline {
            return Err(last);
        }
        between_looks().await;
    }
}

/// The only sleep of the tests.
pub(crate) async fn between_looks() {
    sleep(BETWEEN_LOOKS).await;
}
