//! The output of a batch's events: stdout, for a person or as JSON lines, or a file to which they are appended.

use genfleet_core::eprint_line;
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow};
use genfleet_core::{escape, file, options::ConfigError};

use super::summary;
use crate::terminal::{self, Paint};

/// Fails if `output` is one of the files with the jobs.
pub(super) fn refuse_input(files: &[String], setting: &str, output: Option<&Path>) -> Result<(), ConfigError> {
    let Some(output) = output.and_then(|output| output.canonicalize().ok()) else { return Ok(()) };
    let mut named = files.iter().filter(|file| *file != "-");
    let same = named.find(|file| Path::new(file).canonicalize().is_ok_and(|input| input == output));
    same.map_or(Ok(()), |file| {
        Err(ConfigError::new(format!("{setting} names {file}, which holds the jobs: name another file")))
    })
}

const STDOUT: &str = "stdout cannot be written; start it again to continue";

/// The output of the events.
pub(super) enum Sink {
    /// Stdout, a JSON line for each event.
    Json,
    /// A file to which a JSON line for each event is appended.
    File(PathBuf, File),
    /// A terminal, a line of words for each event.
    Person(Paint),
}

impl Sink {
    /// Opens the file `events`, or stdout if it is `None`: for a person, or as JSON.
    pub(super) fn open(events: Option<&Path>, person: bool) -> anyhow::Result<Self> {
        let Some(path) = events else {
            return Ok(if person { Self::Person(Paint::stdout()) } else { Self::Json });
        };
        let file = append(path).with_context(|| format!("--events {} cannot be written", path.display()))?;
        Ok(Self::File(path.to_owned(), file))
    }

    /// Writes the events.
    pub(super) fn write<'a>(&mut self, events: impl Iterator<Item = &'a [u8]>) -> anyhow::Result<()> {
        match self {
            Self::Json => {
                let mut out = io::stdout().lock();
                for event in events {
                    writeln!(out, "{}", escape::output(&String::from_utf8_lossy(event), false)).context(STDOUT)?;
                }
                out.flush().context(STDOUT)?;
            }
            Self::File(path, out) => {
                let failed = |error| {
                    anyhow!(
                        "--events {} cannot be written: {error}. Free some disk space and start it again to continue",
                        path.display()
                    )
                };
                let lines = events.flat_map(|event| [event, b"\n"]).collect::<Vec<_>>().concat();
                out.write_all(&lines).map_err(failed)?;
            }
            Self::Person(paint) => {
                for event in events {
                    let event = serde_json::from_slice(event).unwrap_or_default();
                    terminal::print_line(summary::event(&event, *paint))?;
                }
            }
        }
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<File> {
    let mut file = file::open_or_stream(path, File::options().create(true).append(true), file::Mode::GroupReads)?;
    if has_incomplete_line(path) {
        eprint_line!(
            "{} ends with an incomplete line, which is left as it is; its event is written again",
            path.display()
        );
        file.write_all(b"\n")?;
    }
    Ok(file)
}

/// Returns true if the last line is incomplete because its writer was killed or the disk was full. False for files that
/// are not regular or cannot be read.
fn has_incomplete_line(path: &Path) -> bool {
    let last = || -> io::Result<Option<u8>> {
        if !path.metadata()?.is_file() {
            return Ok(None);
        }
        let (mut file, mut last) = (File::open(path)?, [0]);
        if file.seek(SeekFrom::End(0))? == 0 {
            return Ok(None);
        }
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        Ok(Some(last[0]))
    };
    last().ok().flatten().is_some_and(|last| last != b'\n')
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{MetadataExt, symlink},
    };

    use super::*;

    #[test]
    fn a_file_is_for_owner_and_group_and_a_link_is_refused_unless_it_leads_to_a_stream() {
        let folder = std::env::temp_dir().join(format!("genfleet-events-{}", uuid::Uuid::new_v4()));
        fs::create_dir(&folder).unwrap();
        let (file, link) = (folder.join("events"), folder.join("link"));
        assert_eq!(append(&file).unwrap().metadata().unwrap().mode() & 0o137, 0);
        symlink(&file, &link).unwrap();
        let message = Sink::open(Some(&link), false).err().map(|error| format!("{error:#}")).unwrap();
        assert!(message.contains("--events") && message.contains("link is a symbolic link"), "{message}");
        fs::remove_file(&link).unwrap();
        symlink("/dev/null", &link).unwrap();
        append(&link).unwrap().write_all(b"x").unwrap();
        fs::remove_dir_all(&folder).unwrap();
    }
}
