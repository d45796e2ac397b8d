//! One chain, line by line: what each has to follow.

use std::{collections::BTreeSet, path::PathBuf};

use super::{LinePlace, LineProblem};
use crate::{
    read::{AuditRecord, DamagedLine},
    record::{ChainLink, NO_HASH},
};

/// A chain that is being read.
#[derive(Debug)]
pub(super) struct ChainWalk {
    /// What its files' names have in common.
    pub stem: PathBuf,
    /// The last line that is as it was written.
    intact: ChainLink,
    /// Who wrote that.
    process: String,
    /// The number that the last line had, or had at most: a line that was changed may be a part of one.
    cursor: u64,
    /// What its hash may be; empty where that is not known.
    hashes: Vec<String>,
    gaps: Vec<Gap>,
    /// Lines with a number that was passed already.
    strays: Vec<(LinePlace, u64)>,
    problems: Vec<LineProblem>,
}

/// Numbers that were passed over.
#[derive(Debug)]
struct Gap {
    from: u64,
    to: u64,
    /// The line after it.
    before: LinePlace,
}

impl ChainWalk {
    /// A chain of which nothing was read.
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

    /// Whether its last line may have this hash.
    pub(super) fn ends_in(&self, hash: &str) -> bool {
        self.intact.hash == hash || self.hashes.iter().any(|each| each == hash)
    }

    /// Whether `record` is by the process that wrote its last line, and later.
    pub(super) fn is_of(&self, record: &AuditRecord) -> bool {
        record.text("process") == self.process && self.ends_before(record)
    }

    /// Whether `record` has a number that was not reached yet.
    pub(super) fn ends_before(&self, record: &AuditRecord) -> bool {
        record.seq > self.cursor
    }

    /// The next line.
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
            // Lines that were changed may be parts of fewer: what comes after them may be less far on.
            if record.seq <= self.cursor.min(self.intact.seq + 1) {
                return self.strays.push((place, record.seq));
            }
            self.passed_over(place, record);
        }
        record.text("process").clone_into(&mut self.process);
        self.intact = record.link();
        self.cursor = record.seq;
        self.hashes = vec![record.hash.clone()];
    }

    fn passed_over(&mut self, place: LinePlace, record: &AuditRecord) {
        let next = self.cursor + 1;
        if record.seq > next {
            self.gaps.push(Gap { from: next, to: record.seq - 1, before: place });
        } else if record.seq == next && !self.hashes.is_empty() && !self.hashes.contains(&record.prev_hash) {
            let problem = format!("seq {}: the line before is not the one that was there: another hash", record.seq);
            self.problems.push(LineProblem { place, problem });
        }
    }

    /// All that is wrong with it.
    pub(super) fn end(mut self) -> Vec<LineProblem> {
        let strays: BTreeSet<u64> = self.strays.iter().map(|(_, seq)| *seq).collect();
        for (place, seq) in self.strays {
            let elsewhere = self.gaps.iter().any(|gap| (gap.from..=gap.to).contains(&seq));
            let how = if elsewhere { "out of order" } else { "there more than once, or after lines that came later" };
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

/// The runs of numbers from `from` to `to` that are not among `strays`.
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
