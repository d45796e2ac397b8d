//! Checks of fault rules, in text form or as JSON.

use axum::http::HeaderValue;

use super::{FaultRule, RetryAfter};

pub(super) const KEYS: &str = "name, method, path, body-contains, rate, times, after, status, \
                               retry-after, limit, body, content-type, latency, lost, hang, effect";
pub(super) const RATE: &str = "a number from 0 to 1, such as 0.2";
pub(super) const STATUS: &str = "a status from 200 to 599";
pub(super) const RETRY_AFTER: &str =
    "whole seconds, or an HTTP date in double quotes, such as \"Wed, 21 Oct 2026 07:28:00 GMT\"";
pub(super) const LIMIT: &str = "token or client";
pub(super) const HEADER: &str = "a text that can stand in a header";
const PATH: &str = "what a path begins with, such as /api/v2";

/// The error in a fault rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultRuleError {
    /// An unknown key.
    #[error("unknown key `{key}`; a rule has {KEYS}, separated by commas")]
    UnknownKey {
        /// The key as it was written.
        key: String,
    },
    /// A key that was given more than once.
    #[error("`{key}` is there twice")]
    Twice {
        /// The key.
        key: String,
    },
    /// An invalid value.
    #[error("`{key}` cannot be `{value}`; it takes {allowed}")]
    BadValue {
        /// The key.
        key: &'static str,
        /// The value as it was written.
        value: String,
        /// The valid values.
        allowed: &'static str,
    },
    /// A quoted text without closing quote.
    #[error("a double quote is not closed")]
    OpenQuote,
    /// A rule without an effect.
    #[error("the rule does nothing; give it one of status, body, latency, lost, hang")]
    DoesNothing,
    /// Two keys that exclude each other.
    #[error("`{key}` does not go with `{other}`")]
    Excluded {
        /// The first key.
        key: &'static str,
        /// The second key.
        other: &'static str,
    },
    /// A key that requires another one.
    #[error("`{key}` needs `{other}`")]
    Needs {
        /// The key.
        key: &'static str,
        /// The missing key.
        other: &'static str,
    },
}

pub(super) fn bad(key: &'static str, value: &str, allowed: &'static str) -> FaultRuleError {
    FaultRuleError::BadValue { key, value: value.to_owned(), allowed }
}

impl FaultRule {
    /// Checks a rule that was not read from text.
    pub(crate) fn check(&self) -> Result<(), FaultRuleError> {
        self.check_values()?;
        let acts = self.status.is_some() || self.body.is_some() || self.latency.is_some() || self.lost || self.hang;
        if !acts {
            return Err(FaultRuleError::DoesNothing);
        }
        self.check_silence()?;
        if self.retry_after.is_some() && self.status.is_none() {
            return Err(FaultRuleError::Needs { key: "retry-after", other: "status" });
        }
        if self.limit.is_some() && self.status != Some(429) {
            return Err(FaultRuleError::Needs { key: "limit", other: "status=429" });
        }
        if self.content_type.is_some() && self.body.is_none() {
            return Err(FaultRuleError::Needs { key: "content-type", other: "body" });
        }
        Ok(())
    }

    fn check_values(&self) -> Result<(), FaultRuleError> {
        if !(0.0..=1.0).contains(&self.rate) {
            return Err(bad("rate", &self.rate.to_string(), RATE));
        }
        if let Some(status) = self.status.filter(|status| !(200..=599).contains(status)) {
            return Err(bad("status", &status.to_string(), STATUS));
        }
        if let Some(RetryAfter::Date(date)) = &self.retry_after
            && jiff::fmt::rfc2822::parse(date).is_err()
        {
            return Err(bad("retry-after", date, RETRY_AFTER));
        }
        if let Some(path) = self.path.as_ref().filter(|path| !path.starts_with('/')) {
            return Err(bad("path", path, PATH));
        }
        if let Some(content_type) = &self.content_type
            && HeaderValue::from_str(content_type).is_err()
        {
            return Err(bad("content-type", content_type, HEADER));
        }
        Ok(())
    }

    /// Checks that a rule without an answer has no keys for the answer.
    fn check_silence(&self) -> Result<(), FaultRuleError> {
        let silence = match (self.lost, self.hang) {
            (true, true) => {
                return Err(FaultRuleError::Excluded { key: "lost", other: "hang" });
            }
            (true, false) => "lost",
            (false, true) => "hang",
            (false, false) => return Ok(()),
        };
        if self.status.is_some() {
            return Err(FaultRuleError::Excluded { key: "status", other: silence });
        }
        if self.body.is_some() {
            return Err(FaultRuleError::Excluded { key: "body", other: silence });
        }
        Ok(())
    }
}
