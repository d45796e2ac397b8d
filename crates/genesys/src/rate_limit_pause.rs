//! The pause that the API asks for (SPEC 4): while it lasts, the whole process sends nothing. A state machine over the
//! time.

use std::time::Duration;

use tokio::time::Instant;

/// First wait if an answer names none. It doubles up to `LONGEST`.
const SHORTEST: Duration = Duration::from_secs(5);
/// Maximum wait if an answer names none.
const LONGEST: Duration = Duration::from_secs(60);
/// Smallest change of an end that another process reports, because its messages take different times.
const TOLERANCE: Duration = Duration::from_millis(500);
/// Maximum length of a pause whose end is waited for in memory.
pub(crate) const MAX_WAIT_IN_MEMORY: Duration = Duration::from_secs(30);

/// The pause, if there is one, and how long to wait next.
#[derive(Debug)]
pub(crate) struct RateLimitPause {
    pause: Option<Pause>,
    next_wait: Duration,
    /// The length of all pauses before this one.
    total_before: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Pause {
    since: Instant,
    until: Instant,
    closes_intake: bool,
    end_was_noticed: bool,
}

impl Default for RateLimitPause {
    fn default() -> Self {
        Self { pause: None, next_wait: SHORTEST, total_before: Duration::ZERO }
    }
}

impl RateLimitPause {
    /// Begins or prolongs the pause after an answer to a request sent at `sent`; `wait` if the answer named one. True
    /// where that changes anything.
    pub(crate) fn begin(&mut self, sent: Instant, now: Instant, wait: Option<Duration>) -> bool {
        let known = self.pause.is_some_and(|pause| sent < pause.since);
        let wait = match wait {
            Some(wait) => wait,
            // One of many that were in flight when the pause began.
            None if known => return false,
            None => self.double_wait(),
        };
        self.pause_until(now, now + wait)
    }

    /// Begins or prolongs the pause that another process of the client met. True if that changes anything.
    pub(crate) fn begin_for_peer(&mut self, now: Instant, wait: Duration) -> bool {
        let known = self.ends(now).is_some_and(|ends| now + wait < ends + TOLERANCE);
        !known && self.pause_until(now, now + wait)
    }

    fn double_wait(&mut self) -> Duration {
        let wait = self.next_wait;
        self.next_wait = (wait * 2).min(LONGEST);
        wait
    }

    fn pause_until(&mut self, now: Instant, until: Instant) -> bool {
        let current = self.pause.filter(|pause| now < pause.until);
        if current.is_some_and(|pause| until <= pause.until) {
            return false;
        }
        if current.is_none() {
            self.total_before = self.total(now);
        }
        let since = current.map_or(now, |pause| pause.since);
        let closes_intake = until - now > MAX_WAIT_IN_MEMORY || current.is_some_and(|pause| pause.closes_intake);
        self.pause = Some(Pause { since, until, closes_intake, end_was_noticed: false });
        true
    }

    pub(crate) fn ends(&self, now: Instant) -> Option<Instant> {
        self.pause.map(|pause| pause.until).filter(|until| now < *until)
    }

    /// Returns true if new jobs stay in the queue: also in the last seconds of a long pause.
    pub(crate) fn closes_intake(&self, now: Instant) -> bool {
        self.pause.is_some_and(|pause| now < pause.until && pause.closes_intake)
    }

    /// Returns true once after each pause.
    pub(crate) fn take_end(&mut self, now: Instant) -> bool {
        let ended = self.pause.as_mut().filter(|pause| !pause.end_was_noticed && now >= pause.until);
        ended.map(|pause| pause.end_was_noticed = true).is_some()
    }

    /// Records that the API answered a request sent at `sent`.
    pub(crate) fn note_success(&mut self, sent: Instant) {
        if self.pause.is_none_or(|pause| sent >= pause.until) {
            self.next_wait = SHORTEST;
        }
    }

    pub(crate) fn total(&self, now: Instant) -> Duration {
        let this =
            self.pause.map_or(Duration::ZERO, |pause| now.min(pause.until).saturating_duration_since(pause.since));
        self.total_before + this
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn it_is_shut_until_the_time_told_and_a_shorter_one_does_not_open_it() {
        let (mut pause, now) = (RateLimitPause::default(), Instant::now());
        assert!(pause.begin(now, now, Some(20 * SECOND)));
        assert!(!pause.begin(now, now + SECOND, Some(5 * SECOND)));
        assert_eq!(pause.ends(now + 19 * SECOND), Some(now + 20 * SECOND));
        assert_eq!(pause.ends(now + 20 * SECOND), None);
    }

    #[test]
    fn untold_waits_double_from_five_seconds_to_sixty_and_begin_again_after_a_success() {
        let (mut pause, mut now) = (RateLimitPause::default(), Instant::now());
        for seconds in [5, 10, 20, 40, 60, 60] {
            assert!(pause.begin(now, now, None));
            assert_eq!(pause.ends(now), Some(now + seconds * SECOND));
            now += seconds * SECOND;
        }
        pause.note_success(now);
        pause.begin(now, now, None);
        assert_eq!(pause.ends(now), Some(now + 5 * SECOND));
    }

    #[test]
    fn many_requests_in_flight_that_are_throttled_together_double_once() {
        let (mut pause, now) = (RateLimitPause::default(), Instant::now());
        for late in 1..64 {
            pause.begin(now, now + late * SECOND / 100, None);
        }
        let opens = pause.ends(now + SECOND / 100);
        assert_eq!(opens, Some(now + SECOND / 100 + 5 * SECOND));
        pause.begin(now, now + 9 * SECOND, None);
        assert_eq!(pause.ends(now + 9 * SECOND), None, "a late answer to a request sent before");
    }

    #[test]
    fn what_another_process_was_told_shuts_it_once_however_often_it_is_repeated() {
        let (mut pause, now) = (RateLimitPause::default(), Instant::now());
        assert!(pause.begin_for_peer(now, 20 * SECOND));
        assert!(!pause.begin_for_peer(now + SECOND, 19 * SECOND + SECOND / 100), "the same, a little late");
        assert_eq!(pause.ends(now + SECOND), Some(now + 20 * SECOND));
        assert!(pause.begin_for_peer(now + SECOND, 60 * SECOND), "it was told again, for longer");
    }

    #[test]
    fn a_long_pause_closes_the_intake_to_its_end() {
        let (mut pause, now) = (RateLimitPause::default(), Instant::now());
        pause.begin(now, now, Some(30 * SECOND));
        assert!(!pause.closes_intake(now));
        pause.begin(now, now, Some(31 * SECOND));
        assert!(pause.closes_intake(now + 30 * SECOND));
        assert!(!pause.closes_intake(now + 31 * SECOND));
    }

    #[test]
    fn the_time_shut_grows_only_while_it_is_shut() {
        let (mut pause, now) = (RateLimitPause::default(), Instant::now());
        pause.begin(now, now, Some(10 * SECOND));
        assert_eq!(pause.total(now + 4 * SECOND), 4 * SECOND);
        assert_eq!(pause.total(now + 60 * SECOND), 10 * SECOND);
        let again = now + 60 * SECOND;
        pause.begin(again, again, Some(10 * SECOND));
        pause.begin(again, again + 5 * SECOND, Some(10 * SECOND));
        assert_eq!(pause.total(again + 60 * SECOND), 25 * SECOND);
    }

    #[test]
    fn its_opening_is_noticed_once() {
        let (mut pause, now) = (RateLimitPause::default(), Instant::now());
        pause.begin(now, now, Some(SECOND));
        let noticed = [now, now + SECOND, now + 2 * SECOND].map(|now| pause.take_end(now));
        assert_eq!(noticed, [false, true, false]);
    }
}
