//! How far this machine's clock is off the API's, by the `Date` of the API's answers. Jobs expire by this machine's clock.

use std::collections::VecDeque;

use reqwest::header::{AGE, HeaderMap};

use crate::trial::Clocks;

/// Answers by which it is judged: of one alone, nobody knows who answered.
const ANSWERS: usize = 5;
/// Seconds off that are worth a warning.
pub const OFF: u64 = 30;

/// What the last answers said.
#[derive(Debug, Default)]
pub struct Skew {
    /// Seconds by which ours is ahead.
    ahead: VecDeque<i64>,
}

/// What an answer changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// Nothing.
    None,
    /// The clocks are apart now.
    Apart,
    /// They agree again.
    Agree,
}

impl Skew {
    /// Whether the `Date` in `headers` is of now: what a cache kept is as old as it says.
    pub fn is_fresh(headers: &HeaderMap) -> bool {
        !headers.contains_key(AGE)
    }

    /// One more answer.
    pub fn note(&mut self, clocks: Clocks) -> News {
        let was_off = self.is_off();
        self.ahead.push_back(clocks.ahead());
        if self.ahead.len() > ANSWERS {
            self.ahead.pop_front();
        }
        match (was_off, self.is_off()) {
            (false, true) => News::Apart,
            (true, false) => News::Agree,
            (false, false) | (true, true) => News::None,
        }
    }

    /// By how many seconds ours is ahead, below zero where it is behind: the median of the last answers.
    pub fn ahead(&self) -> Option<i64> {
        let mut sorted: Vec<i64> = self.ahead.iter().copied().collect();
        sorted.sort_unstable();
        sorted.get(sorted.len().checked_sub(1)? / 2).copied()
    }

    fn is_off(&self) -> bool {
        self.ahead().is_some_and(clock_is_off)
    }

    /// In words, where it is off.
    pub fn told(&self) -> Option<String> {
        let ahead = self.ahead().filter(|ahead| clock_is_off(*ahead))?;
        Some(format!(
            "this machine's clock is {} the API's: set it by NTP, since jobs expire by it",
            describe_skew(ahead)
        ))
    }
}

/// Whether that is worth a word.
pub fn clock_is_off(ahead: i64) -> bool {
    ahead.unsigned_abs() >= OFF
}

/// `600 s ahead of`.
pub fn describe_skew(ahead: i64) -> String {
    format!("{} s {}", ahead.unsigned_abs(), if ahead < 0 { "behind" } else { "ahead of" })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::{SignedDuration, Timestamp};

    use super::*;

    fn note(skew: &mut Skew, ahead: i64) -> News {
        let theirs: Timestamp = "2026-11-27T12:00:00Z".parse().unwrap();
        skew.note(Clocks { theirs, ours: theirs + SignedDuration::from_secs(ahead), took: Duration::ZERO })
    }

    #[test]
    fn one_answer_of_somebody_else_changes_nothing() {
        let mut skew = Skew::default();
        assert_eq!((skew.ahead(), skew.told()), (None, None));
        for ahead in [0, 1, 9_000, 1, -9_000, 0] {
            assert_eq!(note(&mut skew, ahead), News::None, "{ahead}");
            assert!(skew.ahead().unwrap().abs() <= 1);
        }
    }

    #[test]
    fn a_clock_that_is_off_is_told_once_and_how_far() {
        let mut skew = Skew::default();
        assert_eq!(note(&mut skew, -600), News::Apart);
        assert_eq!(note(&mut skew, -601), News::None);
        assert_eq!(skew.ahead(), Some(-601));
        assert!(skew.told().unwrap().contains("is 601 s behind the API's: set it by NTP"), "{:?}", skew.told());
        let corrected: Vec<News> = (0..4).map(|_| note(&mut skew, 0)).collect();
        assert_eq!(corrected.iter().filter(|news| **news == News::Agree).count(), 1);
        assert_eq!(skew.told(), None);
    }

    #[test]
    fn ahead_is_told_as_ahead() {
        let mut skew = Skew::default();
        note(&mut skew, 32);
        assert!(skew.told().unwrap().contains("is 31 s ahead of the API's"), "{:?}", skew.told());
        assert!(!clock_is_off(29) && clock_is_off(30) && clock_is_off(-30));
    }
}
