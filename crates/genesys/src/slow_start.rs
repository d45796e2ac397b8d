//! After a pause the API gets one request first, then two at a time, four …: what has just recovered is not buried. Also
//! how a process starts, since it does not know the API's limit yet.
//!
//! As TCP's slow start: every success lets one more be in flight, which doubles them each round.

use std::time::Duration;

use tokio::time::Instant;

use crate::budget::SendTime;

/// Where so many may be in flight there is no bound any more.
const UNBOUNDED: u32 = 2048;

/// How many requests may be in flight while things start again: one more with each success, and twice as many each
/// second.
#[derive(Debug, Default)]
pub(crate) struct SlowStart {
    /// Counts starts: what was sent before the last one does not count.
    start: u64,
    /// When the first request of this start went.
    began: Option<Instant>,
    successes: u32,
    in_flight: u32,
}

/// One request's place.
#[derive(Debug)]
#[must_use]
pub(crate) struct SlowStartSlot {
    start: u64,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HealthSign {
    /// The API answered.
    Well,
    /// It did not, or badly, or nothing was sent.
    Otherwise,
}

impl SlowStart {
    /// Begins with one request again.
    pub(crate) fn restart(&mut self) {
        *self = Self { start: self.start + 1, ..Self::default() };
    }

    /// May one more go now?
    pub(crate) fn ready(&self, now: Instant) -> SendTime {
        let Some(began) = self.began else { return SendTime::Now };
        let since = now.saturating_duration_since(began).as_secs();
        let doublings = u32::try_from(since).unwrap_or(u32::MAX);
        let bound = self.successes.saturating_add(1).saturating_mul(2_u32.saturating_pow(doublings));
        if bound >= UNBOUNDED || self.in_flight < bound {
            SendTime::Now
        } else {
            SendTime::At(began + Duration::from_secs(since + 1))
        }
    }

    /// Takes a place, at once.
    pub(crate) fn take(&mut self, now: Instant) -> SlowStartSlot {
        self.began.get_or_insert(now);
        self.in_flight += 1;
        SlowStartSlot { start: self.start }
    }

    /// A request is over.
    pub(crate) fn ended(&mut self, place: &SlowStartSlot, went: HealthSign) {
        if place.start != self.start {
            return;
        }
        self.in_flight = self.in_flight.saturating_sub(1);
        match went {
            HealthSign::Well => self.successes = self.successes.saturating_add(1),
            HealthSign::Otherwise if self.in_flight == 0 && self.successes == 0 => self.began = None,
            HealthSign::Otherwise => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(slow: &mut SlowStart, now: Instant) -> Vec<SlowStartSlot> {
        let mut places = Vec::new();
        while places.len() < 5000 && slow.ready(now) == SendTime::Now {
            places.push(slow.take(now));
        }
        places
    }

    #[test]
    fn one_request_goes_first_and_each_round_of_successes_doubles() {
        let (mut slow, now) = (SlowStart::default(), Instant::now());
        let mut places = fill(&mut slow, now);
        assert_eq!(places.len(), 1);
        for in_flight in [2, 4, 8, 16] {
            for place in places.drain(..) {
                slow.ended(&place, HealthSign::Well);
            }
            places.extend(fill(&mut slow, now));
            assert_eq!(places.len(), in_flight);
        }
        slow.ended(&places.pop().unwrap(), HealthSign::Well);
        assert_eq!(fill(&mut slow, now).len(), 2, "one success, one more, and its own place");
    }

    #[test]
    fn each_second_doubles_too_so_that_one_slow_answer_stops_nobody() {
        let (mut slow, now) = (SlowStart::default(), Instant::now());
        let first = fill(&mut slow, now);
        assert_eq!(slow.ready(now), SendTime::At(now + Duration::from_secs(1)));
        assert_eq!(first.len() + fill(&mut slow, now + Duration::from_secs(3)).len(), 8);
    }

    #[test]
    fn it_ends_and_a_restart_begins_it_again_whatever_is_still_in_flight() {
        let (mut slow, now) = (SlowStart::default(), Instant::now());
        let mut places = fill(&mut slow, now);
        let later = now + Duration::from_secs(20);
        places.extend(fill(&mut slow, later));
        assert_eq!(places.len(), 5001);
        slow.restart();
        assert_eq!(fill(&mut slow, later).len(), 1);
        for place in &places {
            slow.ended(place, HealthSign::Well);
        }
        assert!(fill(&mut slow, later).is_empty(), "what was sent before tells nothing about now");
    }
}
