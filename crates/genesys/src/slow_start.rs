//! Slow start: after a pause, and when a process starts, the API gets one request first, then two at a time, four …
//!
//! As in TCP, every success lets one more request be in flight, which doubles them each round.

use std::time::Duration;

use tokio::time::Instant;

use crate::send_time::SendTime;

/// Bound from which there is no limit.
const UNBOUNDED: u32 = 2048;

/// The bound of the requests in flight: one more with each success, and twice as many each second.
#[derive(Debug, Default)]
pub(crate) struct SlowStart {
    /// Counts starts: requests of an earlier one do not count.
    start: u64,
    /// The time of the first request of this start.
    began: Option<Instant>,
    successes: u32,
    in_flight: u32,
}

/// The place of one request in flight.
#[derive(Debug)]
#[must_use]
pub(crate) struct SlowStartSlot {
    start: u64,
}

/// A sign of the health of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HealthSign {
    Healthy,
    /// The API did not answer or failed, or nothing was sent.
    Unhealthy,
}

impl SlowStart {
    pub(crate) fn restart(&mut self) {
        *self = Self { start: self.start + 1, ..Self::default() };
    }

    /// Returns when one more may go.
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

    pub(crate) fn take(&mut self, now: Instant) -> SlowStartSlot {
        self.began.get_or_insert(now);
        self.in_flight += 1;
        SlowStartSlot { start: self.start }
    }

    pub(crate) fn free(&mut self, slot: &SlowStartSlot, sign: HealthSign) {
        if slot.start != self.start {
            return;
        }
        self.in_flight = self.in_flight.saturating_sub(1);
        match sign {
            HealthSign::Healthy => self.successes = self.successes.saturating_add(1),
            HealthSign::Unhealthy if self.in_flight == 0 && self.successes == 0 => self.began = None,
            HealthSign::Unhealthy => {}
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
                slow.free(&place, HealthSign::Healthy);
            }
            places.extend(fill(&mut slow, now));
            assert_eq!(places.len(), in_flight);
        }
        slow.free(&places.pop().unwrap(), HealthSign::Healthy);
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
            slow.free(place, HealthSign::Healthy);
        }
        assert!(fill(&mut slow, later).is_empty(), "what was sent before says nothing about now");
    }
}
