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

pub(super) fn bad(key: &str, value: &str, allowed: &str) -> String {
    format!("`{key}` cannot be `{value}`; it takes {allowed}")
}

fn needs(key: &str, other: &str) -> Result<(), String> {
    Err(format!("`{key}` needs `{other}`"))
}

fn excluded(key: &str, other: &str) -> Result<(), String> {
    Err(format!("`{key}` cannot be combined with `{other}`"))
}

impl FaultRule {
    /// Checks a rule that was not read from text.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.check_values()?;
        let acts = self.status.is_some() || self.body.is_some() || self.latency.is_some() || self.lost || self.hang;
        if !acts {
            return Err("the rule does nothing; give it one of status, body, latency, lost, hang".to_owned());
        }
        self.check_silence()?;
        if self.retry_after.is_some() && self.status.is_none() {
            return needs("retry-after", "status");
        }
        if self.limit.is_some() && self.status != Some(429) {
            return needs("limit", "status=429");
        }
        if self.content_type.is_some() && self.body.is_none() {
            return needs("content-type", "body");
        }
        Ok(())
    }

    fn check_values(&self) -> Result<(), String> {
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
    fn check_silence(&self) -> Result<(), String> {
        let silence = match (self.lost, self.hang) {
            (true, true) => return excluded("lost", "hang"),
            (true, false) => "lost",
            (false, true) => "hang",
            (false, false) => return Ok(()),
        };
        if self.status.is_some() {
            return excluded("status", silence);
        }
        if self.body.is_some() {
            return excluded("body", silence);
        }
        Ok(())
    }
}
