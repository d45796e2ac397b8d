//! Applies transformations and mappings to a sample event. Pure. An error names its place.
//!
//! Values are borrowed from the sample, because a thousand directives may name the same large part of it. Each part is
//! examined once, so the time grows with the size of the sample plus the number of directives, not with their product.

use std::collections::{BTreeMap, HashMap};

use genfleet_core::job::Violation;
use serde::Serialize;
use serde_json::Value;

use crate::{
    digest::Digest,
    field::FieldPath,
    payload::{
        Payload,
        directive::{Directive, Makes},
    },
    time,
};

use self::{length::Lengths, projected::Projected};

mod length;
mod projected;

/// Maximum length of a projected event as JSON, in bytes, because it may contain the same part of a sample many times.
pub(crate) const MAX_BYTES: usize = 4 * 1024 * 1024;
/// Maximum length of a reported event as JSON. A longer one is reported as its SHA-256.
pub(crate) const MAX_TOLD_BYTES: usize = 64 * 1024;

/// A projected event.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Projection {
    /// The event, or the SHA-256 of one that is too long to be reported.
    pub event: Value,
    /// The fraction of directives that resolved; 1 if there are none.
    pub success_rate: f64,
}

impl Projection {
    /// Projects the payload's sample event, if it has one.
    pub(crate) fn of(payload: &Payload) -> Option<Self> {
        Some(Self::of_groups(payload.sample_event.as_ref()?, [(None, payload.directives())]))
    }

    /// Applies groups of directives to `sample`. Each result is under the group's name, or at the top if it has none.
    pub(crate) fn of_groups<'a, D: Iterator<Item = Directive<'a>>>(
        sample: &Value,
        groups: impl IntoIterator<Item = (Option<&'a str>, D)>,
    ) -> Self {
        let mut sample = sample.clone();
        sample.sort_all_objects();
        let (mut all, mut resolved) = (0_u32, 0_u32);
        let mut looks = Looks::default();
        let mut event = Node::empty();
        for (name, directives) in groups {
            let mut made = Node::empty();
            for directive in directives {
                all += 1;
                if let Ok(Some(value)) = looks.resolve(&directive, &sample) {
                    resolved += 1;
                    made.put(FieldPath::parse(directive.target), value);
                }
            }
            match (name, &mut event) {
                (Some(name), Node::Branch(members)) => drop(members.insert(name, made)),
                (_, event) => *event = made,
            }
        }
        let success_rate = if all == 0 { 1.0 } else { f64::from(resolved) / f64::from(all) };
        Self { event: report_value(&event), success_rate }
    }
}

/// Finds directives that do not resolve with `sample`, and a result that is too long. Invalid directives are reported
/// elsewhere.
pub(crate) fn violations<'a>(directives: impl Iterator<Item = Directive<'a>>, sample: &'a Value) -> Vec<Violation> {
    let (mut found, mut bytes) = (Vec::new(), 0);
    let (mut looks, mut lengths) = (Looks::default(), Lengths::default());
    for directive in directives {
        match looks.resolve(&directive, sample) {
            // Quotes, colon and comma.
            Ok(Some(made)) => bytes += directive.target.len() + 4 + lengths.of_projected(&made),
            Ok(None) => {}
            Err(why) => found.push(Violation::new(directive.pointer, why)),
        }
    }
    if bytes > MAX_BYTES {
        let message =
            format!("the directives make {bytes} bytes of JSON of it; at most {MAX_BYTES} are made: name less of it");
        found.push(Violation::new("/payload/sampleEvent", message));
    }
    found
}

/// The lists in which every entry has a path; otherwise the first entry without it.
#[derive(Default)]
struct Looks<'a>(HashMap<(&'a str, &'a str), Option<usize>>);

impl<'a> Looks<'a> {
    /// Applies a directive to an event. `None` if the directive is invalid; otherwise the value, or why there is none.
    fn resolve(&mut self, directive: &Directive<'a>, event: &'a Value) -> Result<Option<Projected<'a>>, String> {
        let source = directive.source;
        let (Some(path), Some(makes)) = (FieldPath::parse(source), directive.makes) else { return Ok(None) };
        let value = path.resolve(event).ok_or_else(|| format!("sampleEvent has no {}", quote_name(source)))?;
        let projected = match makes {
            Makes::Copy => Projected::Value(value),
            Makes::Entries(inner) => self.entries(source, value, inner)?,
            Makes::Iso8601 => Projected::Text(iso8601(source, value)?),
        };
        Ok(Some(projected))
    }

    fn entries(&mut self, source: &'a str, value: &'a Value, path: FieldPath<'a>) -> Result<Projected<'a>, String> {
        let message = quote_name(source);
        let Value::Array(entries) = value else {
            return Err(format!("{message} is no list in sampleEvent: nothing can be extracted from its entries"));
        };
        let without = || entries.iter().position(|entry| path.resolve(entry).is_none());
        match *self.0.entry((source, path.as_str())).or_insert_with(without) {
            Some(index) => {
                Err(format!("entry {index} of {message} has no {} in sampleEvent", quote_name(path.as_str())))
            }
            None => Ok(Projected::Entries { entries, path }),
        }
    }
}

/// Quotes a name for a violation.
pub(crate) fn quote_name(name: &str) -> String {
    const MOST: usize = 128;
    match name.char_indices().nth(MOST) {
        Some((end, _)) => format!("{:?}…", &name[..end]),
        None => format!("{name:?}"),
    }
}

fn iso8601(source: &str, value: &Value) -> Result<String, String> {
    let written = value.as_str().and_then(time::iso8601);
    written.ok_or_else(|| {
        format!("{} is no time in sampleEvent: it has to be a text such as 2026-11-20T12:00:00Z", quote_name(source))
    })
}

/// An object that is built from targets.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Node<'a, L> {
    Branch(BTreeMap<&'a str, Node<'a, L>>),
    Leaf(L),
}

impl<'a, L> Node<'a, L> {
    /// Creates an object without members.
    pub(crate) fn empty() -> Self {
        Self::Branch(BTreeMap::new())
    }

    /// Puts `value` at `target`. If targets conflict, the first one is kept; such a job is never worked.
    pub(crate) fn put(&mut self, target: Option<FieldPath<'a>>, value: L) {
        let mut names: Vec<&str> = target.into_iter().flat_map(FieldPath::names).collect();
        let Some(last) = names.pop() else { return };
        let mut node = self;
        for name in names {
            let Self::Branch(members) = node else { return };
            node = members.entry(name).or_insert_with(Self::empty);
        }
        if let Self::Branch(members) = node {
            members.entry(last).or_insert(Self::Leaf(value));
        }
    }
}

fn report_value(event: &Node<'_, Projected<'_>>) -> Value {
    let mut digest = Digest::default();
    if serde_json::to_writer(&mut digest, event).is_ok() && digest.bytes() > MAX_TOLD_BYTES {
        return Value::String(digest.hex());
    }
    serde_json::to_value(event).unwrap_or_default()
}

#[cfg(test)]
mod tests;
