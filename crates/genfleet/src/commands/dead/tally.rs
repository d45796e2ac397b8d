//! What a redrive or a discard did, counted.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// The two actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Run again.
    Redrive,
    /// Thrown away.
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

    /// Reasons that are left out unless they are named. What is redriven would fail or kill again as it is; of what is
    /// discarded, these want a look first.
    pub(super) const fn left_out(self) -> &'static [&'static str] {
        match self {
            Self::Redrive => &["crash_loop", "invalid_job", "undecodable", "kind_mismatch", "too_large"],
            Self::Discard => &["crash_loop", "invalid_job"],
        }
    }

    /// What was done.
    const fn done(self) -> &'static str {
        match self {
            Self::Redrive => "redriven",
            Self::Discard => "discarded",
        }
    }
}

/// Counted so far.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Done, by kind.
    pub done: BTreeMap<&'static str, u64>,
    /// Looked at and left.
    pub left: Left,
}

/// What was looked at and left where it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Left {
    /// It was not meant.
    pub others: u64,
    /// It would only fail again, and nobody named it.
    pub spared: u64,
    /// Its kind is not known, so nobody could work it.
    pub without_kind: u64,
    /// It never was a job of its queue's kind, and is not redriven.
    pub foreign: u64,
    /// Redriven by this very run, and dead again.
    pub came_back: u64,
    /// It could not be looked at: another process holds it.
    pub held: u64,
    /// Somebody else took it off meanwhile.
    pub gone: u64,
}

impl Left {
    /// Both together.
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
    /// How many were done.
    pub(super) fn total(&self) -> u64 {
        self.done.values().sum()
    }

    /// As one object. `complete` is false where it was stopped on the way.
    pub(super) fn json(&self, action: Action, complete: bool) -> Value {
        let Left { others, spared, without_kind, foreign, came_back, held, gone } = self.left;
        json!({
            "action": action.as_str(), "dryRun": false, "complete": complete,
            "done": self.total(), "kinds": self.done, "others": others, "leftOut": spared,
            "withoutKind": without_kind, "foreign": foreign, "cameBack": came_back, "held": held, "gone": gone,
        })
    }

    /// For people.
    pub(super) fn text(&self, action: Action) -> String {
        let kinds = self.done.iter().map(|(kind, count)| format!("{kind} {count}")).collect::<Vec<_>>().join(", ");
        let kinds = if kinds.is_empty() { String::new() } else { format!(" ({kinds})") };
        let mut lines = vec![format!("{} {}{kinds}", self.total(), action.done())];
        let Left { others, spared, without_kind, foreign, came_back, held, gone } = self.left;
        let reasons = action.left_out().join(",");
        let left_out = format!("left out, since they would fail again as they are: --reason {reasons} brings them in");
        let message = [
            (others, "not meant, left"),
            (spared, left_out.as_str()),
            (without_kind, "left, since their kind is not known: redrive them with --as KIND"),
            (foreign, "left, since they never were jobs of their queue's kind: dead discard removes them"),
            (came_back, "failed again meanwhile, left"),
            (held, "not seen, since another process looks at them: run it again"),
            (gone, "taken by somebody else meanwhile"),
        ];
        lines
            .extend(message.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")));
        lines.join("\n")
    }
}
