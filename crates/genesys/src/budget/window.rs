//! One window of the budget: when it ends, what was counted in it, and how its last part is spread.

use std::time::Duration;

use tokio::time::Instant;

use crate::{budget::SendTime, limits::RESET_SLACK};

/// Between these two a window ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WindowEnd {
    /// Not before this.
    pub earliest: Instant,
    /// Not after this.
    pub latest: Instant,
}

impl WindowEnd {
    /// What `reset` says of a request sent at `sent` and answered at `now`: the API looked at its clock at some time
    /// between the two, and rounded either way.
    pub(super) fn told(sent: Instant, now: Instant, reset: Duration) -> Self {
        let earliest = (sent + reset).checked_sub(RESET_SLACK).unwrap_or(sent);
        Self { earliest, latest: now + reset + RESET_SLACK }
    }

    /// Ends this one surely before `other`? Two spans of one window overlap.
    pub(super) fn is_before(self, other: Self) -> bool {
        self.latest < other.earliest
    }
}

/// A window that is not over.
#[derive(Debug)]
pub(super) struct Window {
    /// It is over then, at the latest.
    pub end: Instant,
    /// When it ends, as far as answers told.
    pub span: Option<WindowEnd>,
    /// Requests the API counted, as far as answers told.
    pub counted: u32,
    /// Where the spreading of its last part began.
    spread: Option<Spread>,
}

#[derive(Clone, Copy, Debug)]
struct Spread {
    from: Instant,
    left: u32,
}

impl Window {
    /// A window of which nothing was told.
    pub(super) const fn assumed(end: Instant) -> Self {
        Self { end, span: None, counted: 0, spread: None }
    }

    /// No answer told anything of it.
    pub(super) const fn is_untouched(&self) -> bool {
        self.span.is_none() && self.counted == 0
    }

    /// One more answer told when it ends.
    pub(super) fn narrow(&mut self, told: WindowEnd) {
        let both = self
            .span
            .map(|known| WindowEnd { earliest: known.earliest.max(told.earliest), latest: known.latest.min(told.latest) });
        let span = both.filter(|span| span.earliest <= span.latest).unwrap_or(told);
        self.span = Some(span);
        self.end = span.latest;
    }

    /// When the next of `left` requests may go: at once above `reserve`; below, as many are kept back at any time as
    /// a straight line to the window's end says.
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
