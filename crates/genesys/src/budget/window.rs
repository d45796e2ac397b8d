//! One window of the budget: when it ends, what was counted in it, and how its last part is spread.

use std::time::Duration;

use tokio::time::Instant;

use crate::{limits::RESET_SLACK, send_time::SendTime};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WindowEnd {
    pub earliest: Instant,
    pub latest: Instant,
}

impl WindowEnd {
    /// Estimates the end by the `reset` of a request sent at `sent` and answered at `now`: the API looked at its clock
    /// at some time between the two, and rounded either way.
    pub(super) fn estimate(sent: Instant, now: Instant, reset: Duration) -> Self {
        let earliest = (sent + reset).checked_sub(RESET_SLACK).unwrap_or(sent);
        Self { earliest, latest: now + reset + RESET_SLACK }
    }

    /// Returns true if this end is certainly before `other`. Two estimates of one window overlap.
    pub(super) fn is_before(self, other: Self) -> bool {
        self.latest < other.earliest
    }
}

#[derive(Debug)]
pub(super) struct Window {
    /// Its end, at the latest.
    pub end: Instant,
    /// The bounds of its end, as far as answers named them.
    pub ends: Option<WindowEnd>,
    /// Requests that the API counted, as far as answers named a count.
    pub counted: u32,
    /// The begin of the spreading of its last part.
    spread: Option<Spread>,
}

#[derive(Clone, Copy, Debug)]
struct Spread {
    from: Instant,
    left: u32,
}

impl Window {
    /// Begins a window that no answer described yet.
    pub(super) const fn with_assumed_end(end: Instant) -> Self {
        Self { end, ends: None, counted: 0, spread: None }
    }

    /// Returns true if no answer described it yet.
    pub(super) const fn is_untouched(&self) -> bool {
        self.ends.is_none() && self.counted == 0
    }

    /// Narrows the bounds of its end by one more estimate.
    pub(super) fn narrow(&mut self, estimate: WindowEnd) {
        let both = self.ends.map(|known| WindowEnd {
            earliest: known.earliest.max(estimate.earliest),
            latest: known.latest.min(estimate.latest),
        });
        let ends = both.filter(|ends| ends.earliest <= ends.latest).unwrap_or(estimate);
        self.ends = Some(ends);
        self.end = ends.latest;
    }

    /// Returns when the next of `left` requests may go: at once above `reserve`; below, as many are kept back at any
    /// time as a straight line to the window's end says.
    pub(super) fn spread(&mut self, now: Instant, left: u32, reserve: u32) -> SendTime {
        if left > reserve {
            self.spread = None;
            return SendTime::Now;
        }
        let spread = *self.spread.get_or_insert(Spread { from: now, left });
        let share = (f64::from(left) / f64::from(spread.left)).min(1.0);
        let next = self.end - (self.end - spread.from).mul_f64(share);
        if next <= now { SendTime::Now } else { SendTime::At(next) }
    }
}
