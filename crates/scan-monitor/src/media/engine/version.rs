//! The version of clamd: `ClamAV 1.4.3/27500/Mon Nov 10 09:30:01 2026`. Pure.

use std::time::Duration;

use jiff::{Timestamp, civil::DateTime, fmt::strtime, tz::TimeZone};

/// The version of an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EngineVersion {
    /// The whole version text.
    pub text: String,
    /// Time at which its database was built; `None` if it has no official one.
    pub database_made: Option<Timestamp>,
}

impl EngineVersion {
    /// Parses the answer to `VERSION`. The time has no zone; UTC is accurate enough for an age in days.
    pub(crate) fn read(answer: &str) -> Self {
        let text: String = answer.trim().chars().filter(|each| !each.is_control()).take(200).collect();
        let date = text.splitn(3, '/').nth(2);
        let made = date.and_then(|date| {
            // Days below 10 are padded with a blank.
            let words = date.split_whitespace().collect::<Vec<_>>().join(" ");
            let read: DateTime = strtime::parse("%a %b %d %H:%M:%S %Y", words).ok()?.to_datetime().ok()?;
            read.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
        });
        Self { text, database_made: made }
    }

    /// Returns the age of the database.
    pub(crate) fn database_age(&self, now: Timestamp) -> Option<Duration> {
        Some(Duration::try_from(now.duration_since(self.database_made?)).unwrap_or_default())
    }

    /// Describes the problem of the database, if there is one.
    pub(crate) fn database_trouble(&self, now: Timestamp, max_age: Duration) -> Option<String> {
        match self.database_age(now) {
            None => Some(format!(
                "the engine says {:?}: it has no official virus database and knows only what somebody put in by hand; run freshclam",
                self.text
            )),
            Some(age) if age > max_age => Some(format!(
                "the engine's virus database is {} days old ({}); see whether freshclam runs, or raise --scanner-max-age",
                age.as_secs() / 86_400,
                self.text
            )),
            Some(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn the_age_of_the_database_is_read_from_the_version() {
        let now: Timestamp = "2026-11-12T09:30:01Z".parse().unwrap();
        let age = |answer: &str| EngineVersion::read(answer).database_age(now);
        assert_eq!(age("ClamAV 1.4.3/27500/Tue Nov 10 09:30:01 2026"), Some(2 * DAY));
        assert_eq!(age("ClamAV 1.4.3/27500/Mon Nov  2 09:30:01 2026"), Some(10 * DAY));
        assert_eq!(age("ClamAV 1.4.3/27500/Fri Nov 13 09:30:01 2026"), Some(Duration::ZERO), "its clock is ahead");
        for none in ["ClamAV 1.4.6", "ClamAV 1.4.6/27500", "ClamAV 1.4.6/27500/", "", "x/y/z"] {
            assert_eq!(age(none), None, "{none}");
        }
    }

    #[test]
    fn an_old_database_and_none_at_all_are_told_with_the_remedy() {
        let now: Timestamp = "2026-11-20T09:30:01Z".parse().unwrap();
        let trouble = |answer: &str| EngineVersion::read(answer).database_trouble(now, 7 * DAY);
        assert_eq!(trouble("ClamAV 1.4.3/27500/Fri Nov 13 09:30:01 2026"), None);
        let old = trouble("ClamAV 1.4.3/27500/Thu Nov 12 09:30:00 2026").unwrap();
        assert!(old.contains("8 days old") && old.contains("--scanner-max-age"), "{old}");
        assert!(trouble("ClamAV 1.4.6").unwrap().contains("freshclam"));
    }
}
