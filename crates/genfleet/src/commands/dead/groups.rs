//! Dead letters grouped by kind, reason and fingerprint.

use std::collections::BTreeMap;

use genfleet_core::queue::dead_letters::DeadLetter;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::terminal::{Paint, line, truncate};

/// Maximum number of groups. The dead letters of further groups are counted together.
const MOST_GROUPS: usize = 10_000;
/// Maximum number of characters that are shown of an example's error.
const ERROR_WIDTH: usize = 160;

/// Kind, reason and fingerprint.
type Cause = (&'static str, String, String);

/// The dead letters, grouped by cause.
#[derive(Debug, Default)]
pub(super) struct Groups {
    groups: BTreeMap<Cause, Group>,
    others: u64,
}

#[derive(Debug)]
struct Group {
    count: u64,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
    /// The largest number of redrives of a dead letter.
    generation: u32,
    id: String,
    error: String,
}

impl Groups {
    /// Adds a dead letter.
    pub(super) fn add(&mut self, letter: &DeadLetter) {
        let cause = (letter.kind_name(), letter.reason.clone(), letter.fingerprint.clone());
        if self.groups.len() >= MOST_GROUPS && !self.groups.contains_key(&cause) {
            self.others += 1;
            return;
        }
        let group = self.groups.entry(cause).or_insert_with(|| Group {
            count: 0,
            first: letter.failed_at,
            last: letter.failed_at,
            generation: 0,
            id: letter.id.to_string(),
            error: truncate(&letter.error, ERROR_WIDTH),
        });
        group.count += 1;
        group.first = group.first.into_iter().chain(letter.failed_at).min();
        group.last = group.last.into_iter().chain(letter.failed_at).max();
        group.generation = group.generation.max(letter.generation);
    }

    /// Number of dead letters.
    pub(super) fn total(&self) -> u64 {
        self.groups.values().map(|group| group.count).sum::<u64>() + self.others
    }

    /// Number of groups.
    pub(super) fn len(&self) -> usize {
        self.groups.len()
    }

    /// Returns the groups, the largest first.
    fn sorted(&self) -> Vec<(&Cause, &Group)> {
        let mut groups: Vec<_> = self.groups.iter().collect();
        groups.sort_by(|(_, one), (_, other)| other.count.cmp(&one.count).then(other.last.cmp(&one.last)));
        groups
    }

    /// Returns the groups as JSON, the largest first.
    pub(super) fn json(&self) -> Value {
        let group = |((kind, reason, fingerprint), group): (&Cause, &Group)| {
            json!({
                "kind": kind, "reason": reason, "fingerprint": fingerprint, "count": group.count,
                "firstSeen": group.first.map(|time| time.to_string()), "lastSeen": group.last.map(|time| time.to_string()),
                "generation": group.generation, "example": { "id": group.id, "error": group.error },
            })
        };
        self.sorted().into_iter().map(group).collect()
    }

    /// Formats a table for people: a line for each group, and an example below it.
    pub(super) fn table(&self, paint: Paint) -> String {
        const HEADS: [&str; 6] = ["COUNT", "KIND", "REASON", "FINGERPRINT", "FIRST SEEN", "LAST SEEN"];
        let groups = self.sorted();
        let rows: Vec<[String; 6]> = groups.iter().map(|(cause, group)| row(cause, group)).collect();
        let width = |column: usize| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.chain([HEADS[column].len()]).max().unwrap_or(0)
        };
        let widths: [usize; 6] = std::array::from_fn(width);
        let mut lines = vec![paint.dim(&align(&HEADS.map(str::to_owned), widths))];
        for (row, (_, group)) in rows.iter().zip(&groups) {
            lines.push(align(row, widths));
            lines.push(paint.dim(&group.example(widths[0] + 2)));
        }
        if self.others > 0 {
            lines.push(format!("{} more in further groups", self.others));
        }
        lines.join("\n") + "\n"
    }
}

impl Group {
    fn example(&self, indent: usize) -> String {
        let again = match self.generation {
            0 => String::new(),
            1 => " (redriven once)".to_owned(),
            times => format!(" (redriven up to {times} times)"),
        };
        format!("{:indent$}e.g. {}: {}{again}", "", line(&self.id), self.error).trim_end().to_owned()
    }
}

fn row((kind, reason, fingerprint): &Cause, group: &Group) -> [String; 6] {
    let time = |time: Option<Timestamp>| time.map_or_else(|| "-".to_owned(), |time| format!("{time:.0}"));
    [group.count.to_string(), (*kind).to_owned(), line(reason), line(fingerprint), time(group.first), time(group.last)]
}

/// Aligns the first column to the right, the others to the left.
fn align(row: &[String; 6], widths: [usize; 6]) -> String {
    let (first, rest) = (format!("{:>width$}", row[0], width = widths[0]), row.iter().zip(widths).skip(1));
    let rest = rest.map(|(cell, width)| format!("  {cell:width$}"));
    (first + &rest.collect::<String>()).trim_end().to_owned()
}
