//! When a request may be sent to a CDN: its pace, the pauses that it asks for, and the holds, one of which is the circuit
//! breaker. A state machine over the time, without I/O.

use std::{collections::VecDeque, time::Duration};

use genfleet_core::{genesys::OutageDetector, job::JobId};
use tokio::time::Instant;

use super::provider::Hold;

/// The window of the pace.
const MINUTE: Duration = Duration::from_secs(60);
/// A pause is at least this long, whatever the CDN asks for.
const LEAST_PAUSE: Duration = Duration::from_secs(1);
/// A pause up to this is waited for in memory, a longer one in the queue.
pub(crate) const LONG_PAUSE: Duration = Duration::from_secs(30);
/// The longest wait between two probes of a hold.
const LONGEST_PROBE: Duration = Duration::from_secs(30);
/// The longest wait between two probes of a CDN that does not answer, as a multiple of the first.
const LONGEST_WAIT: u32 = 12;
/// Grace after a probe is due. A job that waits has taken it by then.
const PROBE_GRACE: Duration = Duration::from_secs(10);

/// The next step of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum GateStep {
    Send,
    WaitUntil(Instant),
    /// The job waits in the queue until then, for this reason.
    Refused(Instant, GateRefusal),
}

/// The reason why a job waits in the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum GateRefusal {
    Held(Hold, String),
    Paused(String),
}

/// The waits between two probes of a hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProbeIntervals {
    pub(crate) credentials: Duration,
    pub(crate) forbidden: Duration,
    /// Before the first probe of a CDN that does not answer; it doubles.
    pub(crate) unavailable: Duration,
}

#[derive(Debug)]
pub(crate) struct Gate {
    per_minute: usize,
    intervals: ProbeIntervals,
    /// When the requests of the last minute were sent.
    sent: VecDeque<Instant>,
    pause: Option<(Instant, String)>,
    hold: Option<ActiveHold>,
    outages: OutageDetector,
}

/// A hold that has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ActiveHold {
    pub(crate) hold: Hold,
    pub(crate) why: String,
    /// When one request may try whether it still is.
    pub(crate) next_probe: Instant,
    wait: Duration,
}

impl Gate {
    /// Counts the failures of a CDN over `window`.
    pub(crate) fn new(per_minute: u32, intervals: ProbeIntervals, window: Duration) -> Self {
        let per_minute = usize::try_from(per_minute).unwrap_or(usize::MAX);
        let outages = OutageDetector::new(window);
        Self { per_minute, intervals, sent: VecDeque::new(), pause: None, hold: None, outages }
    }

    /// Says what stands between now and a request; takes nothing.
    pub(crate) fn next_step(&self, now: Instant) -> GateStep {
        if let Some(ActiveHold { hold, why, next_probe, .. }) = self.hold.as_ref().filter(|on| now < on.next_probe) {
            return GateStep::Refused(*next_probe, GateRefusal::Held(*hold, why.clone()));
        }
        if let Some((until, why)) = self.pause.as_ref().filter(|(until, _)| now < *until) {
            if *until - now > LONG_PAUSE {
                return GateStep::Refused(*until, GateRefusal::Paused(why.clone()));
            }
            return GateStep::WaitUntil(*until);
        }
        let recent = self.sent.iter().filter(|at| now.duration_since(**at) < MINUTE).count();
        if recent < self.per_minute {
            return GateStep::Send;
        }
        let oldest_that_counts = self.sent.len().checked_sub(self.per_minute).and_then(|at| self.sent.get(at));
        GateStep::WaitUntil(oldest_that_counts.map_or(now, |at| *at + MINUTE))
    }

    /// Takes the right to send one request now, if there is one. During a hold it is the probe.
    pub(crate) fn take(&mut self, now: Instant) -> GateStep {
        let step = self.next_step(now);
        if step == GateStep::Send {
            while self.sent.front().is_some_and(|at| now.duration_since(*at) >= MINUTE) {
                self.sent.pop_front();
            }
            self.sent.push_back(now);
            self.put_off_probe(now);
        }
        step
    }

    /// Lets the next probe be an interval from now.
    pub(crate) fn put_off_probe(&mut self, now: Instant) {
        if let Some(on) = &mut self.hold {
            on.next_probe = now + on.wait;
        }
    }

    /// Begins or prolongs a pause.
    pub(crate) fn pause(&mut self, now: Instant, wait: Duration, why: &str) {
        let until = now + wait.max(LEAST_PAUSE);
        if self.pause.as_ref().is_none_or(|(ends, _)| *ends < until) {
            self.pause = Some((until, why.to_owned()));
        }
    }

    /// Returns the pause that the CDN asked for: its end, and the reason.
    pub(crate) fn active_pause(&self, now: Instant) -> Option<(Instant, &str)> {
        self.pause.as_ref().filter(|(until, _)| now < *until).map(|(until, why)| (*until, why.as_str()))
    }

    /// Counts a request of `jobs` that ended. True if so many failed that the CDN is not available.
    pub(crate) fn record(&mut self, has_failed: bool, jobs: &[JobId], now: Instant) -> bool {
        self.outages.record(has_failed, jobs, now)
    }

    /// Begins a hold; returns when it is probed next.
    pub(crate) fn begin_hold(&mut self, now: Instant, hold: Hold, why: &str) -> Instant {
        let wait = self.wait_before_probe(hold);
        let next_probe = now + wait;
        self.hold = Some(ActiveHold { hold, why: why.to_owned(), next_probe, wait });
        next_probe
    }

    /// Ends the hold. Returns true if there was one.
    pub(crate) fn release(&mut self) -> bool {
        self.hold.take().is_some()
    }

    /// Returns the hold, if there is one.
    pub(crate) fn active_hold(&self) -> Option<&ActiveHold> {
        self.hold.as_ref()
    }

    /// Returns when a trial is due because no job probes; `None` without a hold.
    pub(crate) fn trial_due(&self) -> Option<Instant> {
        self.hold.as_ref().map(|on| on.next_probe + PROBE_GRACE)
    }

    fn wait_before_probe(&self, hold: Hold) -> Duration {
        let first = self.intervals.unavailable;
        match hold {
            Hold::Unavailable => {
                let last = self.hold.as_ref().filter(|on| on.hold == hold).map(|on| on.wait);
                last.map_or(first, |last| (last * 2).min(first * LONGEST_WAIT))
            }
            Hold::Credentials => self.intervals.credentials.min(LONGEST_PROBE),
            Hold::Forbidden => self.intervals.forbidden.min(LONGEST_PROBE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(per_minute: u32) -> Gate {
        let intervals = ProbeIntervals { credentials: seconds(5), forbidden: MINUTE, unavailable: seconds(5) };
        Gate::new(per_minute, intervals, seconds(30))
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn no_minute_has_more_requests_than_are_allowed() {
        let (mut gate, start) = (gate(3), Instant::now());
        for at in [0, 10, 20] {
            assert_eq!(gate.take(start + seconds(at)), GateStep::Send);
        }
        assert_eq!(gate.take(start + seconds(25)), GateStep::WaitUntil(start + MINUTE));
        assert_eq!(gate.take(start + MINUTE), GateStep::Send);
        assert_eq!(gate.take(start + MINUTE), GateStep::WaitUntil(start + seconds(70)));
    }

    #[test]
    fn a_short_pause_is_waited_for_here_and_a_long_one_in_the_queue() {
        let (mut gate, now) = (gate(100), Instant::now());
        gate.pause(now, seconds(30), "later");
        assert_eq!(gate.take(now), GateStep::WaitUntil(now + seconds(30)));
        gate.pause(now, seconds(5), "sooner");
        assert_eq!(gate.take(now), GateStep::WaitUntil(now + seconds(30)), "the longer one counts");
        gate.pause(now, seconds(31), "much later");
        let refused = GateStep::Refused(now + seconds(31), GateRefusal::Paused("much later".to_owned()));
        assert_eq!(gate.take(now), refused);
        assert_eq!(gate.take(now + seconds(31)), GateStep::Send);
    }

    #[test]
    fn a_hold_lets_one_request_probe_and_a_success_releases_it() {
        let (mut gate, now) = (gate(100), Instant::now());
        let next = gate.begin_hold(now, Hold::Credentials, "no");
        assert_eq!(next, now + seconds(5));
        let refused = |until| GateStep::Refused(until, GateRefusal::Held(Hold::Credentials, "no".to_owned()));
        assert_eq!(gate.take(now), refused(next));
        assert_eq!(gate.take(next), GateStep::Send);
        assert_eq!(gate.take(next), refused(next + seconds(5)), "one probe at a time");
        assert!(gate.release() && !gate.release());
        assert_eq!(gate.take(next), GateStep::Send);
    }

    #[test]
    fn a_hold_is_probed_every_half_minute_at_least() {
        let (mut gate, now) = (gate(100), Instant::now());
        assert_eq!(gate.begin_hold(now, Hold::Forbidden, "no"), now + LONGEST_PROBE);
        assert_eq!(gate.trial_due(), Some(now + LONGEST_PROBE + PROBE_GRACE));
    }

    #[test]
    fn a_cdn_that_stays_away_is_probed_after_growing_waits() {
        let (mut gate, mut now) = (gate(100), Instant::now());
        for wait in [5, 10, 20, 40, 60, 60].map(seconds) {
            assert_eq!(gate.begin_hold(now, Hold::Unavailable, "down"), now + wait);
            now += wait;
            assert_eq!(gate.take(now), GateStep::Send);
        }
        assert!(gate.release());
        assert_eq!(gate.begin_hold(now, Hold::Unavailable, "down"), now + seconds(5), "it begins anew");
    }

    #[test]
    fn a_pause_is_told_until_it_ends() {
        let (mut gate, now) = (gate(100), Instant::now());
        gate.pause(now, seconds(5), "later");
        assert_eq!(gate.active_pause(now), Some((now + seconds(5), "later")));
        assert_eq!(gate.active_pause(now + seconds(5)), None);
    }
}
