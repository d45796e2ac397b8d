//! The limits that an answer names (SPEC 4): the token's budget, and the pause that it asks for.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use serde_json::{Map, Value};
use tracing::warn;

use crate::http_date::read_http_date;

/// A window's end lies at most this long after `inin-ratelimit-reset`, which is in whole seconds.
pub(crate) const RESET_SLACK: Duration = Duration::from_secs(1);
/// The API's windows are of a minute: a longer `inin-ratelimit-reset` is something else, such as a time since 1970.
const LONGEST_WINDOW: Duration = Duration::from_secs(60);
/// The shortest pause: with `Retry-After: 0` all processes would send again at once.
const SHORTEST: Duration = Duration::from_secs(1);
/// Length from which a pause is logged, because milliseconds may have been meant.
pub const LONG_PAUSE: Duration = Duration::from_secs(3600);
/// The longest pause without asking again.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// The token's window, as the headers `inin-ratelimit-*` of an answer describe it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimitHeaders {
    /// Requests in a window.
    pub allowed: Option<u32>,
    /// Requests counted in this window so far.
    pub count: Option<u32>,
    /// The rest of this window, in whole seconds.
    pub reset: Option<Duration>,
}

impl RateLimitHeaders {
    /// Reads the headers. A count in a window that is too long counts as none.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<u32>().ok();
        let (allowed, count) = (number("inin-ratelimit-allowed"), number("inin-ratelimit-count"));
        match number("inin-ratelimit-reset").map(|seconds| Duration::from_secs(seconds.into())) {
            Some(reset) if reset > LONGEST_WINDOW => Self { allowed, count: None, reset: None },
            reset => Self { allowed, count, reset },
        }
    }
}

/// The scope of the limit that a 429 names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LimitScope {
    /// The limit of the token, which concerns this process.
    Token,
    /// The limit of the OAuth client, which concerns all processes of the fleet.
    Client,
    /// The limit of a service with this namespace, which concerns the endpoint and the kind of job.
    Service(String),
}

/// The namespace of the limits that the whole API shares.
const PLATFORM: &str = "platform.api";
/// Maximum length of a namespace, in characters.
const LONGEST_NAMESPACE: usize = 64;

/// Reads the scope of the limit that a body names. A namespace other than the platform's is a service's own, whatever
/// its key. The platform's keys of a token's limits name the token (`token.rate.per.minute`,
/// `client.credentials.token.rate.per.minute`), the client's does not (`org.app.user.rate.per.minute`); if none is
/// named, the token's is meant.
pub(crate) fn scope(details: &Map<String, Value>) -> LimitScope {
    let member = |name: &str| details.get("limit").and_then(|limit| limit[name].as_str()).map(str::trim);
    let of_service = |namespace: &&str| !namespace.is_empty() && !namespace.eq_ignore_ascii_case(PLATFORM);
    if let Some(namespace) = member("namespace").filter(of_service) {
        let plain = |char: &char| char.is_ascii_alphanumeric() || matches!(char, '.' | '-' | '_');
        return LimitScope::Service(namespace.chars().filter(plain).take(LONGEST_NAMESPACE).collect());
    }
    match member("key") {
        Some(key) if !key.is_empty() && !key.contains("token.") => LimitScope::Client,
        _ => LimitScope::Token,
    }
}

/// Reads the pause that an answer asks for, by the first of: `Retry-After` (seconds or HTTP date), the number in the
/// message, the window's end. `None` if there is none of them.
pub(crate) fn wait(headers: &HeaderMap, details: &Map<String, Value>, now: Timestamp) -> Option<Duration> {
    let reset = || RateLimitHeaders::of(headers).reset.map(|reset| reset + RESET_SLACK);
    let wait = retry_after(headers, now).or_else(|| in_message(details)).or_else(reset)?;
    Some(wait.clamp(SHORTEST, LONGEST))
}

/// Reads `Retry-After` alone: seconds, rounded up, or a date, by the clock that wrote it (`Date`), else by ours.
pub fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let written = text(RETRY_AFTER)?;
    if let Some(seconds) = seconds(written) {
        return Some(Duration::from_secs(seconds).min(LONGEST));
    }
    let date = read_http_date(written)?;
    let theirs = text(DATE).and_then(read_http_date).unwrap_or(now);
    Some(Duration::try_from(date.duration_since(theirs)).unwrap_or(Duration::ZERO).min(LONGEST))
}

/// Reads digits with or without a decimal point; any part of a second counts as one.
fn seconds(written: &str) -> Option<u64> {
    let (whole, part) = written.split_once('.').unwrap_or((written, ""));
    let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() + part.len() == 0 || !are_digits(whole) || !are_digits(part) {
        return None;
    }
    let whole = if whole.is_empty() { 0 } else { whole.parse().unwrap_or(u64::MAX) };
    Some(whole.saturating_add(u64::from(part.bytes().any(|digit| digit != b'0'))))
}

/// Warns of a pause of more than an hour: it is kept, and nothing is sent meanwhile.
pub(crate) fn warn_of_long_pause(endpoint: &str, wait: Option<Duration>) {
    if let Some(wait) = wait.filter(|wait| *wait > LONG_PAUSE) {
        let seconds = wait.as_secs();
        warn!(endpoint, seconds, "the API asks for a pause of more than an hour (Retry-After): it is kept");
    }
}

/// Finds `Retry the request in [N] seconds` in any text.
fn in_message(details: &Map<String, Value>) -> Option<Duration> {
    const BEFORE: &str = "retry the request in";
    details.values().filter_map(Value::as_str).find_map(|text| {
        let text = text.to_ascii_lowercase();
        let after = &text[text.find(BEFORE)? + BEFORE.len()..];
        let digits: String = after.trim_start_matches([' ', '[']).chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok().map(Duration::from_secs)
    })
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;

    const NOW: &str = "2026-03-01T12:00:00Z";
    const MESSAGE: &str = "Rate limit exceeded the maximum. Retry the request in [17] seconds";

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    fn seconds(pairs: &[(&'static str, &'static str)], message: &str) -> Option<u64> {
        let told = Map::from_iter([("message".to_owned(), message.into())]);
        wait(&headers(pairs), &told, NOW.parse().unwrap()).map(|wait| wait.as_secs())
    }

    #[test]
    fn retry_after_is_read_as_seconds_or_as_a_date() {
        assert_eq!(seconds(&[("retry-after", "58")], MESSAGE), Some(58));
        assert_eq!(seconds(&[("retry-after", "Sun, 01 Mar 2026 12:00:42 GMT")], MESSAGE), Some(42));
        assert_eq!(seconds(&[("retry-after", "Mon, 01 Mar 2026 12:00:42 GMT")], ""), Some(42), "a wrong weekday");
    }

    #[test]
    fn any_part_of_a_second_is_one() {
        for (written, waits) in [("1.5", 2), ("2.0", 2), ("0.001", 1), (".5", 1), ("7.", 7), ("007", 7), (" 3 ", 3)] {
            let pair = [("retry-after", written)];
            assert_eq!(seconds(&pair, MESSAGE), Some(waits), "{written:?}");
        }
        for none in ["1.5s", "-1", "1e3", "1,5", ".", "", "1.2.3", "+5"] {
            assert_eq!(seconds(&[("retry-after", none)], MESSAGE), Some(17), "{none:?}: the message tells");
        }
    }

    #[test]
    fn a_date_is_read_in_each_of_its_forms_and_by_the_clock_that_wrote_it() {
        for written in ["Sun, 01 Mar 2026 12:00:42 GMT", "Sunday, 01-Mar-26 12:00:42 GMT", "Sun Mar  1 12:00:42 2026"] {
            assert_eq!(seconds(&[("retry-after", written)], MESSAGE), Some(42), "{written}");
            let of_theirs = [("retry-after", written), ("date", "Sun, 01 Mar 2026 11:59:42 GMT")];
            assert_eq!(seconds(&of_theirs, MESSAGE), Some(60), "{written}");
        }
        let ahead = [("retry-after", "Sun, 01 Mar 2026 12:10:05 GMT"), ("date", "Sun Mar  1 12:10:00 2026")];
        assert_eq!(seconds(&ahead, ""), Some(5), "their clock is ten minutes ahead");
        let senseless = [("retry-after", "Sun, 01 Mar 2026 12:00:42 GMT"), ("date", "today")];
        assert_eq!(seconds(&senseless, ""), Some(42));
    }

    #[test]
    fn without_it_the_message_tells_then_the_windows_end() {
        assert_eq!(seconds(&[("inin-ratelimit-reset", "38")], MESSAGE), Some(17));
        assert_eq!(seconds(&[("retry-after", "soon"), ("inin-ratelimit-reset", "38")], ""), Some(39));
        assert_eq!(seconds(&[], "Retry the request in 9 seconds"), Some(9));
        assert_eq!(seconds(&[], "too many requests"), None);
    }

    #[test]
    fn no_wait_is_so_short_that_it_makes_a_storm_nor_so_long_that_it_never_ends() {
        assert_eq!(seconds(&[("retry-after", "0")], ""), Some(1));
        assert_eq!(seconds(&[("retry-after", "Sun, 01 Mar 2026 11:00:00 GMT")], ""), Some(1));
        assert_eq!(seconds(&[("retry-after", "99999999999999999999999")], ""), Some(24 * 3600));
    }

    #[test]
    fn a_limit_is_a_services_by_its_namespace_and_the_clients_where_its_key_does_not_name_the_token() {
        let service = |name: &str| LimitScope::Service(name.to_owned());
        let cut = "a2Jb".to_owned() + &"c".repeat(60);
        for (limit, reach_told) in [
            (serde_json::json!({"key": "token.rate.per.minute"}), LimitScope::Token),
            (serde_json::json!({"key": "client.credentials.token.rate.per.minute", "value": 300}), LimitScope::Token),
            (
                serde_json::json!({"key": "org.app.user.rate.per.minute", "namespace": "platform.api"}),
                LimitScope::Client,
            ),
            (serde_json::json!({"key": "org.app.user.rate.per.minute", "namespace": ""}), LimitScope::Client),
            (serde_json::json!({"key": "token.rate.per.minute", "namespace": "platform.api"}), LimitScope::Token),
            (serde_json::json!({"key": "requests.per.minute", "namespace": "integrations"}), service("integrations")),
            (
                serde_json::json!({"key": "token.rate.per.minute", "namespace": "web.messaging"}),
                service("web.messaging"),
            ),
            (serde_json::json!({"namespace": "a\u{1b}[2J b".to_owned() + &"c".repeat(500)}), service(&cut)),
            (serde_json::json!({"namespace": 7, "key": "org.app.user.rate.per.minute"}), LimitScope::Client),
            (serde_json::json!({"key": ""}), LimitScope::Token),
            (serde_json::json!("what"), LimitScope::Token),
        ] {
            let told = Map::from_iter([("limit".to_owned(), limit.clone())]);
            assert_eq!(scope(&told), reach_told, "{limit}");
        }
        assert_eq!(scope(&Map::new()), LimitScope::Token);
    }

    #[test]
    fn rates_that_are_no_numbers_are_not_told() {
        let told = headers(&[("inin-ratelimit-allowed", "300"), ("inin-ratelimit-count", "many")]);
        assert_eq!(RateLimitHeaders::of(&told), RateLimitHeaders { allowed: Some(300), count: None, reset: None });
    }

    #[test]
    fn a_window_that_cannot_be_is_not_believed_nor_waited_for() {
        for reset in ["61", "3600", "1796044712"] {
            let told =
                [("inin-ratelimit-allowed", "9"), ("inin-ratelimit-count", "9"), ("inin-ratelimit-reset", reset)];
            assert_eq!(
                RateLimitHeaders::of(&headers(&told)),
                RateLimitHeaders { allowed: Some(9), count: None, reset: None },
                "{reset}"
            );
            assert_eq!(seconds(&told, "too many requests"), None, "{reset}");
        }
    }
}
