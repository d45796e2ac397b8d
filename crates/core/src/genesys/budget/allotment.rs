//! The process's part of the client's limit (SPEC 6.4): so many requests in any minute, whatever token they carry. No
//! answer tells where the client's window stands, so none is guessed: what was sent in the last minute counts.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use crate::genesys::{budget::Ready, limits::RESET_SLACK};

const MINUTE: Duration = Duration::from_secs(60);
/// A request counts so long: what is sent in one order may arrive in another.
const COUNTS: Duration = MINUTE.saturating_add(RESET_SLACK);
/// The last 1/5 is spread.
const RESERVE: u32 = 5;
/// What goes before the others were heard.
const FEW: u32 = 10;
/// Where nothing is allotted: how long until it is looked at again.
const NOTHING: Duration = Duration::from_secs(1);

/// How much of the client's limit is this process's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// So many requests in any minute.
    Settled(u32),
    /// The others were not heard yet: it may be so many, but no more than a few go before that.
    Unheard(u32),
}

impl Part {
    /// Requests in any minute.
    pub const fn per_minute(self) -> u32 {
        match self {
            Self::Settled(per_minute) | Self::Unheard(per_minute) => per_minute,
        }
    }

    /// Of which so many may go now.
    fn may_go(self) -> u32 {
        match self {
            Self::Settled(per_minute) => per_minute,
            Self::Unheard(per_minute) => per_minute.min(FEW),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Allotment {
    part: Part,
    /// When the requests of the last minute went, the first one first.
    sent: VecDeque<Instant>,
}

impl Allotment {
    /// So many in any minute.
    pub const fn new(per_minute: u32) -> Self {
        Self { part: Part::Settled(per_minute), sent: VecDeque::new() }
    }

    /// This is it from now on; what was sent counts on.
    pub const fn set(&mut self, part: Part) {
        self.part = part;
    }

    /// So many in any minute.
    pub const fn per_minute(&self) -> u32 {
        self.part.per_minute()
    }

    /// Requests of the last minute.
    pub fn sent(&mut self, now: Instant) -> u32 {
        while self.sent.front().is_some_and(|sent| *sent + COUNTS <= now) {
            self.sent.pop_front();
        }
        u32::try_from(self.sent.len()).unwrap_or(u32::MAX)
    }

    /// What may still go in this minute.
    pub fn left(&mut self, now: Instant) -> u32 {
        self.per_minute().saturating_sub(self.sent(now))
    }

    /// May one more go now?
    pub fn ready(&mut self, now: Instant) -> Ready {
        let per_minute = self.part.may_go();
        let left = per_minute.saturating_sub(self.sent(now));
        if left > (per_minute / RESERVE).max(1) {
            return Ready::Now;
        }
        let next = if left == 0 { self.frees(per_minute, now) } else { self.spread(per_minute, now) };
        if next <= now { Ready::Now } else { Ready::At(next) }
    }

    /// When enough of what was sent no longer counts.
    fn frees(&self, per_minute: u32, now: Instant) -> Instant {
        let too_many = self.sent.len().saturating_sub(usize::try_from(per_minute).unwrap_or(usize::MAX));
        self.sent.get(too_many).map_or(now + NOTHING, |sent| *sent + COUNTS)
    }

    /// The last ones keep the average's distance.
    fn spread(&self, per_minute: u32, now: Instant) -> Instant {
        self.sent.back().map_or(now, |last| *last + COUNTS / per_minute.max(1))
    }

    /// One goes now.
    pub fn took(&mut self, now: Instant) {
        self.sent.push_back(now);
    }

    /// The one that was to go then did not.
    pub fn unsent(&mut self, taken: Instant) {
        if let Some(index) = self.sent.iter().rposition(|sent| *sent == taken) {
            self.sent.remove(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Sends all that goes between `from` and `to`; when each went.
    fn saturate(allotment: &mut Allotment, from: Instant, to: Instant) -> Vec<Instant> {
        let (mut sent, mut now) = (Vec::new(), from);
        while now < to {
            match allotment.ready(now) {
                Ready::Now => {
                    allotment.took(now);
                    sent.push(now);
                }
                Ready::At(next) => {
                    assert!(next > now, "it would spin");
                    now = next;
                }
            }
        }
        sent
    }

    proptest! {
        #[test]
        fn no_minute_has_more_than_allotted_and_a_saturated_one_has_nearly_all(per_minute in 1_u32..400) {
            let (mut allotment, start) = (Allotment::new(per_minute), Instant::now());
            let sent = saturate(&mut allotment, start, start + seconds(305));
            for from in &sent {
                let within = sent.iter().filter(|at| **at >= *from && **at < *from + MINUTE).count();
                prop_assert!(within <= per_minute as usize, "{within} of {per_minute}");
            }
            prop_assert!(sent.len() >= per_minute as usize * 4, "{} of {per_minute} a minute", sent.len());
        }
    }

    #[test]
    fn a_part_that_shrinks_counts_what_went_before_and_one_that_grows_is_there_at_once() {
        let (mut allotment, start) = (Allotment::new(100), Instant::now());
        for _ in 0..60 {
            allotment.took(start);
        }
        allotment.set(Part::Settled(50));
        assert_eq!((allotment.left(start), allotment.ready(start)), (0, Ready::At(start + seconds(61))));
        allotment.set(Part::Settled(200));
        assert_eq!((allotment.left(start), allotment.ready(start)), (140, Ready::Now));
        assert_eq!(allotment.left(start + seconds(61)), 200);
    }

    #[test]
    fn before_the_others_were_heard_a_few_go_and_no_more() {
        let (mut allotment, start) = (Allotment::new(0), Instant::now());
        allotment.set(Part::Unheard(300));
        let sent = saturate(&mut allotment, start, start + seconds(60));
        assert_eq!((sent.len(), allotment.left(start + seconds(60))), (FEW as usize, 290));
        allotment.set(Part::Settled(300));
        assert_eq!(allotment.ready(start + seconds(60)), Ready::Now);
    }

    #[test]
    fn where_nothing_is_allotted_nothing_goes_and_it_is_looked_at_again() {
        let (mut allotment, now) = (Allotment::new(0), Instant::now());
        assert_eq!(allotment.ready(now), Ready::At(now + NOTHING));
    }
}
