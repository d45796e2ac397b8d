//! The lines of a batch: which job each is, under which id, or why it is none.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Error, ErrorKind, Read},
    sync::Arc,
};

use bytes::Bytes;
use genfleet_core::job::{Job, JobId, Kind, MAX_BODY_BYTES, Rejection, Violation, decode, derived_id, text};

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
    text::unmarked(&content).map_err(|message| Error::new(ErrorKind::InvalidData, message))?;
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

/// Hands over the lines of `file` one by one, as [`read`] does, but of a line that is too long to be a job only as much as
/// shows that.
pub(crate) fn each(file: &str, mut look: impl FnMut(&Line) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let stdin = io::stdin();
    let mut reader: Box<dyn BufRead> =
        if file == "-" { Box::new(stdin.lock()) } else { Box::new(BufReader::new(File::open(file)?)) };
    text::unmarked(reader.fill_buf()?).map_err(|message| Error::new(ErrorKind::InvalidData, message))?;
    let name: Arc<str> = file.into();
    for number in 1.. {
        let mut content = Vec::new();
        let most = MAX_BODY_BYTES + 2;
        if reader.by_ref().take(most as u64).read_until(b'\n', &mut content)? == 0 {
            break;
        }
        if content.len() == most && !content.ends_with(b"\n") {
            reader.skip_until(b'\n')?;
        }
        if !content.trim_ascii().is_empty() {
            let content = Bytes::copy_from_slice(content.trim_ascii_end());
            look(&Line { file: name.clone(), number, content })?;
        }
    }
    Ok(())
}

impl Line {
    /// The id of a job that names none: the same whenever this line is read again.
    pub(crate) fn default_id(&self) -> String {
        let content = String::from_utf8_lossy(&self.content);
        derived_id(&format!("line:{}:{}:{content}", self.file, self.number)).to_string()
    }

    /// The kind, where this build has a worker for it; else why the line is no job.
    pub(crate) fn kind(&self) -> Result<Kind, Box<Rejection>> {
        let (value, _) = decode::parse_body(&self.content).map_err(|unread| Box::new(unread.reject(self.id())))?;
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
        decode::extract_id(&self.content, Some(&self.default_id()), None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_the_same_one_by_one_but_for_what_is_too_long_for_a_job() {
        let path = std::env::temp_dir().join(format!("genfleet-lines-{}", std::process::id()));
        let long = "x".repeat(3 * MAX_BODY_BYTES);
        let longest = "y".repeat(MAX_BODY_BYTES);
        fs::write(&path, format!("\u{feff}{{}}\r\n\n  \n{long}\n{longest}\r\nlast")).unwrap();
        let (whole, mut streamed) = (read(path.to_str().unwrap()).unwrap(), Vec::new());
        each(path.to_str().unwrap(), |line| {
            streamed.push(line.clone());
            Ok(())
        })
        .unwrap();
        fs::remove_file(path).unwrap();
        let numbers = |lines: &[Line]| lines.iter().map(|line| line.number).collect::<Vec<_>>();
        assert_eq!(numbers(&streamed), numbers(&whole));
        assert_eq!(streamed[1].content.len(), MAX_BODY_BYTES + 2, "enough to be too long");
        let others = |lines: &[Line]| [0, 2, 3].map(|index| lines[index].content.clone());
        assert_eq!(others(&streamed), others(&whole));
    }
}
