//! An investigation: one refused request whose rejected path is being looked for. At most one open investigation
//! concerns a job, so that one job with many rejected paths spoils few requests; the others wait for it.

use std::collections::BTreeSet;

use genfleet_core::error::JobError;
use tokio_util::sync::CancellationToken;

use super::{
    bisection::Bisection,
    pack::{JobKey, RequestLine},
};

/// Names an investigation. Later ones have larger ids.
pub(super) type InvestigationId = u64;

#[derive(Debug)]
pub(super) struct Investigation {
    pub(super) stage: Stage,
    /// The last refusal.
    pub(super) error: JobError,
    /// The jobs that it suspects.
    pub(super) jobs: BTreeSet<JobKey>,
    /// The investigations that wait for its end.
    pub(super) waiters: Vec<InvestigationId>,
}

#[derive(Debug)]
pub(super) enum Stage {
    /// Waits for the end of another that suspects one of its jobs.
    Waiting(RefusedLines),
    /// Looks for the rejected path. There is always either a permit being waited for or a half in flight.
    Open {
        bisection: Bisection,
        /// Stops the waiting for a permit.
        ask: CancellationToken,
    },
}

/// The lines of a refused request, without what they merely covered.
#[derive(Debug)]
pub(super) struct RefusedLines {
    pub(super) lines: Vec<RequestLine>,
    /// These are all its lines.
    pub(super) is_whole: bool,
}

impl Investigation {
    pub(super) fn bisection(&mut self) -> Option<&mut Bisection> {
        match &mut self.stage {
            Stage::Open { bisection, .. } => Some(bisection),
            Stage::Waiting(_) => None,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open { .. })
    }
}
