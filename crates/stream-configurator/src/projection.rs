//! What transformations and mappings make of a sample event. Pure; it can fail, and then says where.
//!
//! Values stay where they are in the sample: a thousand directives may name the same large part of it.

use std::collections::BTreeMap;

use genfleet_core::job::Violation;
use serde::{Serialize, Serializer};
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

/// A projected event that is longer than this as JSON is told as its SHA-256.
pub const MAX_TOLD_BYTES: usize = 64 * 1024;

/// A projected event.
#[derive(Clone, Debug, PartialEq)]
pub struct Projection {
    /// The event, or the SHA-256 of one that is too long to be told.
    pub event: Value,
    /// The share of directives that resolved; 1 where there is none.
    pub success_rate: f64,
}

impl Projection {
    /// What is made of the payload's sample event, where it has one.
    pub fn of(payload: &Payload) -> Option<Self> {
        let mut sample = payload.sample_event.clone()?;
        sample.sort_all_objects();
        let mut event = Node::Branch(BTreeMap::new());
        let (mut all, mut resolved) = (0_u32, 0_u32);
        for directive in payload.directives() {
            all += 1;
            if let Ok(Some(value)) = resolve(&directive, &sample) {
                resolved += 1;
                event.put(FieldPath::parse(directive.target), value);
            }
        }
        let success_rate = if all == 0 { 1.0 } else { f64::from(resolved) / f64::from(all) };
        Some(Self { event: told(&event), success_rate })
    }
}

/// Every directive that comes to nothing with `sample`. One that is not a directive at all is told elsewhere.
pub fn violations<'a>(directives: impl Iterator<Item = Directive<'a>>, sample: &Value) -> Vec<Violation> {
    let misfit = |directive: Directive<'_>| {
        let why = resolve(&directive, sample).err()?;
        Some(Violation::new(directive.pointer, why))
    };
    directives.filter_map(misfit).collect()
}

/// What a directive makes of an event: `None` where it is no directive at all, else the value or why there is none.
fn resolve<'a>(directive: &Directive<'a>, event: &'a Value) -> Result<Option<Projected<'a>>, String> {
    let source = directive.source;
    let (Some(path), Some(makes)) = (FieldPath::parse(source), directive.makes) else { return Ok(None) };
    let value = path.resolve(event).ok_or_else(|| format!("sampleEvent has no {source:?}"))?;
    let projected = match makes {
        Makes::Copy => Projected::Value(value),
        Makes::Entries(inner) => entries(source, value, inner)?,
        Makes::Iso8601 => Projected::Text(iso8601(source, value)?),
    };
    Ok(Some(projected))
}

fn entries<'a>(source: &str, value: &'a Value, path: FieldPath<'a>) -> Result<Projected<'a>, String> {
    let Value::Array(entries) = value else {
        return Err(format!("{source:?} is no list in sampleEvent: nothing can be extracted from its entries"));
    };
    match entries.iter().position(|entry| path.resolve(entry).is_none()) {
        Some(index) => Err(format!("entry {index} of {source:?} has no {:?} in sampleEvent", path.as_str())),
        None => Ok(Projected::Entries { entries, path }),
    }
}

fn iso8601(source: &str, value: &Value) -> Result<String, String> {
    let written = value.as_str().and_then(time::iso8601);
    written.ok_or_else(|| {
        format!("{source:?} is no time in sampleEvent: it has to be a text such as 2026-11-20T12:00:00Z")
    })
}

/// A value at its target.
#[derive(Debug)]
enum Projected<'a> {
    Value(&'a Value),
    Entries { entries: &'a [Value], path: FieldPath<'a> },
    Text(String),
}

impl Serialize for Projected<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Value(value) => value.serialize(serializer),
            Self::Entries { entries, path } => {
                serializer.collect_seq(entries.iter().filter_map(|entry| path.resolve(entry)))
            }
            Self::Text(text) => text.serialize(serializer),
        }
    }
}

/// The projected event while it is put together.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Node<'a> {
    Branch(BTreeMap<&'a str, Node<'a>>),
    Leaf(Projected<'a>),
}

impl<'a> Node<'a> {
    /// Puts `value` at `target`. Where targets clash the first one stays; no such job is ever worked.
    fn put(&mut self, target: Option<FieldPath<'a>>, value: Projected<'a>) {
        let mut names: Vec<&str> = target.into_iter().flat_map(FieldPath::names).collect();
        let Some(last) = names.pop() else { return };
        let mut node = self;
        for name in names {
            let Self::Branch(members) = node else { return };
            node = members.entry(name).or_insert_with(|| Self::Branch(BTreeMap::new()));
        }
        if let Self::Branch(members) = node {
            members.entry(last).or_insert(Self::Leaf(value));
        }
    }
}

fn told(event: &Node<'_>) -> Value {
    let mut digest = Digest::default();
    if serde_json::to_writer(&mut digest, event).is_ok() && digest.bytes() > MAX_TOLD_BYTES {
        return Value::String(digest.hex());
    }
    serde_json::to_value(event).unwrap_or_default()
}

#[cfg(test)]
mod tests;
