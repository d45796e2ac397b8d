//! The lines of a batch: each is a job with its id, or invalid for a reason.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Error, ErrorKind, Read},
    sync::Arc,
};

use bytes::Bytes;
use genfleet_core::job::{Job, JobId, Kind, MAX_BODY_BYTES, Rejection, Violation, decode, derive_id, text};

use crate::registry::{Checker, not_for_producers};

/// One line that is not blank.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// The file's name, as given.
    pub file: Arc<str>,
    /// The line's number, counted from 1.
    pub number: usize,
    /// The line without its end.
    pub content: Bytes,
}

/// Reads the lines of `file`; `-` is stdin. Lines may contain any bytes, but fails if the file is not text, for example
/// compressed.
pub(crate) fn read(file: &str) -> std::io::Result<Vec<Line>> {
    let mut content = Vec::new();
    if file == "-" {
        std::io::stdin().read_to_end(&mut content)?;
    } else {
        content = fs::read(file)?;
    }
    text::strip_mark(&content).map_err(|message| Error::new(ErrorKind::InvalidData, message))?;
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

/// Passes the lines of `file` to `visit` one by one. In contrast to [`read`], it reads of a line that is too long for a
/// job only as much as is needed to know that.
pub(crate) fn each(file: &str, mut visit: impl FnMut(&Line) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let stdin = io::stdin();
    let mut reader: Box<dyn BufRead> =
        if file == "-" { Box::new(stdin.lock()) } else { Box::new(BufReader::new(File::open(file)?)) };
    text::strip_mark(reader.fill_buf()?).map_err(|message| Error::new(ErrorKind::InvalidData, message))?;
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
            visit(&Line { file: name.clone(), number, content })?;
        }
    }
    Ok(())
}

impl Line {
    /// The id of a job without an id: the same each time this line is read.
    pub(crate) fn default_id(&self) -> String {
        let content = String::from_utf8_lossy(&self.content);
        derive_id(&format!("line:{}:{}:{content}", self.file, self.number)).to_string()
    }

    /// Returns the kind. Fails if the line is not a job, or if its kind is not for producers.
    pub(crate) fn kind(&self) -> Result<Kind, Box<Rejection>> {
        let (value, _) = decode::parse_body(&self.content).map_err(|unread| Box::new(unread.reject(self.id())))?;
        let kind = value.get("kind").filter(|kind| !kind.is_null());
        let wrong = match kind.map(|kind| kind.as_str().map(str::parse::<Kind>)) {
            Some(Some(Ok(kind))) if !kind.is_internal() => return Ok(kind),
            Some(Some(Ok(kind))) => not_for_producers(kind).to_string(),
            Some(Some(Err(unknown))) => unknown.to_string(),
            Some(None) => "must be a string".to_owned(),
            None => "required in a file of jobs, and missing".to_owned(),
        };
        Err(Box::new(Rejection::invalid(self.id(), vec![Violation::new("/kind", wrong)].into())))
    }

    /// Checks the job as its worker would.
    pub(crate) fn check(&self, checker: &Checker) -> Result<Job, Box<Rejection>> {
        checker.check(self.kind()?, &self.content, Some(&self.default_id()))
    }

    /// The id in the job, or the default id if there is none.
    pub(crate) fn id(&self) -> JobId {
        decode::extract_id(&self.content, Some(&self.default_id()), None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_reading_give_the_same_lines_but_for_lines_that_are_too_long_for_a_job() {
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
