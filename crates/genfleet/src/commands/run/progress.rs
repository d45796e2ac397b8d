//! How far a batch is, on a terminal; elsewhere nothing.

use std::{
    io::{self, IsTerminal},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar on stderr. Clones are one.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
    total: u64,
    ended: Arc<AtomicU64>,
}

impl Progress {
    /// Of a batch of `total` jobs.
    pub(super) fn new(total: u64) -> Self {
        let target = if io::stderr().is_terminal() {
            ProgressDrawTarget::stderr_with_hz(10)
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(total), target);
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} jobs  {msg}  {elapsed}") {
            bar.set_style(style);
        }
        Self { bar, total, ended: Arc::default() }
    }

    /// The jobs of the batch.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// The jobs that ended, as last shown.
    pub(super) fn ended(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }

    /// Shows how far it is.
    pub(super) fn show(&self, ended: u64, not_succeeded: u64) {
        self.ended.store(ended, Ordering::Relaxed);
        self.bar.set_position(ended);
        self.bar.set_message(format!("{not_succeeded} not succeeded"));
    }

    /// Does what writes on the terminal while the bar is out of the way.
    pub(super) fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        self.bar.suspend(write)
    }

    /// Shows that all jobs ended, and for what it still waits.
    pub(super) fn wait_for_webhooks(&self, left: u64) {
        self.bar.set_message(format!("waiting for {left} webhooks"));
    }

    /// Takes the bar away: the summary says the rest.
    pub(super) fn done(&self) {
        self.bar.finish_and_clear();
    }
}
