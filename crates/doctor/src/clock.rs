//! Whether this machine's clock is that of others: `notBefore` and `deadline` are times of day, and receivers of
//! webhooks refuse what is minutes old.

use std::time::Duration;

pub(crate) use genfleet_core::genesys::ClockReading;
use genfleet_core::{
    clock::{Clock, SystemClock},
    genesys::read_http_date,
};
use reqwest::header::{DATE, HeaderMap};

use super::finding::Finding;

/// Seconds off that are worth a word, and that are wrong.
const WARNS: u64 = 5;
const FAILS: u64 = 60;

/// The two clocks at an answer that came `took` after it was asked for.
pub(crate) fn of(headers: &HeaderMap, took: Duration) -> Option<ClockReading> {
    let theirs = read_http_date(headers.get(DATE)?.to_str().ok()?)?;
    Some(ClockReading { theirs, ours: SystemClock.now(), took })
}

/// Judges how far they are apart.
pub(crate) fn judge(check: &'static str, theirs: &str, clocks: ClockReading) -> Finding {
    let ahead = clocks.ahead();
    let looked_at = format!("this machine's clock against {theirs}");
    let side = if ahead < 0 { "behind" } else { "ahead" };
    let found = format!("{} s {side}", ahead.unsigned_abs());
    let remedy =
        "set the clocks by NTP (timedatectl set-ntp true): notBefore, deadlines and webhook signatures are off by it";
    match ahead.unsigned_abs() {
        0..WARNS => Finding::ok(check, looked_at, "the same"),
        WARNS..FAILS => Finding::warning(check, looked_at, found, remedy),
        _ => Finding::failed(check, looked_at, found, remedy),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Level, *};

    #[test]
    fn seconds_are_worth_a_word_and_minutes_are_wrong() {
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
