//! Whether this machine's clock agrees with others: `notBefore` and `deadline` are times of day, and receivers of
//! webhooks refuse deliveries that are minutes old.

use std::time::Duration;

pub(crate) use genfleet_core::genesys::ClockReading;
use genfleet_core::{
    clock::{Clock, SystemClock},
    genesys::read_http_date,
};
use reqwest::header::{DATE, HeaderMap};

use super::finding::{Check, Finding};

/// The difference in seconds from which on a finding is a warning.
const WARNING_SECONDS: u64 = 5;
/// The difference in seconds from which on a finding is a failure.
const FAILURE_SECONDS: u64 = 60;

/// Reads both clocks from the headers of an answer that arrived `took` after its request was sent.
pub(crate) fn of(headers: &HeaderMap, took: Duration) -> Option<ClockReading> {
    let theirs = read_http_date(headers.get(DATE)?.to_str().ok()?)?;
    Some(ClockReading { theirs, ours: SystemClock.now(), took })
}

/// Judges the difference between this machine's clock and another one, called `theirs` in the finding.
pub(crate) fn judge(check: &'static str, theirs: &str, clocks: ClockReading) -> Finding {
    let ahead = clocks.ahead();
    let check = Check::new(check, format!("this machine's clock against {theirs}"));
    let side = if ahead < 0 { "behind" } else { "ahead" };
    let found = format!("{} s {side}", ahead.unsigned_abs());
    let remedy = "synchronise the clocks with NTP (timedatectl set-ntp true): notBefore, deadlines and webhook \
                  signatures depend on them";
    match ahead.unsigned_abs() {
        0..WARNING_SECONDS => check.ok("the same"),
        WARNING_SECONDS..FAILURE_SECONDS => check.warning(found, remedy),
        _ => check.failed(found, remedy),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Level, *};

    #[test]
    fn seconds_are_a_warning_and_minutes_a_failure() {
        for (ours, level) in [
            ("2026-11-27T12:00:03Z", Level::Ok),
            ("2026-11-27T12:00:20Z", Level::Warning),
            ("2026-11-27T11:59:40Z", Level::Warning),
            ("2026-11-27T12:02:00Z", Level::Failed),
        ] {
            let theirs = "2026-11-27T12:00:00Z".parse().unwrap();
            let clocks = ClockReading { theirs, ours: ours.parse().unwrap(), took: Duration::ZERO };
            assert_eq!(judge("x", "theirs", clocks).level, level, "{ours}");
        }
    }
}
