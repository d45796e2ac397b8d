//! The lines of a batch: which job each is, under which id, or why it is none.

use std::{fs, io::Read, sync::Arc};

use bytes::Bytes;
use genfleet_core::job::{Job, JobId, Kind, Rejection, Violation, decode, derived_id};
use serde_json::Value;

use crate::fleet::{Checker, KINDS};

/// One line that is not blank.
#[derive(Clone, Debug)]
pub struct Line {
    /// The file's name, as given.
    pub file: Arc<str>,
    /// From 1.
    pub number: usize,
    /// Without the line's end.
    pub content: Bytes,
}

/// The lines of `file`; `-` is stdin. A line that is no text is a line all the same.
pub fn read(file: &str) -> std::io::Result<Vec<Line>> {
    let mut content = Vec::new();
    if file == "-" {
        std::io::stdin().read_to_end(&mut content)?;
    } else {
        content = fs::read(file)?;
    }
    let (content, name): (Bytes, Arc<str>) = (content.into(), file.into());
    let lines = content.split(|byte| *byte == b'\n').enumerate();
    Ok(lines
        .filter(|(_, line)| !line.trim_ascii().is_empty())
        .map(|(index, line)| Line {
            file: name.clone(),
            number: index + 1,
            content: content.slice_ref(line.trim_ascii_end()),
        })
        .collect())
}

impl Line {
    /// The id of a job that names none: the same whenever this line is read again.
    pub fn default_id(&self) -> String {
        let content = String::from_utf8_lossy(&self.content);
        derived_id(&format!("line:{}:{}:{content}", self.file, self.number)).to_string()
    }

    /// The kind, where this build has a worker for it; else why the line is no job.
    pub fn kind(&self) -> Result<Kind, Box<Rejection>> {
        let value: Value = serde_json::from_slice(&self.content).map_err(|error| {
            let message = format!("the line is not JSON: {error}");
            Box::new(Rejection { id: self.id(), code: "undecodable", message, violations: vec![] })
        })?;
        let wrong = match value.get("kind").map(|kind| kind.as_str().map(str::parse::<Kind>)) {
            Some(Some(Ok(kind))) if KINDS.contains(&kind) => return Ok(kind),
            Some(Some(Ok(kind))) => format!("this build has no worker for {kind}"),
            Some(Some(Err(unknown))) => unknown.to_string(),
            Some(None) => "must be a string".to_owned(),
            None => "required in a file of jobs, and missing".to_owned(),
        };
        Err(Box::new(self.invalid_kind(wrong)))
    }

    /// The job, as its worker would take it.
    pub fn check(&self, checker: &Checker) -> Result<Job, Box<Rejection>> {
        let kind = self.kind()?;
        let known = checker.check(kind, &self.content, Some(&self.default_id()));
        known.unwrap_or_else(|| Err(Box::new(self.invalid_kind(format!("this build has no worker for {kind}")))))
    }

    fn invalid_kind(&self, wrong: String) -> Rejection {
        let violations = vec![Violation::new("/kind", wrong)];
        Rejection { id: self.id(), code: "invalid_job", message: decode::summary(&violations), violations }
    }

    /// The job's own id, where one can be read.
    pub fn id(&self) -> JobId {
        decode::readable_id(&self.content, Some(&self.default_id()), None)
    }
}
