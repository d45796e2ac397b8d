//! Counts the rows that are added to the store. A consumer that waits for rows compares these counts instead of
//! querying the store, and queries it again when a count has increased.

use genfleet_job::{Kind, message::Lane};

/// Number of keys: two for each kind, because suspects are consumed separately.
const KEYS: usize = Kind::ALL.len() * 2;

/// The rows for which one consumer waits: the new and started jobs of a kind, or its suspects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChangeKey(usize);

impl ChangeKey {
    /// Returns the key to which `lane` of `kind` belongs.
    pub(super) const fn of(kind: Kind, lane: Lane) -> Self {
        Self(kind as usize * 2 + matches!(lane, Lane::Suspect) as usize)
    }
}

/// The counts since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    counts: [u64; KEYS],
    events: u64,
}

impl Changes {
    /// Returns the number of rows of `key` that were added, returned or delayed.
    pub(super) fn of(&self, ChangeKey(place): ChangeKey) -> u64 {
        self.counts[place]
    }

    /// Returns the number of added events.
    pub(super) fn events(&self) -> u64 {
        self.events
    }

    /// Counts a row of `key` that was added, returned or delayed.
    pub(super) fn touch(&mut self, ChangeKey(place): ChangeKey) {
        self.counts[place] += 1;
    }

    /// Counts an added event.
    pub(super) fn event(&mut self) {
        self.events += 1;
    }

    /// Counts a change by another process.
    pub(super) fn anything(&mut self) {
        self.counts.iter_mut().for_each(|count| *count += 1);
        self.events += 1;
    }

    /// Adds the counts of one transaction. Returns true if there were any.
    pub(super) fn add(&mut self, other: &Self) -> bool {
        self.counts.iter_mut().zip(other.counts).for_each(|(count, more)| *count += more);
        self.events += other.events;
        *other != Self::default()
    }
}
