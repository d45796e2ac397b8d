//! The lines of a batch: which job each is, under which id, or why it is none.

use std::{
    fs,
    io::{Error, ErrorKind, Read},
    sync::Arc,
};

use bytes::Bytes;
use genfleet_core::job::{Job, JobId, Kind, Rejection, Violation, decode, derived_id, text};

use crate::registry::{Checker, KINDS};

/// One line that is not blank.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// The file's name, as given.
    pub file: Arc<str>,
    /// From 1.
    pub number: usize,
    /// Without the line's end.
    pub content: Bytes,
}

/// The lines of `file`; `-` is stdin. A line that is no text is a line all the same; a whole file that is none is
/// refused, and named for what it is.
pub(crate) fn read(file: &str) -> std::io::Result<Vec<Line>> {
    let mut content = Vec::new();
    if file == "-" {
        std::io::stdin().read_to_end(&mut content)?;
    } else {
        content = fs::read(file)?;
    }
    text::unmarked(&content).map_err(|told| Error::new(ErrorKind::InvalidData, told))?;
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
    pub(crate) fn default_id(&self) -> String {
        let content = String::from_utf8_lossy(&self.content);
        derived_id(&format!("line:{}:{}:{content}", self.file, self.number)).to_string()
    }

    /// The kind, where this build has a worker for it; else why the line is no job.
    pub(crate) fn kind(&self) -> Result<Kind, Box<Rejection>> {
        let (value, _) = decode::read(&self.content).map_err(|unread| Box::new(unread.of(self.id())))?;
        let kind = value.get("kind").filter(|kind| !kind.is_null());
        let wrong = match kind.map(|kind| kind.as_str().map(str::parse::<Kind>)) {
            Some(Some(Ok(kind))) if KINDS.contains(&kind) => return Ok(kind),
            Some(Some(Ok(kind))) => format!("this build has no worker for {kind}"),
            Some(Some(Err(unknown))) => unknown.to_string(),
            Some(None) => "must be a string".to_owned(),
            None => "required in a file of jobs, and missing".to_owned(),
        };
        Err(Box::new(self.invalid_kind(wrong)))
    }

    /// The job, as its worker would take it.
    pub(crate) fn check(&self, checker: &Checker) -> Result<Job, Box<Rejection>> {
        let kind = self.kind()?;
        let known = checker.check(kind, &self.content, Some(&self.default_id()));
        known.unwrap_or_else(|| Err(Box::new(self.invalid_kind(format!("this build has no worker for {kind}")))))
    }

    fn invalid_kind(&self, wrong: String) -> Rejection {
        Rejection::invalid(self.id(), vec![Violation::new("/kind", wrong)].into())
    }

    /// The job's own id, where one can be read.
    pub(crate) fn id(&self) -> JobId {
        decode::readable_id(&self.content, Some(&self.default_id()), None)
    }
}
