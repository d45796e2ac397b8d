//! The audit lines that events name, and that must therefore exist.

use std::{
    collections::BTreeMap,
    io::{self, BufRead},
    path::Path,
};

use serde::Deserialize;

use super::{LinePlace, LineProblem};
use crate::read::AuditRecord;

/// The lines that events name and that have not been found yet.
#[derive(Debug, Default)]
pub struct ClaimedLines {
    /// The claims by process and line number.
    lines: BTreeMap<(String, u64), Vec<Claim>>,
    count: usize,
    problems: Vec<LineProblem>,
}

/// The statement of an event about an audit line.
#[derive(Debug)]
struct Claim {
    place: LinePlace,
    job: String,
    hash: String,
    /// The difference between the statement and the found line.
    contradiction: Option<&'static str>,
}

#[derive(Deserialize)]
struct Event {
    data: Data,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    job_id: String,
    audit: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    process: String,
    seq: u64,
    hash: String,
}

impl ClaimedLines {
    /// Reads events from `reader`, one a line. Problems name the file `name`. Events of processes without an audit name
    /// no line.
    pub fn read(reader: impl BufRead, name: &Path) -> io::Result<Self> {
        let mut wanted = Self::default();
        for (line, number) in reader.split(b'\n').zip(1..) {
            let (line, place) = (line?, LinePlace { file: name.to_owned(), line: number });
            if !line.trim_ascii().is_empty() {
                wanted.add(&line, place);
            }
        }
        Ok(wanted)
    }

    fn add(&mut self, line: &[u8], place: LinePlace) {
        match serde_json::from_slice(line) {
            Ok(Event { data: Data { job_id: job, audit: Some(Named { process, seq, hash }) } }) => {
                self.count += 1;
                let claim = Claim { place, job, hash, contradiction: None };
                self.lines.entry((process, seq)).or_default().push(claim);
            }
            Ok(Event { data: Data { audit: None, .. } }) => {}
            Err(error) => self.problems.push(LineProblem { place, problem: format!("is no event: {error}") }),
        }
    }

    /// Number of events that name a line.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Compares a line with the events that name it.
    pub(super) fn compare(&mut self, record: &AuditRecord) {
        if self.lines.is_empty() {
            return;
        }
        let key = (record.text("process").to_owned(), record.seq);
        let Some(claims) = self.lines.get_mut(&key) else { return };
        claims.retain_mut(|claim| {
            claim.contradiction = claim.contradicts(record);
            claim.contradiction.is_some()
        });
        if claims.is_empty() {
            self.lines.remove(&key);
        }
    }

    /// Returns the problems: lines that are missing or different.
    pub(super) fn end(self) -> Vec<LineProblem> {
        let of_line = |((process, seq), claims): ((String, u64), Vec<Claim>)| {
            claims.into_iter().map(move |claim| {
                let what = claim
                    .contradiction
                    .unwrap_or("is not in the files: lines were cut off, or not all files were given");
                let problem =
                    format!("the event of job {} names seq {seq} of process {process}, which {what}", claim.job);
                LineProblem { place: claim.place, problem }
            })
        };
        self.lines.into_iter().flat_map(of_line).chain(self.problems).collect()
    }
}

impl Claim {
    fn contradicts(&self, record: &AuditRecord) -> Option<&'static str> {
        if record.hash != self.hash {
            return Some("is there with another hash: lines were rewritten");
        }
        let is_it = record.text("fact") == "outcome" && record.text("jobId") == self.job;
        (!is_it).then_some("is about something else")
    }
}
