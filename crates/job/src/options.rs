//! Parts that all settings use (SPEC 10): durations, secrets from variables or files, and configuration errors.

use std::{env, fs, net::IpAddr, time::Duration};

use jiff::{SignedDuration, Span, SpanRelativeTo};
use secrecy::SecretString;
use url::{Host, Url};

use crate::text;

const DAY: u64 = 24 * 3600;

/// An error of configuration, which ends the process with exit code 64.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

impl ConfigError {
    /// An error; the message says what is wrong and what to do.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// Returns true if requests to `url` leave this machine without encryption.
pub fn is_unencrypted_remote(url: &Url) -> bool {
    let is_here = match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.to_canonical().is_loopback(),
        // In amqp:// URLs an IP address is a domain, too.
        Some(Host::Domain(name)) => {
            let address = name.trim_matches(['[', ']']).parse::<IpAddr>();
            name == "localhost" || name.ends_with(".localhost") || address.is_ok_and(|address| address.is_loopback())
        }
        None => true,
    };
    matches!(url.scheme(), "http" | "amqp") && !is_here
}

/// Parses a duration as written in flags: `20ms`, `5s`, `10m`, `1h`, `7d`, `1m30s`, `0ms`.
pub fn duration(written: &str) -> Result<Duration, ConfigError> {
    let wrong =
        |why: String| ConfigError(format!("{written:?} is not a duration ({why}); write 20ms, 5s, 10m, 1h or 7d"));
    if written.trim().parse::<f64>().is_ok() {
        return Err(wrong("the unit is missing".to_owned()));
    }
    let span: Option<Span> = written.parse().ok();
    let parsed = span.and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()).ok());
    let parsed = parsed.ok_or_else(|| wrong("a number and a unit are expected".to_owned()))?;
    Duration::try_from(parsed).map_err(|_| wrong("it is negative".to_owned()))
}

/// Parses a [`duration`] longer than zero.
pub fn positive_duration(written: &str) -> Result<Duration, ConfigError> {
    match duration(written)? {
        Duration::ZERO => Err(ConfigError(format!("{written:?}: must be longer than zero"))),
        longer => Ok(longer),
    }
}

/// Formats a duration as [`duration`] reads it.
pub fn format_duration(duration: Duration) -> String {
    let (days, rest) = (duration.as_secs() / DAY, Duration::new(duration.as_secs() % DAY, duration.subsec_nanos()));
    let written = SignedDuration::try_from(rest).map(|rest| format!("{rest:#}").replace(' ', "")).unwrap_or_default();
    match (days, rest.is_zero()) {
        (0, _) => written,
        (_, true) => format!("{days}d"),
        (_, false) => format!("{days}d{written}"),
    }
}

/// Reads the secret in variable `name`, or in the file that `<name>_FILE` names; the file is read at every call, so
/// that rotation is noticed. A byte order mark before and line ends after the secret are removed. `None` if neither
/// variable is set; an empty one counts as not set.
pub fn secret(name: &str) -> Result<Option<SecretString>, ConfigError> {
    let set = |variable: &str| {
        let value = env::var(variable).ok()?;
        Some(text::trim(&value).to_owned()).filter(|value| !value.is_empty())
    };
    let file_variable = format!("{name}_FILE");
    match (set(name), set(&file_variable)) {
        (Some(_), Some(_)) => Err(ConfigError(format!("both {name} and {file_variable} are set: set one of them"))),
        (Some(value), None) => Ok(Some(value.into())),
        (None, Some(path)) => {
            let text = fs::read_to_string(&path)
                .map_err(|error| ConfigError(format!("{file_variable} names {path}, which cannot be read: {error}")))?;
            let trimmed = text::trim(&text);
            if trimmed.is_empty() {
                return Err(ConfigError(format!("{file_variable} names {path}, which is empty")));
            }
            Ok(Some(trimmed.to_owned().into()))
        }
        (None, None) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, millis) in [
            ("20ms", 20),
            ("5s", 5_000),
            ("10m", 600_000),
            ("1h", 3_600_000),
            ("1m30s", 90_000),
            ("0ms", 0),
            ("7d", 604_800_000),
            ("1d2h", 93_600_000),
            ("168h", 604_800_000),
            ("1d1ms", 86_400_001),
        ] {
            let read = duration(text).unwrap();
            assert_eq!(read, Duration::from_millis(millis), "{text}");
            assert_eq!(duration(&format_duration(read)).unwrap(), read, "{text} is written back");
        }
    }

    #[test]
    fn unencrypted_requests_that_leave_this_machine_are_recognised() {
        for (url, readable) in [
            ("http://api.example:8080/x", true),
            ("http://10.0.0.1", true),
            ("http://[2001:db8::1]", true),
            ("amqp://u:p@broker", true),
            ("amqp://u:p@10.0.0.1:5672/v", true),
            ("http://localhost.example", true),
            ("https://api.example", false),
            ("amqps://u:p@broker", false),
            ("http://localhost:1", false),
            ("http://sim.localhost:1", false),
            ("http://127.8.0.1:1", false),
            ("http://[::1]:1", false),
            ("amqp://u:p@127.0.0.1", false),
            ("amqp://u:p@[::1]:5672", false),
        ] {
            assert_eq!(is_unencrypted_remote(&Url::parse(url).unwrap()), readable, "{url}");
        }
    }

    #[test]
    fn a_duration_without_unit_or_below_zero_says_how_to_write_one() {
        for text in ["5", "", "-5s", "-1d", "fast", "1mo", "7D d"] {
            let error = duration(text).unwrap_err().to_string();
            assert!(error.contains("write 20ms, 5s, 10m, 1h or 7d"), "{text}: {error}");
        }
    }
}
