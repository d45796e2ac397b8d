//! The value that one directive makes of a sample event.

use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::field::FieldPath;

/// A value at its target.
#[derive(Debug)]
pub(super) enum Projected<'a> {
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
