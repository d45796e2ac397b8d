//! Where a batch's events go: stdout, for a person or as JSON lines, or a file that is only ever added to.

use genfleet_core::tell;
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow};
use genfleet_core::{escape, file, options::ConfigError};

use super::summary;
use crate::terminal::{self, Paint};

/// Refuses to write over the jobs.
pub(super) fn spare_jobs(files: &[String], setting: &str, output: Option<&Path>) -> Result<(), ConfigError> {
    let Some(output) = output.and_then(|output| output.canonicalize().ok()) else { return Ok(()) };
    let mut named = files.iter().filter(|file| *file != "-");
    let same = named.find(|file| Path::new(file).canonicalize().is_ok_and(|input| input == output));
    same.map_or(Ok(()), |file| {
        Err(ConfigError::new(format!("{setting} names {file}, which holds the jobs: name another file")))
    })
}

const STDOUT: &str = "stdout cannot be written; start it again to go on";

/// What takes the events.
pub(super) enum Sink {
    /// Each as a JSON line, on stdout.
    Json,
    /// Each as a JSON line, added to this file.
    File(PathBuf, File),
    /// A person at a terminal: each in a line of words.
    Person(Paint),
}

impl Sink {
    /// `events`, or stdout where there is none: for a person, or as JSON.
    pub(super) fn open(events: Option<&Path>, person: bool) -> anyhow::Result<Self> {
        let Some(path) = events else {
            return Ok(if person { Self::Person(Paint::stdout()) } else { Self::Json });
        };
        let file = append(path).with_context(|| format!("--events {} cannot be written", path.display()))?;
        Ok(Self::File(path.to_owned(), file))
    }

    /// Takes all of them.
    pub(super) fn take<'a>(&mut self, events: impl Iterator<Item = &'a [u8]>) -> anyhow::Result<()> {
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
                        "--events {} cannot be written: {error}. Make room and start it again to go on",
                        path.display()
                    )
                };
                for event in events {
                    out.write_all(&[event, b"\n"].concat()).map_err(failed)?;
                }
            }
            Self::Person(paint) => {
                for event in events {
                    let event = serde_json::from_slice(event).unwrap_or_default();
                    terminal::say(summary::event(&event, *paint))?;
                }
            }
        }
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<File> {
    let mut file = file::open_or_stream(path, File::options().create(true).append(true), file::GROUP_READS)?;
    if ends_torn(path) {
        tell!("{} ends in the middle of a line, which is left as it is; its event comes again", path.display());
        file.write_all(b"\n")?;
    }
    Ok(file)
}

/// Whether the last line has no end: who wrote it was killed, or had no room. What cannot be read, or is no regular file,
/// has no end to look at.
fn ends_torn(path: &Path) -> bool {
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
    fn events_go_to_a_file_for_owner_and_group_and_through_no_link_but_to_a_stream() {
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
