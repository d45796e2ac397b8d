//! Violations of a job's rules. The first [`MAX_VIOLATIONS_KEPT`] are kept and the rest is counted: a job of a megabyte
//! can have half a million violations.

use std::{ops::Deref, vec};

use schemars::JsonSchema;
use serde::{Serialize, Serializer};

/// The number of violations in an event; `violationsTotal` counts all.
pub(crate) const MAX_VIOLATIONS_KEPT: usize = 100;
/// The longest pointer and message, in bytes: both may quote the producer.
const MAX_TEXT_BYTES: usize = 2048;

/// A violation and its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Violation {
    /// JSON pointer from the job's root, e.g. `/payload/paths/1`.
    pub pointer: String,
    /// The problem, and the allowed values.
    pub message: String,
}

impl Violation {
    /// A violation at `pointer`.
    pub fn new(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), message: message.into() }
    }

    /// The place, and what is wrong there. The whole job has an empty pointer and is called `the job`.
    pub fn describe(&self) -> String {
        let place = if self.pointer.is_empty() { "the job" } else { &self.pointer };
        format!("{place}: {}", self.message)
    }

    fn truncate(mut self) -> Self {
        truncate(&mut self.pointer);
        truncate(&mut self.message);
        self
    }
}

fn truncate(text: &mut String) {
    if text.len() > MAX_TEXT_BYTES {
        let mut end = MAX_TEXT_BYTES;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
        text.shrink_to_fit();
    }
}

/// The violations of a job: the first ones, in the order found, and their number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Violations {
    kept: Vec<Violation>,
    total: usize,
}

impl Violations {
    /// Adds a violation, or only counts it.
    pub(crate) fn push(&mut self, violation: Violation) {
        self.total += 1;
        if !self.is_full() {
            self.kept.push(violation.truncate());
        }
    }

    /// Returns true if further violations are only counted.
    pub(crate) fn is_full(&self) -> bool {
        self.kept.len() >= MAX_VIOLATIONS_KEPT
    }

    /// Counts `more` violations without keeping them.
    pub(crate) fn count(&mut self, more: usize) {
        self.total += more;
    }

    /// The number of all violations, including those that are not kept.
    pub fn total(&self) -> usize {
        self.total
    }

    /// A summary in one sentence.
    pub fn summary(&self) -> String {
        let first = self.kept.first().map(Violation::describe).unwrap_or_default();
        match self.total {
            0 | 1 => first,
            more => format!("{more} violations; the first: {first}"),
        }
    }
}

/// The violations that are kept.
impl Deref for Violations {
    type Target = [Violation];

    fn deref(&self) -> &[Violation] {
        &self.kept
    }
}

impl Extend<Violation> for Violations {
    fn extend<T: IntoIterator<Item = Violation>>(&mut self, all: T) {
        all.into_iter().for_each(|one| self.push(one));
    }
}

impl From<Vec<Violation>> for Violations {
    fn from(all: Vec<Violation>) -> Self {
        let mut violations = Self::default();
        violations.extend(all);
        violations
    }
}

impl IntoIterator for Violations {
    type Item = Violation;
    type IntoIter = vec::IntoIter<Violation>;

    fn into_iter(self) -> Self::IntoIter {
        self.kept.into_iter()
    }
}

impl Serialize for Violations {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.kept.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_hundred_are_kept_and_all_are_counted() {
        let all: Vec<_> = (0..250).map(|n| Violation::new(format!("/{n}"), "bad")).collect();
        let all = Violations::from(all);
        assert_eq!((all.len(), all.total(), all.is_full()), (100, 250, true));
        assert_eq!(all[99].pointer, "/99");
        assert_eq!(all.summary(), "250 violations; the first: /0: bad");
    }

    #[test]
    fn a_name_of_half_a_megabyte_is_cut_where_a_character_ends() {
        let mut all = Violations::default();
        all.push(Violation::new("/é".repeat(200_000), "é".repeat(200_000)));
        for text in [&all[0].pointer, &all[0].message] {
            assert!((MAX_TEXT_BYTES - 2..=MAX_TEXT_BYTES + 3).contains(&text.len()), "{}", text.len());
            assert!(text.ends_with('…'));
        }
    }
}
