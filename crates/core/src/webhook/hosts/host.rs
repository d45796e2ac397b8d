//! One host: does it answer, how fast, and when is it looked at again. Pure, but for the seats.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Semaphore, time::Instant};

use super::Bounds;

/// Failures in a row after which a host counts as failing: as many as may be under way at once.
const FAILING: u32 = 4;
/// A host that fails rests so many times as long as its last delivery took.
const REST_FACTOR: u32 = 3;
/// A longest rest after a failure: that of a delivery that ran out of time.
const LONGEST_REST: Duration = Duration::from_secs(45);
/// The longest pause that a host may ask for; the delivery that was asked waits longer where it is told to.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// Deliveries to a failing host are looked at again after a quarter of the time it has been failing, within these.
const FAILING_WAIT: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(3600));
/// Longest wait for a host that is busy.
const LONGEST_BUSY_WAIT: Duration = Duration::from_secs(300);
/// What a delivery is taken to last where none has ended.
const TYPICAL: Duration = Duration::from_secs(1);
/// A host whose last answer took longer is delivered to one at a time.
const SLOW: Duration = Duration::from_secs(5);
/// A host that was not delivered to for this long takes no place from others.
const ACTIVE: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) seats: Arc<Semaphore>,
    /// Deliveries that wait here for a seat.
    pub(super) line: usize,
    pub(super) used: Instant,
    failures: u32,
    failing_since: Option<Instant>,
    rests_until: Option<Instant>,
    is_prompt: bool,
    is_slow: bool,
    took: Duration,
    /// When the last one that was sent away because the host was busy comes back.
    turn: Instant,
}

impl Host {
    pub(super) fn new(now: Instant, bounds: Bounds) -> Self {
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
            turn: now,
        }
    }

    pub(super) fn under_way(&self, bounds: Bounds) -> usize {
        usize::from(bounds.per_host) - self.seats.available_permits()
    }

    pub(super) fn is_idle(&self, bounds: Bounds) -> bool {
        self.under_way(bounds) + self.line == 0
    }

    pub(super) fn is_active(&self, now: Instant, bounds: Bounds) -> bool {
        !self.is_idle(bounds) || now.duration_since(self.used) < ACTIVE
    }

    /// One at a time goes there, with a rest after each.
    pub(super) fn is_failing(&self) -> bool {
        self.failures >= FAILING
    }

    /// One at a time goes there, though it answers.
    pub(super) fn is_slow(&self) -> bool {
        self.is_slow
    }

    /// None goes there.
    pub(super) fn rests(&self, now: Instant) -> bool {
        self.rests_until.is_some_and(|until| until > now)
    }

    /// Whether a seat is likely to be free soon.
    pub(super) fn is_worth_waiting_for(&self) -> bool {
        self.is_prompt && !self.is_failing()
    }

    pub(super) fn kept_waiting(&mut self) {
        self.is_prompt = false;
    }

    pub(super) fn answered(&mut self, took: Duration) {
        (self.failures, self.failing_since, self.rests_until) = (0, None, None);
        (self.took, self.is_slow) = (took, took > SLOW);
        self.is_prompt = !self.is_slow;
    }

    pub(super) fn failed(&mut self, now: Instant, took: Duration, asked: Option<Duration>, bounds: Bounds) {
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

    /// How long a delivery that may not go now waits in the queue.
    pub(super) fn later(&mut self, now: Instant, jitter: f64, bounds: Bounds) -> Duration {
        let rest = self.rests_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        if self.is_failing() {
            return rest.max(self.outage_share(now, jitter, bounds.scale));
        }
        if !rest.is_zero() {
            return rest;
        }
        // In their turn, at the pace at which the host takes them.
        let at_once = if self.is_slow { 1 } else { bounds.per_host };
        self.turn = self.turn.max(now) + self.took / u32::from(at_once);
        self.turn.duration_since(now).min(LONGEST_BUSY_WAIT)
    }

    /// In proportion to the outage: a delivery is looked at a few times however long it lasts, and comes soon after.
    fn outage_share(&self, now: Instant, jitter: f64, scale: f64) -> Duration {
        let outage = self.failing_since.map_or(Duration::ZERO, |since| now.duration_since(since));
        let (shortest, longest) = FAILING_WAIT;
        let whole = (outage / 4).clamp(shortest.mul_f64(scale), longest.mul_f64(scale));
        whole.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
    }
}
