//! Verification of audit files: finds every line that was changed, is missing or is out of order. With events it also
//! finds lines that were removed at the end, which the files alone cannot show. Files of several chains may be given,
//! in any order.
//!
//! The memory is bounded by the numbers of files, problems and events.

use std::{
    collections::BTreeMap,
    fmt::Display,
    fs::File,
    io::{self, BufRead, BufReader, ErrorKind},
    path::{Path, PathBuf},
};

use serde::Serialize;

use self::{anchors::Anchors, chain::ChainWalk, events::ClaimedLines};
use super::{
    names,
    read::{self, AuditRecord, DamagedLine},
    record::{ChainLink, NO_HASH},
};

mod anchors;
mod chain;
pub(crate) mod events;
#[cfg(test)]
mod tests;

/// The place of a line.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct LinePlace {
    /// The file.
    pub file: PathBuf,
    /// The line's number, counted from 1.
    pub line: u64,
}

/// A line that was changed after it was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct LineProblem {
    /// Its place.
    #[serde(flatten)]
    pub place: LinePlace,
    /// The problem.
    pub problem: String,
}

/// The result of a verification.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// Number of files read.
    pub files: usize,
    /// Number of lines read.
    pub lines: u64,
    /// Number of chains they belong to.
    pub chains: usize,
    /// Number of events that name a line.
    pub events: usize,
    /// Number of anchors given.
    pub anchors: usize,
    /// The problems; empty if there are none.
    pub problems: Vec<LineProblem>,
}

/// A line of a file: its place and its record.
type ReadLine = (LinePlace, Result<AuditRecord, DamagedLine>);

/// Verifies `files`, and compares them with `events` and `anchors`.
pub fn verify(files: &[PathBuf], mut events: ClaimedLines, anchors: &[ChainLink]) -> io::Result<VerifyReport> {
    files.iter().try_for_each(|path| check_regular(path))?;
    let mut report = VerifyReport { events: events.len(), anchors: anchors.len(), ..VerifyReport::default() };
    let mut anchors = Anchors::new(anchors);
    let mut walks: Vec<ChainWalk> = Vec::new();
    for (path, first) in sort_files(files)? {
        report.files += 1;
        let walk = walk_of(&mut walks, &path, first.as_ref());
        for line in lines(&path)? {
            let (place, read) = line?;
            report.lines += 1;
            if let Ok(record) = &read {
                events.compare(record);
                anchors.compare(&place, record);
            }
            walks[walk].step(place, read);
        }
    }
    report.chains = walks.len();
    let last = files.last().cloned().unwrap_or_default();
    let of_anchors = anchors.end(LinePlace { file: last, line: 0 });
    report.problems = walks.into_iter().flat_map(ChainWalk::end).chain(events.end()).chain(of_anchors).collect();
    report.problems.sort();
    Ok(report)
}

/// Fails if a file is not regular. Files are read twice, and the second time a pipe would be empty.
fn check_regular(path: &Path) -> io::Result<()> {
    let refused = |kind, why: &dyn Display| Err(io::Error::new(kind, format!("{}: {why}", path.display())));
    match path.metadata() {
        Ok(found) if found.is_file() => Ok(()),
        Ok(_) => refused(
            ErrorKind::InvalidInput,
            &"no regular file; audit files are read twice: write its content to a regular file",
        ),
        Err(error) => refused(error.kind(), &error),
    }
}

/// Reads the lines of a file, one after the other.
pub fn lines(path: &Path) -> io::Result<impl Iterator<Item = io::Result<ReadLine>> + use<>> {
    let named = |path: &Path, error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let file = File::open(path).map_err(|error| named(path, error))?;
    let (mut reader, path, mut number) = (BufReader::new(file), path.to_owned(), 0);
    Ok(std::iter::from_fn(move || {
        let mut line = Vec::new();
        match reader.read_until(b'\n', &mut line) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(error) => return Some(Err(named(&path, error))),
        }
        number += 1;
        let read = match line.strip_suffix(b"\n") {
            Some(line) => read::read(line),
            None => Err(DamagedLine {
                why: "it is incomplete: it is being written, or a crash prevented that",
                hashes: Vec::new(),
            }),
        };
        Some(Ok((LinePlace { file: path.clone(), line: number }, read)))
    }))
}

/// Sorts the files in the order in which they were written. Returns each with its first readable line.
fn sort_files(files: &[PathBuf]) -> io::Result<Vec<(PathBuf, Option<AuditRecord>)>> {
    let mut by_first = BTreeMap::new();
    for path in files {
        let first = lines(path)?.find_map(|found| found.map(|(_, read)| read.ok()).transpose()).transpose()?;
        by_first.insert((first.as_ref().map_or(u64::MAX, |record| record.seq), path.clone()), first);
    }
    Ok(by_first.into_iter().map(|((_, path), first)| (path, first)).collect())
}

/// Finds the chain that a file continues: the one whose last line is named by the file's first line. If there is none,
/// a chain with the same name or of the same process; else the only chain, if it ends before the file begins.
fn walk_of(walks: &mut Vec<ChainWalk>, path: &Path, first: Option<&AuditRecord>) -> usize {
    let stem = names::stem(path);
    let begins = first.is_some_and(|first| first.prev_hash == NO_HASH);
    let by_hash = || walks.iter().position(|walk| first.is_some_and(|first| walk.ends_in(&first.prev_hash)));
    let by_name = || walks.iter().position(|walk| walk.stem == stem);
    let by_process = || walks.iter().position(|walk| first.is_some_and(|first| walk.is_of(first)));
    let only = || matches!(&walks[..], [walk] if first.is_none_or(|first| walk.ends_before(first))).then_some(0);
    let known = if begins { None } else { by_hash().or_else(by_name).or_else(by_process).or_else(only) };
    known.unwrap_or_else(|| {
        walks.push(ChainWalk::new(stem));
        walks.len() - 1
    })
}
