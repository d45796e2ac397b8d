//! The linger rule: when a request is closed, apart from the budget. Pure: the times are passed in.
//!
//! - Full (as many different paths wait as a request takes): at once.
//! - A job alone in the process: at once. For ten lingers after several jobs ended together, a job is not alone, because
//!   new jobs will follow.
//! - Otherwise as soon as no path came for one linger (for three within those ten lingers, since jobs are settled and
//!   delivered in bursts), and at the latest ten lingers after the oldest that waits. While jobs trickle in, waiting on makes
//!   full requests of them; ten lingers of 20 ms are one request in 200 ms, which is just what the default budget
//!   of 300 a minute sustains.
//! - Paths that came back from an investigation wait for further paths until it is over.

use std::time::Duration;

use tokio::time::Instant;

/// The oldest path waits at most so many lingers.
const MAX_LINGERS: u32 = 10;
/// A pause of so many lingers ends a trickle in company.
const LINGERS_IN_COMPANY: u32 = 3;

/// The waiting paths at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct WaitingPaths {
    /// Different paths that wait.
    pub(super) distinct: usize,
    /// Jobs in the coalescer, also those that only wait for an answer.
    pub(super) jobs: usize,
    /// The arrival of the oldest; `None` if all that wait are in no hurry.
    pub(super) oldest: Option<Instant>,
}

/// The time to close a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum CloseTime {
    /// Send now.
    Now,
    /// Then, if nothing changes.
    At(Instant),
    /// Wait until something changes.
    Open,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Linger {
    /// Paths in a full request.
    full: usize,
    quiet: Duration,
    newest: Instant,
    company_until: Instant,
}

impl Linger {
    pub(super) fn new(full: usize, linger: Duration, now: Instant) -> Self {
        Self { full, quiet: linger, newest: now, company_until: now }
    }

    pub(super) fn note_arrival(&mut self, now: Instant) {
        self.newest = now;
    }

    /// Records that several jobs left together.
    pub(super) fn note_shared_end(&mut self, now: Instant) {
        self.company_until = now + MAX_LINGERS * self.quiet;
    }

    /// Returns when the next request is closed.
    pub(super) fn close_time(&self, waiting: WaitingPaths, now: Instant) -> CloseTime {
        if waiting.distinct == 0 {
            return CloseTime::Open;
        }
        if waiting.distinct >= self.full || self.quiet.is_zero() {
            return CloseTime::Now;
        }
        let Some(oldest) = waiting.oldest else { return CloseTime::Open };
        let in_company = now < self.company_until;
        if waiting.jobs == 1 && !in_company {
            return CloseTime::Now;
        }
        let pause = if in_company { LINGERS_IN_COMPANY * self.quiet } else { self.quiet };
        let close = (self.newest + pause).min(oldest + MAX_LINGERS * self.quiet);
        if close <= now { CloseTime::Now } else { CloseTime::At(close) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINGER: Duration = Duration::from_millis(20);

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn the_rule_as_a_table() {
        let start = Instant::now();
        let mut rule = Linger::new(100, LINGER, start);
        rule.note_arrival(start + ms(50));
        let waiting = |distinct, jobs, oldest: u64| WaitingPaths { distinct, jobs, oldest: Some(start + ms(oldest)) };
        let table = [
            ("nothing waits", waiting(0, 3, 50), 50, CloseTime::Open),
            ("full", waiting(100, 3, 50), 50, CloseTime::Now),
            ("alone", waiting(7, 1, 50), 50, CloseTime::Now),
            ("in company", waiting(7, 2, 50), 50, CloseTime::At(start + ms(70))),
            ("in company, quiet", waiting(7, 2, 50), 70, CloseTime::Now),
            ("a trickle", waiting(7, 2, 0), 50, CloseTime::At(start + ms(70))),
            ("in no hurry", WaitingPaths { oldest: None, ..waiting(7, 1, 0) }, 500, CloseTime::Open),
            ("in no hurry but full", WaitingPaths { oldest: None, ..waiting(100, 1, 0) }, 500, CloseTime::Now),
        ];
        for (name, waiting, at, expected) in table {
            assert_eq!(rule.close_time(waiting, start + ms(at)), expected, "{name}");
        }
    }

    #[test]
    fn a_trickle_that_never_ends_does_not_hold_a_path_for_ever() {
        let start = Instant::now();
        let mut rule = Linger::new(100, LINGER, start);
        let waiting = WaitingPaths { distinct: 30, jobs: 30, oldest: Some(start) };
        for at in 0..200 {
            rule.note_arrival(start + ms(at));
            assert_ne!(rule.close_time(waiting, start + ms(at)), CloseTime::Now, "{at}");
        }
        assert_eq!(rule.close_time(waiting, start + ms(200)), CloseTime::Now);
    }

    #[test]
    fn the_first_that_follows_many_is_not_alone() {
        let start = Instant::now();
        let mut rule = Linger::new(100, LINGER, start);
        rule.note_shared_end(start);
        rule.note_arrival(start + ms(5));
        let waiting = WaitingPaths { distinct: 1, jobs: 1, oldest: Some(start + ms(5)) };
        assert_eq!(rule.close_time(waiting, start + ms(5)), CloseTime::At(start + ms(65)));
        rule.note_arrival(start + ms(300));
        assert_eq!(rule.close_time(waiting, start + ms(300)), CloseTime::Now);
    }

    #[test]
    fn without_sharing_nothing_lingers() {
        let start = Instant::now();
        let rule = Linger::new(100, Duration::ZERO, start);
        assert_eq!(rule.close_time(WaitingPaths { distinct: 1, jobs: 9, oldest: Some(start) }, start), CloseTime::Now);
    }
}
