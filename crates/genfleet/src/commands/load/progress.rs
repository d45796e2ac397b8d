//! How far a run is, on a terminal; elsewhere nothing.

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::ledger::Ledger;

/// A bar on stderr.
#[derive(Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Of a run of at most `total` jobs.
    pub(super) fn new(total: u64) -> Self {
        let target = if io::stderr().is_terminal() {
            ProgressDrawTarget::stderr_with_hz(10)
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(total), target);
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} ended  {msg}  {elapsed}") {
            bar.set_style(style);
        }
        Self { bar }
    }

    /// Shows how far it is.
    pub(super) fn show(&self, ledger: &Ledger) {
        self.bar.set_position(ledger.ended_count().into());
        self.bar.set_message(format!("{} published", ledger.confirmed_count()));
    }

    /// Takes the bar away: the summary says the rest.
    pub(super) fn done(&self) {
        self.bar.finish_and_clear();
    }
}
