//! Counts of what was added to the store. Whoever waits for rows compares the counts instead of asking the store: a
//! count that went up says "look again".

use genfleet_job::{Kind, message::Lane};

/// Number of keys: two for each kind, since suspects are worked apart from the rest.
const KEYS: usize = Kind::ALL.len() * 2;

/// The rows that one consumer waits for: the new and started jobs of a kind, or its suspects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChangeKey(usize);

impl ChangeKey {
    /// The key that `lane` of `kind` belongs to.
    pub(super) const fn of(kind: Kind, lane: Lane) -> Self {
        Self(kind as usize * 2 + matches!(lane, Lane::Suspect) as usize)
    }
}

/// Counts since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    counts: [u64; KEYS],
    events: u64,
}

impl Changes {
    /// Rows of `key` added, given back or delayed.
    pub(super) fn of(&self, ChangeKey(place): ChangeKey) -> u64 {
        self.counts[place]
    }

    /// Events added.
    pub(super) fn events(&self) -> u64 {
        self.events
    }

    /// A row of `key` was added, given back or delayed.
    pub(super) fn touch(&mut self, ChangeKey(place): ChangeKey) {
        self.counts[place] += 1;
    }

    /// An event was added.
    pub(super) fn event(&mut self) {
        self.events += 1;
    }

    /// Another process wrote something.
    pub(super) fn anything(&mut self) {
        self.counts.iter_mut().for_each(|count| *count += 1);
        self.events += 1;
    }

    /// Adds what one transaction changed; true if that was anything.
    pub(super) fn add(&mut self, other: &Self) -> bool {
        self.counts.iter_mut().zip(other.counts).for_each(|(count, more)| *count += more);
        self.events += other.events;
        *other != Self::default()
    }
}
