//! Fault rules as one line of text, for command lines.

use std::fmt;
use std::str::FromStr;

use super::check::{HEADER, KEYS, LIMIT, RATE, STATUS, bad};
use super::{FaultRule, LimitOf, RetryAfter};

const COUNT: &str = "a whole number, 0 or more";
const LATENCY: &str = "milliseconds or seconds, such as 200ms or 1.5s";
const FLAG: &str = "nothing, or true or false";
const TEXT: &str = "a text; in double quotes where it has a comma or a quote in it";

impl FromStr for FaultRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut rule = Self::default();
        let mut seen = Vec::new();
        for piece in pieces(text)? {
            let (key, value) = piece.split_once('=').map_or((piece, None), |(key, value)| (key, Some(value)));
            let key = key.trim();
            if seen.contains(&key) {
                return Err(format!("`{key}` is there twice"));
            }
            seen.push(key);
            set(&mut rule, key, &unquote(value.unwrap_or_default().trim()))?;
        }
        rule.check()?;
        Ok(rule)
    }
}

/// Splits a text at commas that are not in quotes.
fn pieces(text: &str) -> Result<Vec<&str>, String> {
    let (mut pieces, mut start, mut in_quotes, mut escaped) = (Vec::new(), 0, false, false);
    for (index, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' if in_quotes => escaped = true,
            '"' => in_quotes = !in_quotes,
            ',' if !in_quotes => {
                pieces.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    if in_quotes {
        return Err("a double quote is not closed".to_owned());
    }
    pieces.push(&text[start..]);
    pieces.retain(|piece| !piece.trim().is_empty());
    Ok(pieces)
}

fn unquote(value: &str) -> String {
    let Some(inside) = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return value.to_owned();
    };
    let mut text = String::with_capacity(inside.len());
    let mut characters = inside.chars();
    while let Some(character) = characters.next() {
        text.extend(if character == '\\' { characters.next() } else { Some(character) });
    }
    text
}

fn set(rule: &mut FaultRule, key: &str, value: &str) -> Result<(), String> {
    match key {
        "name" => rule.name = Some(require_value("name", value, TEXT)?),
        "method" => rule.method = Some(require_value("method", value, TEXT)?),
        "path" => rule.path = Some(require_value("path", value, TEXT)?),
        "body-contains" => rule.body_contains = Some(require_value("body-contains", value, TEXT)?),
        "rate" => rule.rate = parse("rate", value, RATE)?,
        "times" => rule.times = Some(parse("times", value, COUNT)?),
        "after" => rule.after = Some(parse("after", value, COUNT)?),
        "status" => rule.status = Some(parse("status", value, STATUS)?),
        "retry-after" => rule.retry_after = Some(retry_after(value)),
        "limit" => rule.limit = Some(limit(value).ok_or_else(|| bad("limit", value, LIMIT))?),
        "body" => rule.body = Some(value.to_owned()),
        "content-type" => rule.content_type = Some(require_value("content-type", value, HEADER)?),
        "latency" => {
            rule.latency = Some(milliseconds(value).ok_or_else(|| bad("latency", value, LATENCY))?);
        }
        "lost" => rule.lost = flag("lost", value)?,
        "hang" => rule.hang = flag("hang", value)?,
        "effect" => rule.effect = Some(flag("effect", value)?),
        _ => return Err(format!("unknown key `{key}`; a rule has {KEYS}, separated by commas")),
    }
    Ok(())
}

fn require_value(key: &str, value: &str, allowed: &str) -> Result<String, String> {
    if value.is_empty() { Err(bad(key, value, allowed)) } else { Ok(value.to_owned()) }
}

fn parse<T: FromStr>(key: &str, value: &str, allowed: &str) -> Result<T, String> {
    value.parse().map_err(|_| bad(key, value, allowed))
}

fn flag(key: &str, value: &str) -> Result<bool, String> {
    if value.is_empty() { Ok(true) } else { parse(key, value, FLAG) }
}

fn retry_after(value: &str) -> RetryAfter {
    value.parse().map_or_else(|_| RetryAfter::Date(value.to_owned()), RetryAfter::Seconds)
}

fn limit(value: &str) -> Option<LimitOf> {
    [LimitOf::Token, LimitOf::Client].into_iter().find(|limit| limit.as_str() == value)
}

impl LimitOf {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Client => "client",
        }
    }
}

fn milliseconds(value: &str) -> Option<u64> {
    if let Some(number) = value.strip_suffix("ms") {
        return number.trim().parse().ok();
    }
    let Some(seconds) = value.strip_suffix('s') else {
        return value.parse().ok();
    };
    let duration = std::time::Duration::try_from_secs_f64(seconds.trim().parse().ok()?).ok()?;
    u64::try_from(duration.as_millis()).ok()
}

impl FaultRule {
    /// The keys and values that differ from the defaults: first the effects, then the conditions.
    fn pairs(&self) -> Vec<(&'static str, String)> {
        let text = |value: &Option<String>| value.as_deref().map(quote);
        let count = |value: Option<u64>| value.map(|value| value.to_string());
        let flag = |value: bool| value.then(String::new);
        let pairs = [
            ("lost", flag(self.lost)),
            ("hang", flag(self.hang)),
            ("status", self.status.map(|status| status.to_string())),
            ("retry-after", self.retry_after.as_ref().map(|value| quote(&value.to_string()))),
            ("limit", self.limit.map(|limit| limit.as_str().to_owned())),
            ("body", text(&self.body)),
            ("content-type", text(&self.content_type)),
            ("latency", self.latency.map(|latency| format!("{latency}ms"))),
            ("effect", self.effect.map(|effect| effect.to_string())),
            ("rate", (!super::is_always(&self.rate)).then(|| self.rate.to_string())),
            ("times", count(self.times)),
            ("after", count(self.after)),
            ("method", text(&self.method)),
            ("path", text(&self.path)),
            ("body-contains", text(&self.body_contains)),
            ("name", text(&self.name)),
        ];
        pairs.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
    }
}

impl fmt::Display for FaultRule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (key, value)) in self.pairs().into_iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let equals = if value.is_empty() { "" } else { "=" };
            write!(formatter, "{comma}{key}{equals}{value}")?;
        }
        Ok(())
    }
}

fn quote(value: &str) -> String {
    let is_plain = !value.is_empty() && value.trim() == value && !value.contains([',', '"', '\\']);
    if is_plain { value.to_owned() } else { format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")) }
}
