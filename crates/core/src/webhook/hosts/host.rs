//! One host: if it answers, how fast, and when it is tried again. Pure but for the seats.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Semaphore, time::Instant};

use super::HostBounds;

/// The number of failures in a row after which a host counts as failing: as many as may be under way at once.
const FAILING: u32 = 4;
/// A failing host is left alone for this many times as long as the last delivery took.
const REST_FACTOR: u32 = 3;
/// The longest rest after a failure: that after a time-out.
const LONGEST_REST: Duration = Duration::from_secs(45);
/// The longest pause for a host that asks for one; the delivery that was asked waits as long as asked.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// The bounds of the wait for a failing host, which is a quarter of the time for which it has been failing.
const FAILING_WAIT: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(3600));
/// The longest wait for a busy host.
const LONGEST_BUSY_WAIT: Duration = Duration::from_secs(300);
/// The assumed duration of a delivery before any has ended.
const TYPICAL: Duration = Duration::from_secs(1);
/// A host whose last answer took longer gets one delivery at a time.
const SLOW: Duration = Duration::from_secs(5);
/// A host without deliveries for this time takes no place from others.
const ACTIVE: Duration = Duration::from_secs(5);

/// The state of one host.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) seats: Arc<Semaphore>,
    /// The number of deliveries that wait here for a seat.
    pub(super) line: usize,
    pub(super) used: Instant,
    failures: u32,
    failing_since: Option<Instant>,
    rests_until: Option<Instant>,
    is_prompt: bool,
    is_slow: bool,
    took: Duration,
    /// The time at which the delivery that was sent away last comes back.
    next_turn: Instant,
}

impl Host {
    pub(super) fn new(now: Instant, bounds: HostBounds) -> Self {
        Self {
            seats: Arc::new(Semaphore::new(bounds.per_host.into())),
            line: 0,
            used: now,
            failures: 0,
            failing_since: None,
            rests_until: None,
            is_prompt: true,
            is_slow: false,
            took: TYPICAL,
            next_turn: now,
        }
    }

    pub(super) fn under_way(&self, bounds: HostBounds) -> usize {
        usize::from(bounds.per_host) - self.seats.available_permits()
    }

    pub(super) fn is_idle(&self, bounds: HostBounds) -> bool {
        self.under_way(bounds) + self.line == 0
    }

    pub(super) fn is_active(&self, now: Instant, bounds: HostBounds) -> bool {
        !self.is_idle(bounds) || now.duration_since(self.used) < ACTIVE
    }

    /// A failing host gets one delivery at a time, with a rest after each.
    pub(super) fn is_failing(&self) -> bool {
        self.failures >= FAILING
    }

    /// A slow host gets one delivery at a time.
    pub(super) fn is_slow(&self) -> bool {
        self.is_slow
    }

    /// A resting host gets none.
    pub(super) fn rests(&self, now: Instant) -> bool {
        self.rests_until.is_some_and(|until| until > now)
    }

    /// Returns true if a seat is likely to be free soon.
    pub(super) fn is_worth_waiting_for(&self) -> bool {
        self.is_prompt && !self.is_failing()
    }

    pub(super) fn record_wait(&mut self) {
        self.is_prompt = false;
    }

    pub(super) fn record_answer(&mut self, took: Duration) {
        (self.failures, self.failing_since, self.rests_until) = (0, None, None);
        (self.took, self.is_slow) = (took, took > SLOW);
        self.is_prompt = !self.is_slow;
    }

    pub(super) fn record_failure(&mut self, now: Instant, took: Duration, asked: Option<Duration>, bounds: HostBounds) {
        self.failures = self.failures.saturating_add(1);
        self.failing_since.get_or_insert(now);
        self.is_prompt = false;
        let rest = if self.is_failing() {
            (took * REST_FACTOR).min(LONGEST_REST).mul_f64(bounds.scale)
        } else {
            Duration::ZERO
        };
        let until = now + rest.max(asked.unwrap_or_default().min(LONGEST_PAUSE));
        self.rests_until = self.rests_until.max(Some(until));
    }

    /// The time that a delivery waits in the queue before it asks again.
    pub(super) fn wait(&mut self, now: Instant, jitter: f64, bounds: HostBounds) -> Duration {
        let rest = self.rests_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        if self.is_failing() {
            return rest.max(self.outage_share(now, jitter, bounds.scale));
        }
        if !rest.is_zero() {
            return rest;
        }
        // One after the other, at the rate at which the host accepts them.
        let at_once = if self.is_slow { 1 } else { bounds.per_host };
        self.next_turn = self.next_turn.max(now) + self.took / u32::from(at_once);
        self.next_turn.duration_since(now).min(LONGEST_BUSY_WAIT)
    }

    /// A wait in proportion to the outage: a delivery asks only a few times however long it lasts, and soon after its
    /// end.
    fn outage_share(&self, now: Instant, jitter: f64, scale: f64) -> Duration {
        let outage = self.failing_since.map_or(Duration::ZERO, |since| now.duration_since(since));
        let (shortest, longest) = FAILING_WAIT;
        let whole = (outage / 4).clamp(shortest.mul_f64(scale), longest.mul_f64(scale));
        whole.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
    }
}
