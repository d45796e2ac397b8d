//! The skew between this machine's clock and the API's, by the `Date` of the API's answers. Jobs expire by this
//! machine's clock.

use std::{collections::VecDeque, time::Duration};

use jiff::Timestamp;
use reqwest::header::{AGE, HeaderMap};

/// Number of answers whose median counts, because a single one may be wrong.
const ANSWERS: usize = 5;
/// Skew in seconds from which a warning is logged.
const WARN: u64 = 30;

/// Two clocks at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockReading {
    /// The API's time, in whole seconds.
    pub theirs: Timestamp,
    /// This machine's time at the arrival of the answer.
    pub ours: Timestamp,
    /// Maximum time that the answer was in transit.
    pub took: Duration,
}

impl ClockReading {
    /// Returns by how many seconds this machine's clock is ahead; below zero if it is behind. A difference that transit
    /// time and rounding to seconds can explain counts as zero.
    pub fn ahead(&self) -> i64 {
        let ahead = self.ours.duration_since(self.theirs).as_millis();
        let explained = i128::try_from(self.took.as_millis()).unwrap_or(i128::MAX).saturating_add(1000);
        let off = if ahead < 0 { ahead } else { (ahead - explained).max(0) };
        i64::try_from(off / 1000).unwrap_or(i64::MAX)
    }
}

#[derive(Debug, Default)]
pub(crate) struct ClockSkew {
    /// Seconds by which this machine's clock is ahead.
    ahead: VecDeque<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SkewChange {
    None,
    Apart,
    Agree,
}

impl ClockSkew {
    /// Returns true if the `Date` in `headers` is of now and not a cache's.
    pub(crate) fn is_fresh(headers: &HeaderMap) -> bool {
        !headers.contains_key(AGE)
    }

    pub(crate) fn note(&mut self, clocks: ClockReading) -> SkewChange {
        let was_off = self.is_off();
        self.ahead.push_back(clocks.ahead());
        if self.ahead.len() > ANSWERS {
            self.ahead.pop_front();
        }
        match (was_off, self.is_off()) {
            (false, true) => SkewChange::Apart,
            (true, false) => SkewChange::Agree,
            (false, false) | (true, true) => SkewChange::None,
        }
    }

    /// Returns by how many seconds this machine's clock is ahead, as the median of the last answers; below zero if it
    /// is behind.
    pub(crate) fn ahead(&self) -> Option<i64> {
        let mut sorted: Vec<i64> = self.ahead.iter().copied().collect();
        sorted.sort_unstable();
        sorted.get(sorted.len().checked_sub(1)? / 2).copied()
    }

    fn is_off(&self) -> bool {
        self.ahead().and_then(describe_skew).is_some()
    }

    /// Describes the skew if it is worth a warning.
    pub(crate) fn describe(&self) -> Option<String> {
        let skew = describe_skew(self.ahead()?)?;
        Some(format!("this machine's clock is {skew} the API's: set it by NTP, since jobs expire by it"))
    }
}

/// Describes a skew that is worth a warning, as in `600 s ahead of`.
pub fn describe_skew(ahead: i64) -> Option<String> {
    let seconds = Some(ahead.unsigned_abs()).filter(|seconds| *seconds >= WARN)?;
    Some(format!("{seconds} s {}", if ahead < 0 { "behind" } else { "ahead of" }))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::{SignedDuration, Timestamp};

    use super::*;

    fn note(skew: &mut ClockSkew, ahead: i64) -> SkewChange {
        let theirs: Timestamp = "2026-11-27T12:00:00Z".parse().unwrap();
        skew.note(ClockReading { theirs, ours: theirs + SignedDuration::from_secs(ahead), took: Duration::ZERO })
    }

    #[test]
    fn one_answer_of_somebody_else_changes_nothing() {
        let mut skew = ClockSkew::default();
        assert_eq!((skew.ahead(), skew.describe()), (None, None));
        for ahead in [0, 1, 9_000, 1, -9_000, 0] {
            assert_eq!(note(&mut skew, ahead), SkewChange::None, "{ahead}");
            assert!(skew.ahead().unwrap().abs() <= 1);
        }
    }

    #[test]
    fn a_clock_that_is_off_is_told_once_and_how_far() {
        let mut skew = ClockSkew::default();
        assert_eq!(note(&mut skew, -600), SkewChange::Apart);
        assert_eq!(note(&mut skew, -601), SkewChange::None);
        assert_eq!(skew.ahead(), Some(-601));
        assert!(skew.describe().unwrap().contains("is 601 s behind the API's: set it by NTP"), "{:?}", skew.describe());
        let corrected: Vec<SkewChange> = (0..4).map(|_| note(&mut skew, 0)).collect();
        assert_eq!(corrected.iter().filter(|news| **news == SkewChange::Agree).count(), 1);
        assert_eq!(skew.describe(), None);
    }

    #[test]
    fn ahead_is_told_as_ahead() {
        let mut skew = ClockSkew::default();
        note(&mut skew, 32);
        assert!(skew.describe().unwrap().contains("is 31 s ahead of the API's"), "{:?}", skew.describe());
        let told = [29, 30, -30].map(|ahead| describe_skew(ahead).is_some());
        assert_eq!(told, [false, true, true]);
    }

    #[test]
    fn what_the_way_and_the_whole_second_explain_is_no_skew() {
        let theirs: Timestamp = "2026-11-27T12:00:00Z".parse().unwrap();
        let ahead = |ours: &str, took| {
            ClockReading { theirs, ours: ours.parse().unwrap(), took: Duration::from_millis(took) }.ahead()
        };
        assert_eq!(ahead("2026-11-27T12:00:00.900Z", 0), 0);
        assert_eq!(ahead("2026-11-27T12:00:03Z", 2000), 0);
        assert_eq!(ahead("2026-11-27T12:00:11Z", 0), 10);
        assert_eq!(ahead("2026-11-27T11:59:50Z", 100), -10);
    }
}
