//! The progress of a run, shown only on a terminal.

use indicatif::ProgressBar;

use super::ledger::Ledger;
use crate::terminal;

/// A progress bar on stderr.
#[derive(Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Creates a bar for at most `total` jobs.
    pub(super) fn new(total: u64) -> Self {
        Self { bar: terminal::progress_bar(total, "{bar:30} {pos}/{len} ended  {msg}  {elapsed}") }
    }

    /// Updates the bar.
    pub(super) fn show(&self, ledger: &Ledger) {
        self.bar.set_position(ledger.totals.ended.into());
        self.bar.set_message(format!("{} published", ledger.totals.confirmed));
    }

    /// Removes the bar.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
