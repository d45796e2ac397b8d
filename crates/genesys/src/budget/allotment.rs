//! The process's part of the client's limit (SPEC 6.4): so many requests a minute, whatever token they carry, at an even
//! pace with a small reserve.
//!
//! No answer tells where the client's window stands, and a new process cannot know what one that died a second ago sent
//! with a token of its own. So nobody sends its minute at once: each keeps to its pace, and the parts sum up to the limit.
//! Then the pace of the whole fleet is the limit at any moment, whoever comes, goes or is replaced, and what others have
//! spent need not be known. What goes beyond the pace is a reserve, one request and [`RESERVE`] of the part, and what a
//! new process may send before it has heard the others, [`AT_FIRST`] of the limit; that counts against its reserve then.
//!
//! So a part that has enough to do sends 96 % of itself in a minute, and no part ever sends more than itself: not even if a
//! minute's requests arrive within a second less, or took a second more. What changes the fleet adds little: a process that
//! is new has [`AT_FIRST`], and whoever it replaces, or it itself, sent nothing for longer than that takes at the pace; until
//! it is heard by the others it waits. That is what the 105 % of the contract are for, and what the simulation in
//! [`crate::fleet::roster`] measures.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use crate::{budget::SendTime, limits::RESET_SLACK};

const MINUTE: Duration = Duration::from_secs(60);
/// A request counts so long: what is sent in one order may arrive in another.
const COUNTS: Duration = MINUTE.saturating_add(RESET_SLACK);
/// Of the part, what the pace uses.
const PACE: f64 = 0.98;
/// Of the part, what may go at once after a rest, beside one request.
const RESERVE: f64 = 0.02;
/// Of the client's limit, 1/100 may go before the others were heard.
const AT_FIRST: u32 = 100;
/// Before the others were heard: how long until it is looked at again.
const UNHEARD: Duration = Duration::from_secs(1);
/// Of a request; less is a matter of rounding.
const NEARLY: f64 = 1e-6;

/// How much of the client's limit is this process's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LimitShare {
    /// Requests in any minute.
    pub per_minute: u32,
    /// Of which so many may go at once.
    pub at_once: f64,
    /// Whether it is known who else is there.
    pub peers: Peers,
}

/// Whether it is known who else is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peers {
    /// It is: the pace holds.
    Heard,
    /// Not yet: what may go at once goes, and no more.
    Unheard,
}

impl LimitShare {
    /// `per_minute` of a client's limit of which each of all that are alive has at least `even`.
    pub fn heard(per_minute: u32, even: u32) -> Self {
        let more = f64::from(per_minute.min(even).saturating_sub(1));
        let at_once = more.mul_add(RESERVE, 1.0);
        Self { per_minute: per_minute.max(1), at_once, peers: Peers::Known }
    }

    /// The whole limit: nobody else is there.
    pub fn alone(limit: u32) -> Self {
        Self::heard(limit, limit)
    }

    /// A first piece of the limit, until the others are heard.
    pub fn unheard(limit: u32) -> Self {
        Self { per_minute: limit.max(1), at_once: f64::from((limit / AT_FIRST).max(1)), peers: Peers::Unknown }
    }

    /// Requests a second: never less than one a minute.
    fn pace(self) -> f64 {
        (PACE * f64::from(self.per_minute) / COUNTS.as_secs_f64()).max(1.0 / MINUTE.as_secs_f64())
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Allotment {
    part: LimitShare,
    /// Requests that the pace has not made up for, at `at`.
    ahead: f64,
    at: Option<Instant>,
    /// When the requests of the last minute went, the first one first: to be told, nothing follows from it.
    sent: VecDeque<Instant>,
}

impl Allotment {
    /// All of a limit.
    pub(super) fn new(limit: u32) -> Self {
        Self { part: LimitShare::alone(limit), ahead: 0.0, at: None, sent: VecDeque::new() }
    }

    /// This is it from now on; what was sent counts on.
    pub(super) fn set(&mut self, part: LimitShare, now: Instant) {
        self.catch_up(now);
        self.part = part;
    }

    /// So many in any minute.
    pub(super) const fn per_minute(&self) -> u32 {
        self.part.per_minute
    }

    /// Requests of the last minute.
    pub(super) fn sent(&mut self, now: Instant) -> u32 {
        while self.sent.front().is_some_and(|sent| *sent + COUNTS <= now) {
            self.sent.pop_front();
        }
        u32::try_from(self.sent.len()).unwrap_or(u32::MAX)
    }

    /// What may still go in this minute.
    pub(super) fn left(&mut self, now: Instant) -> u32 {
        self.per_minute().saturating_sub(self.sent(now))
    }

    /// May one more go now?
    pub(super) fn ready(&mut self, now: Instant) -> SendTime {
        self.catch_up(now);
        let too_many = self.ahead + 1.0 - self.part.at_once;
        match self.share.peers {
            _ if too_many <= NEARLY => SendTime::Now,
            Peers::Known => SendTime::At(now + Duration::from_secs_f64(too_many / self.part.pace())),
            Peers::Unknown => SendTime::At(now + UNHEARD),
        }
    }

    /// One goes now.
    pub(super) fn took(&mut self, now: Instant) {
        self.catch_up(now);
        self.ahead += 1.0;
        self.sent(now);
        self.sent.push_back(now);
    }

    /// The one that was to go then did not.
    pub(super) fn unsent(&mut self, taken: Instant) {
        if let Some(index) = self.sent.iter().rposition(|sent| *sent == taken) {
            self.sent.remove(index);
            self.ahead = (self.ahead - 1.0).max(0.0);
        }
    }

    /// The pace goes on.
    fn catch_up(&mut self, now: Instant) {
        let since = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        if self.share.peers == Peers::Known {
            self.ahead = (self.ahead - since.as_secs_f64() * self.part.pace()).max(0.0);
        }
        self.at = self.at.max(Some(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Duration = Duration::from_nanos(1);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Sends all that goes between `from` and `to`; when each went.
    fn saturate(allotment: &mut Allotment, from: Instant, to: Instant) -> Vec<Instant> {
        let (mut sent, mut now) = (Vec::new(), from);
        while now < to {
            match allotment.ready(now) {
                SendTime::Now => {
                    allotment.took(now);
                    sent.push(now);
                }
                SendTime::At(next) => {
                    assert!(next > now, "it would spin");
                    now = next;
                }
            }
        }
        sent
    }

    #[test]
    fn no_minute_has_more_than_allotted_and_a_saturated_one_has_95_percent() {
        for per_minute in (1_u32..80).chain([100, 299, 300, 3000]) {
            let (mut allotment, start) = (Allotment::new(per_minute), Instant::now());
            let sent = saturate(&mut allotment, start, start + seconds(600));
            let until = |at: Instant| sent.partition_point(|other| *other < at);
            let most = sent.iter().enumerate().map(|(first, at)| until(*at + MINUTE) - first).max().unwrap();
            assert!(most <= per_minute as usize, "{most} of {per_minute}");
            assert!(sent.len() * 100 >= per_minute as usize * 950, "{} of {per_minute} a minute", sent.len());
        }
    }

    #[test]
    fn after_a_rest_a_few_go_at_once_and_then_each_at_its_time() {
        let (mut allotment, start) = (Allotment::new(3000), Instant::now());
        assert_eq!(saturate(&mut allotment, start, start + MOMENT).len(), 60);
        assert_eq!(allotment.left(start), 2940);
        let later = start + seconds(10);
        let second = saturate(&mut allotment, later, later + seconds(1)).len();
        assert!((107..110).contains(&second), "{second}: 60 again, and 48 a second");
    }

    #[test]
    fn a_part_that_shrinks_waits_until_its_pace_has_made_up_and_one_that_grows_is_there_at_once() {
        let (mut allotment, start) = (Allotment::new(1000), Instant::now());
        saturate(&mut allotment, start, start + MOMENT);
        allotment.set(LimitShare::heard(500, 500), start);
        let SendTime::At(next) = allotment.ready(start) else { panic!("20 went, of 10") };
        assert!(next > start + seconds(1) && next < start + seconds(2));
        allotment.set(LimitShare::heard(3000, 3000), start);
        assert_eq!(allotment.ready(start), SendTime::Now);
    }

    #[test]
    fn before_the_others_were_heard_a_few_go_and_no_more_and_they_count_afterwards() {
        let (mut allotment, start) = (Allotment::new(3000), Instant::now());
        allotment.set(LimitShare::unheard(3000), start);
        let sent = saturate(&mut allotment, start, start + seconds(60));
        assert_eq!((sent.len(), allotment.left(start + seconds(60))), (30, 2970));
        allotment.set(LimitShare::heard(300, 300), start + seconds(60));
        let sent = saturate(&mut allotment, start + seconds(60), start + seconds(64));
        assert!(sent.is_empty(), "24 are owed, at five a second");
        assert!(!saturate(&mut allotment, start + seconds(64), start + seconds(66)).is_empty());
    }

    #[test]
    fn whatever_the_part_one_request_goes_each_minute() {
        let (mut allotment, start) = (Allotment::new(1), Instant::now());
        allotment.set(LimitShare::heard(0, 0), start);
        assert_eq!(saturate(&mut allotment, start, start + seconds(601)).len(), 11);
    }
}
