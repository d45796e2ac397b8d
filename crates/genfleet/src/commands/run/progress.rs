//! The progress of a batch, shown only on a terminal.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use indicatif::ProgressBar;

use crate::terminal;

/// A progress bar on stderr. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
    /// Number of jobs of the batch.
    pub total: u64,
    ended: Arc<AtomicU64>,
}

impl Progress {
    /// Creates a bar for a batch of `total` jobs.
    pub(super) fn new(total: u64) -> Self {
        let bar = terminal::progress_bar(total, "{bar:30} {pos}/{len} jobs  {msg}  {elapsed}");
        Self { bar, total, ended: Arc::default() }
    }

    /// Number of jobs that had ended at the last call of [`Self::show`].
    pub(super) fn ended(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }

    /// Updates the bar.
    pub(super) fn show(&self, ended: u64, not_succeeded: u64) {
        self.ended.store(ended, Ordering::Relaxed);
        self.bar.set_position(ended);
        self.bar.set_message(format!("{not_succeeded} not succeeded"));
    }

    /// Hides the bar while `write` prints on the terminal.
    pub(super) fn suspend<T>(&self, write: impl FnOnce() -> T) -> T {
        self.bar.suspend(write)
    }

    /// Shows that all jobs have ended and `left` webhooks are still to be delivered.
    pub(super) fn wait_for_webhooks(&self, left: u64) {
        self.bar.set_message(format!("waiting for {}", terminal::count(left, "webhook")));
    }

    /// Removes the bar.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
