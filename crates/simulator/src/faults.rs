//! Fault rules: which requests a rule matches, and when it fires.
//!
//! The pipeline applies the rules. The one-line text form is in [`text`], and the checks of a rule are
//! in [`check`].

mod check;
mod text;

use std::fmt;

use serde::{Deserialize, Serialize};

/// A fault rule: which requests it matches, how often it fires, and its effect.
///
/// As JSON in camelCase, or as one line: `status=429,rate=0.2,retry-after=2,path=/api/v2/external/cdn/purge`,
/// `lost,rate=0.05`, `latency=200ms`. A value with a comma or a quote in it is put in double quotes, with `\"` and
/// `\\`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct FaultRule {
    /// The rule's name in the record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Matches only this method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Matches only paths with this prefix. Without it the rule matches every API path, but not the token endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Matches only requests whose raw body contains this text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_contains: Option<String>,
    /// The probability that it fires, 0 to 1.
    #[serde(skip_serializing_if = "is_always")]
    pub rate: f64,
    /// Maximum number of times that it fires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times: Option<u64>,
    /// Number of matching requests before it fires for the first time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// Status of the answer, 200 to 599, with the platform's error body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The `Retry-After` header of that answer. Without it there is none, even on a 429.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<RetryAfter>,
    /// The limit that the body of a 429 names: the token's by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<LimitOf>,
    /// The body of the answer, instead of the usual one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The type of that body; JSON by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Milliseconds to wait after the effect and before the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<u64>,
    /// True to close the connection without an answer, after the effect.
    #[serde(skip_serializing_if = "is_false")]
    pub lost: bool,
    /// True if not to answer; the connection is closed after ten minutes.
    #[serde(skip_serializing_if = "is_false")]
    pub hang: bool,
    /// True if the request has its effect. By default it does not with `status` and `hang`, and does
    /// otherwise. `lost` with `false` loses the request and not only its answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effect: Option<bool>,
}

impl Default for FaultRule {
    /// A rule that matches every API request and has no effect.
    fn default() -> Self {
        Self {
            name: None,
            method: None,
            path: None,
            body_contains: None,
            rate: 1.0,
            times: None,
            after: None,
            status: None,
            retry_after: None,
            limit: None,
            body: None,
            content_type: None,
            latency: None,
            lost: false,
            hang: false,
            effect: None,
        }
    }
}

/// The limit that an injected 429 names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LimitOf {
    /// The limit of the request's token.
    Token,
    /// The limit of the client, for all its tokens.
    Client,
}

/// The value of a `Retry-After` header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RetryAfter {
    /// Whole seconds.
    Seconds(u64),
    /// An HTTP date.
    Date(String),
}

impl fmt::Display for RetryAfter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seconds(seconds) => seconds.fmt(formatter),
            Self::Date(date) => date.fmt(formatter),
        }
    }
}

// serde hands `skip_serializing_if` a reference; a rate of exactly 1 is the default.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    clippy::float_cmp,
    reason = "serde's signature; compared with the default"
)]
fn is_always(rate: &f64) -> bool {
    *rate == 1.0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

/// The parts of a request that rules check.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) body: &'a [u8],
    pub(crate) is_token_endpoint: bool,
}

impl FaultRule {
    /// Returns true if the request reaches its route.
    pub(crate) fn has_effect(&self) -> bool {
        self.effect.unwrap_or(self.status.is_none() && !self.hang)
    }

    fn meets(&self, target: Target<'_>) -> bool {
        self.method.as_ref().is_none_or(|method| method.eq_ignore_ascii_case(target.method))
            && self.path.as_ref().map_or(!target.is_token_endpoint, |prefix| target.path.starts_with(prefix.as_str()))
            && self.body_contains.as_ref().is_none_or(|part| contains(target.body, part.as_bytes()))
    }

    fn label(&self, index: usize) -> String {
        self.name.clone().unwrap_or_else(|| format!("#{index}"))
    }
}

fn contains(body: &[u8], part: &[u8]) -> bool {
    part.is_empty() || body.windows(part.len()).any(|window| window == part)
}

/// The current rules, in order, with counts of matches and fires.
#[derive(Debug, Default)]
pub(crate) struct Faults(Vec<Armed>);

/// A current rule with its counts.
#[derive(Debug, Serialize)]
pub(crate) struct Armed {
    rule: FaultRule,
    text: String,
    met: u64,
    fired: u64,
}

impl Faults {
    pub(crate) fn new(rules: Vec<FaultRule>) -> Self {
        Self(rules.into_iter().map(Armed::new).collect())
    }

    pub(crate) fn add(&mut self, rule: FaultRule) {
        self.0.push(Armed::new(rule));
    }

    pub(crate) fn all(&self) -> &[Armed] {
        &self.0
    }

    /// Returns the first rule that matches the request and fires, with its name for the record. `roll` returns a number
    /// from 0 to 1, 1 excluded.
    pub(crate) fn choose(&mut self, target: Target<'_>, roll: impl Fn() -> f64) -> Option<(String, FaultRule)> {
        let fires = |(_, armed): &mut (usize, &mut Armed)| armed.rule.meets(target) && armed.fires(&roll);
        let (index, armed) = self.0.iter_mut().enumerate().find_map(|mut entry| fires(&mut entry).then_some(entry))?;
        Some((armed.rule.label(index), armed.rule.clone()))
    }
}

impl Armed {
    fn new(rule: FaultRule) -> Self {
        Self { text: rule.to_string(), rule, met: 0, fired: 0 }
    }

    fn fires(&mut self, roll: impl Fn() -> f64) -> bool {
        self.met += 1;
        let is_due = self.met > self.rule.after.unwrap_or(0) && self.rule.times.is_none_or(|times| self.fired < times);
        let fires = is_due && roll() < self.rule.rate;
        self.fired += u64::from(fires);
        fires
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Target<'_> =
        Target { method: "POST", path: "/api/v2/a", body: br#"{"paths":["/x"]}"#, is_token_endpoint: false };

    fn fired(rules: &[&str], rolls: &[f64]) -> Vec<Option<String>> {
        let mut faults = Faults::new(rules.iter().map(|rule| rule.parse().unwrap()).collect());
        rolls.iter().map(|roll| faults.choose(TARGET, || *roll).map(|(label, _)| label)).collect()
    }

    fn labels(labels: &[Option<&str>]) -> Vec<Option<String>> {
        labels.iter().map(|label| label.map(str::to_owned)).collect()
    }

    #[test]
    fn the_first_rule_that_fires_wins() {
        let rules = ["lost,method=GET", "lost,rate=0.5", "hang,name=second"];
        assert_eq!(fired(&rules, &[0.4, 0.5]), labels(&[Some("#1"), Some("second")]));
    }

    #[test]
    fn a_rule_skips_the_first_it_meets_and_fires_only_so_often() {
        assert_eq!(fired(&["lost,after=1,times=2"], &[0.0; 4]), labels(&[None, Some("#0"), Some("#0"), None]));
    }

    #[test]
    fn a_request_that_a_rate_lets_go_does_not_use_up_a_time() {
        assert_eq!(fired(&["lost,rate=0.5,times=1"], &[0.9, 0.1, 0.1]), labels(&[None, Some("#0"), None]));
    }

    #[test]
    fn a_rule_without_a_path_does_not_meet_the_token_endpoint() {
        let token = Target { path: "/oauth/token", is_token_endpoint: true, ..TARGET };
        let meets = |rule: &str| rule.parse::<FaultRule>().unwrap().meets(token);
        assert!(!meets("lost"));
        assert!(meets("lost,path=/oauth/token"));
        assert!(!meets("lost,path=/api"));
    }

    #[test]
    fn a_rule_looks_at_the_raw_body() {
        let meets = |rule: &str| rule.parse::<FaultRule>().unwrap().meets(TARGET);
        assert!(meets("lost,body-contains=/x,method=post"));
        assert!(!meets("lost,body-contains=/y"));
    }
}
