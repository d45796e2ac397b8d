//! Counts of what a redrive or a discard did.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// The two actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Run again.
    Redrive,
    /// Delete.
    Discard,
}

impl Action {
    /// The command's name.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Redrive => "redrive",
            Self::Discard => "discard",
        }
    }

    /// Reasons that are left out unless they are named. Such jobs would fail again, or crash the worker again; before
    /// they are discarded, somebody should look at them.
    pub(super) const fn left_out(self) -> &'static [&'static str] {
        match self {
            Self::Redrive => &["crash_loop", "invalid_job", "undecodable", "kind_mismatch", "too_large"],
            Self::Discard => &["crash_loop", "invalid_job"],
        }
    }

    /// The participle of the action.
    const fn participle(self) -> &'static str {
        match self {
            Self::Redrive => "redriven",
            Self::Discard => "discarded",
        }
    }
}

/// Counts of dead letters.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Number of dead letters that were redriven or discarded, by kind.
    pub done: BTreeMap<&'static str, u64>,
    /// Dead letters that were left in their queues.
    pub left: Left,
}

/// Numbers of dead letters that were left in their queues, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Left {
    /// They do not match the filter.
    pub others: u64,
    /// Dead letters that were skipped because of their reason.
    pub spared: u64,
    /// Dead letters of an unknown kind.
    pub without_kind: u64,
    /// They never were jobs of their queue's kind.
    pub foreign: u64,
    /// This run has redriven them, and they failed again.
    pub came_back: u64,
    /// Another process holds them.
    pub held: u64,
    /// Another process has removed them meanwhile.
    pub gone: u64,
}

impl Left {
    /// Adds the numbers of `other`.
    pub(super) fn add(&mut self, other: Self) {
        self.others += other.others;
        self.spared += other.spared;
        self.without_kind += other.without_kind;
        self.foreign += other.foreign;
        self.came_back += other.came_back;
        self.held += other.held;
        self.gone += other.gone;
    }
}

impl Tally {
    /// Number of dead letters that were redriven or discarded.
    pub(super) fn total(&self) -> u64 {
        self.done.values().sum()
    }

    /// Returns the counts as one JSON object. `complete` is false if the run was stopped before the end.
    pub(super) fn json(&self, action: Action, complete: bool) -> Value {
        let Left { others, spared, without_kind, foreign, came_back, held, gone } = self.left;
        json!({
            "action": action.as_str(), "dryRun": false, "complete": complete,
            "done": self.total(), "kinds": self.done, "others": others, "leftOut": spared,
            "withoutKind": without_kind, "foreign": foreign, "cameBack": came_back, "held": held, "gone": gone,
        })
    }

    /// Formats the counts for people.
    pub(super) fn text(&self, action: Action) -> String {
        let kinds = self.done.iter().map(|(kind, count)| format!("{kind} {count}")).collect::<Vec<_>>().join(", ");
        let kinds = if kinds.is_empty() { String::new() } else { format!(" ({kinds})") };
        let mut lines = vec![format!("{} {}{kinds}", self.total(), action.participle())];
        let Left { others, spared, without_kind, foreign, came_back, held, gone } = self.left;
        let reasons = action.left_out().join(",");
        let left_out = format!("left out because of their reason: --reason {reasons} includes them");
        let counts = [
            (others, "not selected"),
            (spared, left_out.as_str()),
            (without_kind, "left, because their kind is not known: redrive them with --as KIND"),
            (foreign, "left, because they never were jobs of their queue's kind: dead discard removes them"),
            (came_back, "left, because they failed again after they were redriven"),
            (held, "not read, because another process is reading them: run it again"),
            (gone, "removed by another process meanwhile"),
        ];
        lines.extend(counts.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")));
        lines.join("\n")
    }
}
