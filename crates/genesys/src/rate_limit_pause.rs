//! The gate: while the API says "later", nothing is sent by the whole process (SPEC 4).
//!
//! Reads no headers ([`crate::limits`]) and holds nobody: [`crate::admission`] asks it.

use std::time::Duration;

use tokio::time::Instant;

/// How long to wait where nothing says: this, doubling …
const SHORTEST: Duration = Duration::from_secs(5);
/// … to this.
const LONGEST: Duration = Duration::from_secs(60);
/// Told again by another process, an end moves by as much as the way took: what moves by less is no news.
const NEWS: Duration = Duration::from_millis(500);
/// Pause for longer than this, nobody waits in memory.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// Open, or shut until a time.
#[derive(Debug)]
pub(crate) struct RateLimitPause {
    shut: Option<Pause>,
    next_wait: Duration,
    /// Of the times before this one.
    shut_before: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Pause {
    since: Instant,
    until: Instant,
    intake: Intake,
    /// The opening was noticed.
    over: bool,
}

/// What new jobs do while the gate is shut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Intake {
    /// They start: the wait is short.
    Open,
    /// They stay in the queue until it opens.
    Closed,
}

impl Default for RateLimitPause {
    fn default() -> Self {
        Self { shut: None, next_wait: SHORTEST, shut_before: Duration::ZERO }
    }
}

impl RateLimitPause {
    /// The API said "later" to a request sent at `sent`; `wait` where it said how long. True where that changes
    /// anything.
    pub(crate) fn throttled(&mut self, sent: Instant, now: Instant, wait: Option<Duration>) -> bool {
        let known = self.shut.is_some_and(|shut| sent < shut.since);
        let wait = match wait {
            Some(wait) => wait,
            // One of many in flight when the gate was shut: nothing new.
            None if known => return false,
            None => self.longer_wait(),
        };
        self.shut_until(now, now + wait)
    }

    /// Another process of the client was told "later", for so long from now on. True where that changes anything.
    pub(crate) fn told(&mut self, now: Instant, wait: Duration) -> bool {
        let known = self.opens(now).is_some_and(|opens| now + wait < opens + NEWS);
        !known && self.shut_until(now, now + wait)
    }

    fn longer_wait(&mut self) -> Duration {
        let wait = self.next_wait;
        self.next_wait = (wait * 2).min(LONGEST);
        wait
    }

    fn shut_until(&mut self, now: Instant, until: Instant) -> bool {
        let current = self.shut.filter(|shut| now < shut.until);
        if current.is_some_and(|shut| until <= shut.until) {
            return false;
        }
        if current.is_none() {
            self.shut_before = self.time_shut(now);
        }
        let since = current.map_or(now, |shut| shut.since);
        let closed = until - now > LONG || current.is_some_and(|shut| shut.intake == Intake::Closed);
        let intake = if closed { Intake::Closed } else { Intake::Open };
        self.shut = Some(Pause { since, until, intake, over: false });
        true
    }

    /// Until when nothing is sent; `None` while it is open.
    pub(crate) fn opens(&self, now: Instant) -> Option<Instant> {
        self.shut.map(|shut| shut.until).filter(|until| now < *until)
    }

    /// What new jobs do: they also stay away from the last seconds of a long pause.
    pub(crate) fn intake(&self, now: Instant) -> Intake {
        self.shut.filter(|shut| now < shut.until).map_or(Intake::Open, |shut| shut.intake)
    }

    /// True once after each opening.
    pub(crate) fn has_opened(&mut self, now: Instant) -> bool {
        let opened = self.shut.as_mut().filter(|shut| !shut.over && now >= shut.until);
        opened.map(|shut| shut.over = true).is_some()
    }

    /// A request sent at `sent` was let through by the API.
    pub(crate) fn succeeded(&mut self, sent: Instant) {
        if self.shut.is_none_or(|shut| sent >= shut.until) {
            self.next_wait = SHORTEST;
        }
    }

    /// How long it was shut altogether.
    pub(crate) fn time_shut(&self, now: Instant) -> Duration {
        let this = self.shut.map_or(Duration::ZERO, |shut| now.min(shut.until).saturating_duration_since(shut.since));
        self.shut_before + this
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn it_is_shut_until_the_time_told_and_a_shorter_one_does_not_open_it() {
        let (mut gate, now) = (RateLimitPause::default(), Instant::now());
        assert!(gate.throttled(now, now, Some(20 * SECOND)));
        assert!(!gate.throttled(now, now + SECOND, Some(5 * SECOND)));
        assert_eq!(gate.opens(now + 19 * SECOND), Some(now + 20 * SECOND));
        assert_eq!(gate.opens(now + 20 * SECOND), None);
    }

    #[test]
    fn untold_waits_double_from_five_seconds_to_sixty_and_begin_again_after_a_success() {
        let (mut gate, mut now) = (RateLimitPause::default(), Instant::now());
        for seconds in [5, 10, 20, 40, 60, 60] {
            assert!(gate.throttled(now, now, None));
            assert_eq!(gate.opens(now), Some(now + seconds * SECOND));
            now += seconds * SECOND;
        }
        gate.succeeded(now);
        gate.throttled(now, now, None);
        assert_eq!(gate.opens(now), Some(now + 5 * SECOND));
    }

    #[test]
    fn many_requests_in_flight_that_are_throttled_together_double_once() {
        let (mut gate, now) = (RateLimitPause::default(), Instant::now());
        for late in 1..64 {
            gate.throttled(now, now + late * SECOND / 100, None);
        }
        let opens = gate.opens(now + SECOND / 100);
        assert_eq!(opens, Some(now + SECOND / 100 + 5 * SECOND));
        gate.throttled(now, now + 9 * SECOND, None);
        assert_eq!(gate.opens(now + 9 * SECOND), None, "a late answer to a request sent before");
    }

    #[test]
    fn what_another_process_was_told_shuts_it_once_however_often_it_is_repeated() {
        let (mut gate, now) = (RateLimitPause::default(), Instant::now());
        assert!(gate.told(now, 20 * SECOND));
        assert!(!gate.told(now + SECOND, 19 * SECOND + SECOND / 100), "the same, a little late");
        assert_eq!(gate.opens(now + SECOND), Some(now + 20 * SECOND));
        assert!(gate.told(now + SECOND, 60 * SECOND), "it was told again, for longer");
    }

    #[test]
    fn a_long_pause_closes_the_intake_to_its_end() {
        let (mut gate, now) = (RateLimitPause::default(), Instant::now());
        gate.throttled(now, now, Some(30 * SECOND));
        assert_eq!(gate.intake(now), Intake::Open);
        gate.throttled(now, now, Some(31 * SECOND));
        assert_eq!(gate.intake(now + 30 * SECOND), Intake::Closed);
        assert_eq!(gate.intake(now + 31 * SECOND), Intake::Open);
    }

    #[test]
    fn the_time_shut_grows_only_while_it_is_shut() {
        let (mut gate, now) = (RateLimitPause::default(), Instant::now());
        gate.throttled(now, now, Some(10 * SECOND));
        assert_eq!(gate.time_shut(now + 4 * SECOND), 4 * SECOND);
        assert_eq!(gate.time_shut(now + 60 * SECOND), 10 * SECOND);
        let again = now + 60 * SECOND;
        gate.throttled(again, again, Some(10 * SECOND));
        gate.throttled(again, again + 5 * SECOND, Some(10 * SECOND));
        assert_eq!(gate.time_shut(again + 60 * SECOND), 25 * SECOND);
    }

    #[test]
    fn its_opening_is_noticed_once() {
        let (mut gate, now) = (RateLimitPause::default(), Instant::now());
        gate.throttled(now, now, Some(SECOND));
        let noticed = [now, now + SECOND, now + 2 * SECOND].map(|now| gate.has_opened(now));
        assert_eq!(noticed, [false, true, false]);
    }
}
