//! A quick look at whether a job fits its schema, by rules read from the same document. What it admits, the schema's
//! validator accepts; what it does not admit may still be valid, and is left to the validator. As nearly every job is
//! admitted here, most processes never compile the validator, which takes as much code and memory as the rest of a
//! small worker.

use std::{collections::HashMap, ops::RangeInclusive};

use serde_json::Value;

/// The rules of a value. Those that a schema does not state admit everything.
#[derive(Debug, Default)]
pub(super) struct Fit {
    /// The names of the types that are allowed.
    types: Vec<String>,
    /// The values that are allowed.
    values: Vec<Value>,
    /// Alternatives, one of which has to admit the value.
    alternatives: Vec<Fit>,
    number: Range<i64>,
    length: Range<u64>,
    pattern: Option<Pattern>,
    count: Range<u64>,
    entries: Option<Box<Fit>>,
    members: HashMap<String, Fit>,
    required: Vec<String>,
    /// Other members are not allowed.
    closed: bool,
    /// There is a rule that only the validator knows.
    unknown: bool,
}

/// The least and the most.
#[derive(Debug, Default)]
struct Range<T>(Option<T>, Option<T>);

impl<T: PartialOrd> Range<T> {
    fn is_any(&self) -> bool {
        self.0.is_none() && self.1.is_none()
    }

    fn has(&self, value: &T) -> bool {
        self.0.as_ref().is_none_or(|least| least <= value) && self.1.as_ref().is_none_or(|most| value <= most)
    }
}

impl Fit {
    /// Reads the rules of `schema`.
    pub(super) fn of(schema: &Value) -> Self {
        let mut fit = Self::default();
        match schema {
            Value::Object(keywords) => {
                fit.unknown = !keywords.iter().all(|(keyword, rule)| fit.take(keyword, rule).is_some());
            }
            other => fit.unknown = *other != Value::Bool(true),
        }
        fit
    }

    /// Takes a rule over; `None` for one that is not known here.
    fn take(&mut self, keyword: &str, rule: &Value) -> Option<()> {
        match keyword {
            "$schema" | "title" | "description" | "default" => {}
            "type" => self.types = names(rule)?,
            "const" => self.values = vec![rule.clone()],
            "enum" => self.values.clone_from(rule.as_array()?),
            "anyOf" => self.alternatives = rule.as_array()?.iter().map(Self::of).collect(),
            "minimum" => self.number.0 = Some(rule.as_i64()?),
            "maximum" => self.number.1 = Some(rule.as_i64()?),
            "minLength" => self.length.0 = Some(rule.as_u64()?),
            "maxLength" => self.length.1 = Some(rule.as_u64()?),
            "pattern" => self.pattern = Some(Pattern::read(rule.as_str()?)?),
            "minItems" => self.count.0 = Some(rule.as_u64()?),
            "maxItems" => self.count.1 = Some(rule.as_u64()?),
            "items" => self.entries = Some(Box::new(Self::of(rule))),
            "properties" => {
                let members = rule.as_object()?.iter();
                self.members = members.map(|(name, schema)| (name.clone(), Self::of(schema))).collect();
            }
            "required" => self.required = names(rule)?,
            "additionalProperties" => self.closed = !rule.as_bool()?,
            _ => return None,
        }
        Some(())
    }

    /// Returns true for a value that certainly fits.
    pub(super) fn admits(&self, value: &Value) -> bool {
        !self.unknown
            && (self.types.is_empty() || self.types.iter().any(|name| is_of_type(value, name)))
            && (self.values.is_empty() || self.values.contains(value))
            && (self.alternatives.is_empty() || self.alternatives.iter().any(|one| one.admits(value)))
            && match value {
                Value::Null | Value::Bool(_) => true,
                Value::Number(number) => {
                    self.number.is_any() || number.as_i64().is_some_and(|number| self.number.has(&number))
                }
                Value::String(text) => {
                    (self.length.is_any() || self.length.has(&(text.chars().count() as u64)))
                        && self.pattern.as_ref().is_none_or(|pattern| pattern.matches(text))
                }
                Value::Array(entries) => {
                    self.count.has(&(entries.len() as u64))
                        && self.entries.as_ref().is_none_or(|fit| entries.iter().all(|entry| fit.admits(entry)))
                }
                Value::Object(members) => {
                    self.required.iter().all(|name| members.contains_key(name))
                        && members.iter().all(|(name, value)| match self.members.get(name) {
                            Some(fit) => fit.admits(value),
                            None => !self.closed,
                        })
                }
            }
    }
}

/// Reads a name, or a list of names.
fn names(rule: &Value) -> Option<Vec<String>> {
    match rule {
        Value::String(name) => Some(vec![name.clone()]),
        Value::Array(names) => names.iter().map(|name| name.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

/// Returns true for a value of the type `name`. A whole number with a fraction (`8.0`) is left to the validator.
fn is_of_type(value: &Value, name: &str) -> bool {
    match value {
        Value::Number(number) => name == "number" || name == "integer" && (number.is_i64() || number.is_u64()),
        other => type_of(other) == name,
    }
}

pub(super) fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// A pattern for texts of some ASCII characters: `^[A-Za-z0-9._-]{1,64}$`. Others are left to the validator.
#[derive(Debug)]
struct Pattern {
    allowed: Vec<RangeInclusive<u8>>,
    length: RangeInclusive<usize>,
}

impl Pattern {
    fn read(pattern: &str) -> Option<Self> {
        let (class, count) = pattern.strip_prefix("^[")?.strip_suffix("}$")?.split_once("]{")?;
        let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"^[]\\&~{}".contains(&byte);
        if !class.bytes().all(is_plain) {
            return None;
        }
        let (mut rest, mut allowed) = (class.as_bytes(), Vec::new());
        while let [first, after @ ..] = rest {
            let (last, after) = match after {
                [b'-', last, after @ ..] => (last, after),
                _ => (first, after),
            };
            allowed.push(*first..=*last);
            rest = after;
        }
        let (least, most) = count.split_once(',').unwrap_or((count, count));
        Some(Self { allowed, length: least.parse().ok()?..=most.parse().ok()? })
    }

    fn matches(&self, text: &str) -> bool {
        let is_allowed = |byte: u8| self.allowed.iter().any(|range| range.contains(&byte));
        self.length.contains(&text.len()) && text.bytes().all(is_allowed)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pattern_of_one_class_is_read_and_others_are_left_to_the_validator() {
        let pattern = Pattern::read("^[A-Fa-f0-9._:-]{1,4}$").unwrap();
        for (text, matches) in
            [("aF0.", true), ("_:-", true), ("", false), ("aaaaa", false), ("g", false), ("é", false), ("a\n", false)]
        {
            assert_eq!(pattern.matches(text), matches, "{text:?}");
        }
        assert!(Pattern::read("^[0-9]{12}$").unwrap().matches("123456789012"));
        for other in ["^[^a]{1,2}$", "[a]{1,2}$", "^[a]{1,2}", "^[a]+$", r"^[\d]{1,2}$", "^[a]{1,}$", "^[a]{2}[b]{2}$"]
        {
            assert!(Pattern::read(other).is_none(), "{other}");
        }
    }

    #[test]
    fn what_certainly_fits_is_admitted() {
        let fit = Fit::of(&json!({
            "type": "object", "required": ["list"], "additionalProperties": false,
            "properties": {
                "list": { "type": "array", "minItems": 1, "maxItems": 2, "items": { "type": "string", "maxLength": 2 } },
                "number": { "type": ["integer", "null"], "minimum": 1, "maximum": 50 },
                "choice": { "anyOf": [{ "enum": ["a", "b"] }, { "type": "null" }] },
                "time": { "type": "string", "format": "date-time" },
            },
        }));
        for (value, admitted) in [
            (json!({ "list": ["é€"], "number": 50, "choice": "b" }), true),
            (json!({ "list": ["", "a"], "number": null, "choice": null }), true),
            (json!({ "list": [], "number": 1 }), false),
            (json!({ "list": ["a", "b", "c"] }), false),
            (json!({ "list": ["abc"] }), false),
            (json!({ "list": [1] }), false),
            (json!({ "list": ["a"], "number": 51 }), false),
            (json!({ "list": ["a"], "number": "1" }), false),
            (json!({ "list": ["a"], "choice": "c" }), false),
            (json!({ "list": ["a"], "other": 1 }), false),
            (json!({ "number": 1 }), false),
            (json!([]), false),
            // Valid, and left to the validator.
            (json!({ "list": ["a"], "number": 1.0 }), false),
            (json!({ "list": ["a"], "time": "2026-11-20T12:00:00Z" }), false),
        ] {
            assert_eq!(fit.admits(&value), admitted, "{value}");
        }
    }
}
