//! Counts in tests how many jobs, requests, investigations and paths an event touches.

#[cfg(test)]
thread_local! {
    static VISITS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Counts one visit; does nothing outside tests.
pub(super) fn count() {
    #[cfg(test)]
    VISITS.set(VISITS.get() + 1);
}

/// Returns the visits of this thread while `event` runs.
#[cfg(test)]
pub(super) fn during(event: impl FnOnce()) -> usize {
    let before = VISITS.get();
    event();
    VISITS.get() - before
}
