//! This process's share of the client's limit (SPEC 6.4): so many requests a minute, with any token, at an even pace
//! with a small reserve.
//!
//! No answer names the state of the client's window, and a new process cannot know what a dead one sent a second ago.
//! So no process sends its minute at once: each keeps to its pace, and the shares sum up to the limit. Then the pace of
//! the whole fleet is the limit at any moment, whichever processes start or end. In addition a process has a reserve:
//! one request and [`RESERVE`] of its share. A new process may send [`AT_FIRST`] of the limit before it knows the
//! others; that counts against its reserve afterwards.
//!
//! A busy process sends 96 % of its share in a minute, and none ever sends more than its share: not even if a minute's
//! requests arrive within a second less, or take a second more. A change of the fleet adds little: a new process has
//! [`AT_FIRST`] and waits until the others know it. The 105 % of the contract are for that; the simulation of the fleet
//! in the core crate measures it.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use crate::{limits::RESET_SLACK, send_time::SendTime};

const MINUTE: Duration = Duration::from_secs(60);
/// A request counts so long: requests may arrive in another order than they were sent.
const COUNTS: Duration = MINUTE.saturating_add(RESET_SLACK);
/// The part of the share that the pace uses.
const PACE: f64 = 0.98;
/// The part of the share that may go at once after a rest, beside one request.
const RESERVE: f64 = 0.02;
/// 1/100 of the client's limit may go before the others are known.
const AT_FIRST: u32 = 100;
/// The wait for the others before the share is looked at again.
const UNKNOWN_PEERS: Duration = Duration::from_secs(1);
/// A smaller part of a request is a matter of rounding.
const ROUNDING: f64 = 1e-6;

/// A process's share of the client's limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LimitShare {
    /// Requests in any minute.
    pub per_minute: u32,
    /// The number of them that may go at once.
    pub at_once: f64,
    /// The knowledge of the other processes.
    pub(crate) peers: Peers,
}

/// The knowledge of the other processes of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peers {
    /// They are known: the pace holds.
    Known,
    /// They are not known yet: no more goes than what may go at once.
    Unknown,
}

impl LimitShare {
    /// Takes `per_minute` of a client's limit of which each living process has at least `even`.
    pub fn with_known_peers(per_minute: u32, even: u32) -> Self {
        let more = f64::from(per_minute.min(even).saturating_sub(1));
        let at_once = more.mul_add(RESERVE, 1.0);
        Self { per_minute: per_minute.max(1), at_once, peers: Peers::Known }
    }

    /// Takes the whole limit: there is no other process.
    pub fn alone(limit: u32) -> Self {
        Self::with_known_peers(limit, limit)
    }

    /// Takes a first piece of the limit, until the others are known.
    pub fn with_unknown_peers(limit: u32) -> Self {
        Self { per_minute: limit.max(1), at_once: f64::from((limit / AT_FIRST).max(1)), peers: Peers::Unknown }
    }

    /// Returns the pace in requests a second: never less than one a minute.
    fn pace(self) -> f64 {
        (PACE * f64::from(self.per_minute) / COUNTS.as_secs_f64()).max(1.0 / MINUTE.as_secs_f64())
    }
}

/// The requests that were sent of the share.
#[derive(Debug)]
pub(super) struct ShareUse {
    share: LimitShare,
    /// Requests that the pace has not made up for, at `at`.
    ahead: f64,
    at: Option<Instant>,
    /// The times of the last minute's requests, the first one first: only to be reported.
    sent: VecDeque<Instant>,
}

impl ShareUse {
    pub(super) fn new(limit: u32) -> Self {
        Self { share: LimitShare::alone(limit), ahead: 0.0, at: None, sent: VecDeque::new() }
    }

    /// Sets the share; what was sent still counts.
    pub(super) fn set(&mut self, share: LimitShare, now: Instant) {
        self.catch_up(now);
        self.share = share;
    }

    pub(super) const fn per_minute(&self) -> u32 {
        self.share.per_minute
    }

    pub(super) fn count_sent(&mut self, now: Instant) -> u32 {
        while self.sent.front().is_some_and(|sent| *sent + COUNTS <= now) {
            self.sent.pop_front();
        }
        u32::try_from(self.sent.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn remaining(&mut self, now: Instant) -> u32 {
        self.per_minute().saturating_sub(self.count_sent(now))
    }

    /// Returns when the next request may go.
    pub(super) fn ready(&mut self, now: Instant) -> SendTime {
        self.catch_up(now);
        let excess = self.ahead + 1.0 - self.share.at_once;
        match self.share.peers {
            _ if excess <= ROUNDING => SendTime::Now,
            Peers::Known => SendTime::At(now + Duration::from_secs_f64(excess / self.share.pace())),
            Peers::Unknown => SendTime::At(now + UNKNOWN_PEERS),
        }
    }

    pub(super) fn take(&mut self, now: Instant) {
        self.catch_up(now);
        self.ahead += 1.0;
        self.count_sent(now);
        self.sent.push_back(now);
    }

    /// Gives back the request taken at `taken`, which was not sent.
    pub(super) fn give_back(&mut self, taken: Instant) {
        if let Some(index) = self.sent.iter().rposition(|sent| *sent == taken) {
            self.sent.remove(index);
            self.ahead = (self.ahead - 1.0).max(0.0);
        }
    }

    fn catch_up(&mut self, now: Instant) {
        let since = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        if self.share.peers == Peers::Known {
            self.ahead = (self.ahead - since.as_secs_f64() * self.share.pace()).max(0.0);
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
    fn saturate(used: &mut ShareUse, from: Instant, to: Instant) -> Vec<Instant> {
        let (mut sent, mut now) = (Vec::new(), from);
        while now < to {
            match used.ready(now) {
                SendTime::Now => {
                    used.take(now);
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
            let (mut used, start) = (ShareUse::new(per_minute), Instant::now());
            let sent = saturate(&mut used, start, start + seconds(600));
            let until = |at: Instant| sent.partition_point(|other| *other < at);
            let most = sent.iter().enumerate().map(|(first, at)| until(*at + MINUTE) - first).max().unwrap();
            assert!(most <= per_minute as usize, "{most} of {per_minute}");
            assert!(sent.len() * 100 >= per_minute as usize * 950, "{} of {per_minute} a minute", sent.len());
        }
    }

    #[test]
    fn after_a_rest_a_few_go_at_once_and_then_each_at_its_time() {
        let (mut used, start) = (ShareUse::new(3000), Instant::now());
        assert_eq!(saturate(&mut used, start, start + MOMENT).len(), 60);
        assert_eq!(used.remaining(start), 2940);
        let later = start + seconds(10);
        let second = saturate(&mut used, later, later + seconds(1)).len();
        assert!((107..110).contains(&second), "{second}: 60 again, and 48 a second");
    }

    #[test]
    fn a_part_that_shrinks_waits_until_its_pace_has_made_up_and_one_that_grows_is_there_at_once() {
        let (mut used, start) = (ShareUse::new(1000), Instant::now());
        saturate(&mut used, start, start + MOMENT);
        used.set(LimitShare::with_known_peers(500, 500), start);
        let SendTime::At(next) = used.ready(start) else { panic!("20 went, of 10") };
        assert!(next > start + seconds(1) && next < start + seconds(2));
        used.set(LimitShare::with_known_peers(3000, 3000), start);
        assert_eq!(used.ready(start), SendTime::Now);
    }

    #[test]
    fn before_the_others_were_heard_a_few_go_and_no_more_and_they_count_afterwards() {
        let (mut used, start) = (ShareUse::new(3000), Instant::now());
        used.set(LimitShare::with_unknown_peers(3000), start);
        let sent = saturate(&mut used, start, start + seconds(60));
        assert_eq!((sent.len(), used.remaining(start + seconds(60))), (30, 2970));
        used.set(LimitShare::with_known_peers(300, 300), start + seconds(60));
        let sent = saturate(&mut used, start + seconds(60), start + seconds(64));
        assert!(sent.is_empty(), "24 are owed, at five a second");
        assert!(!saturate(&mut used, start + seconds(64), start + seconds(66)).is_empty());
    }

    #[test]
    fn whatever_the_part_one_request_goes_each_minute() {
        let (mut used, start) = (ShareUse::new(1), Instant::now());
        used.set(LimitShare::with_known_peers(0, 0), start);
        assert_eq!(saturate(&mut used, start, start + seconds(601)).len(), 11);
    }
}
