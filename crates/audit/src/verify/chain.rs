//! A chain that is checked line by line.

use std::{collections::BTreeSet, path::PathBuf};

use super::{LinePlace, LineProblem};
use crate::{
    read::{AuditRecord, DamagedLine},
    record::{ChainLink, NO_HASH},
};

/// A chain that is being read.
#[derive(Debug)]
pub(super) struct ChainWalk {
    /// The common part of its files' names.
    pub stem: PathBuf,
    /// The last unchanged line.
    intact: ChainLink,
    /// The process that wrote that line.
    process: String,
    /// The largest number that the last line can have. The exact number is not known if it was changed.
    cursor: u64,
    /// The possible hashes of the last line; empty if none is known.
    hashes: Vec<String>,
    gaps: Vec<Gap>,
    /// Lines whose numbers are not larger than that of an earlier line.
    strays: Vec<(LinePlace, u64)>,
    problems: Vec<LineProblem>,
}

/// Numbers that were skipped.
#[derive(Debug)]
struct Gap {
    from: u64,
    to: u64,
    /// The line after the gap.
    before: LinePlace,
}

impl ChainWalk {
    /// Creates a chain of which no line was read yet.
    pub(super) fn new(stem: PathBuf) -> Self {
        let hashes = vec![NO_HASH.to_owned()];
        Self {
            stem,
            intact: ChainLink::default(),
            process: String::new(),
            cursor: 0,
            hashes,
            gaps: Vec::new(),
            strays: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// Returns true if the last line may have this hash.
    pub(super) fn ends_in(&self, hash: &str) -> bool {
        self.intact.hash == hash || self.hashes.iter().any(|each| each == hash)
    }

    /// Returns true if the process that wrote the last line wrote `record` later.
    pub(super) fn is_of(&self, record: &AuditRecord) -> bool {
        record.text("process") == self.process && self.ends_before(record)
    }

    /// Returns true if the chain has not reached the number of `record`.
    pub(super) fn ends_before(&self, record: &AuditRecord) -> bool {
        record.seq > self.cursor
    }

    /// Checks the next line.
    pub(super) fn step(&mut self, place: LinePlace, read: Result<AuditRecord, DamagedLine>) {
        match read {
            Ok(record) => self.intact(place, &record),
            Err(damaged) => {
                self.cursor += 1;
                self.hashes = damaged.hashes;
                self.problems.push(LineProblem { place, problem: format!("changed: {}", damaged.why) });
            }
        }
    }

    fn intact(&mut self, place: LinePlace, record: &AuditRecord) {
        // Also past lines that are not: some may have been put in.
        let follows = record.seq == self.intact.seq + 1 && record.prev_hash == self.intact.hash;
        if !follows {
            // A line that was split counts as several changed lines, so the next number may be smaller than expected.
            if record.seq <= self.cursor.min(self.intact.seq + 1) {
                return self.strays.push((place, record.seq));
            }
            self.check_gap(place, record);
        }
        record.text("process").clone_into(&mut self.process);
        self.intact = record.link();
        self.cursor = record.seq;
        self.hashes = vec![record.hash.clone()];
    }

    fn check_gap(&mut self, place: LinePlace, record: &AuditRecord) {
        let next = self.cursor + 1;
        if record.seq > next {
            self.gaps.push(Gap { from: next, to: record.seq - 1, before: place });
        } else if record.seq == next && !self.hashes.is_empty() && !self.hashes.contains(&record.prev_hash) {
            let problem = format!("seq {}: the line before is not the one that was there: another hash", record.seq);
            self.problems.push(LineProblem { place, problem });
        }
    }

    /// Returns all problems of the chain.
    pub(super) fn end(mut self) -> Vec<LineProblem> {
        let strays: BTreeSet<u64> = self.strays.iter().map(|(_, seq)| *seq).collect();
        for (place, seq) in self.strays {
            let elsewhere = self.gaps.iter().any(|gap| (gap.from..=gap.to).contains(&seq));
            let how = if elsewhere { "out of order" } else { "there more than once, or after later lines" };
            self.problems.push(LineProblem { place, problem: format!("seq {seq} is {how}") });
        }
        for Gap { from, to, before } in self.gaps {
            for (from, to) in missing(from, to, &strays) {
                let which = if from == to { format!("seq {from} is") } else { format!("seq {from} to {to} are") };
                self.problems
                    .push(LineProblem { place: before.clone(), problem: format!("{which} missing before this line") });
            }
        }
        self.problems
    }
}

/// Returns the ranges of numbers from `from` to `to` that are not in `strays`.
fn missing(from: u64, to: u64, strays: &BTreeSet<u64>) -> Vec<(u64, u64)> {
    let mut runs = Vec::new();
    let mut begin = from;
    for stray in strays.range(from..=to).copied().chain([to + 1]) {
        if begin < stray {
            runs.push((begin, stray - 1));
        }
        begin = stray + 1;
    }
    runs
}
