//! Where a batch's events go: stdout, or a file that is only ever added to.

use genfleet_core::tell;
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
};

use anyhow::Context;
use genfleet_core::options::ConfigError;

/// Refuses to write over the jobs.
pub fn spare_jobs(files: &[String], setting: &str, output: Option<&Path>) -> Result<(), ConfigError> {
    let Some(output) = output.and_then(|output| output.canonicalize().ok()) else { return Ok(()) };
    let mut named = files.iter().filter(|file| *file != "-");
    let same = named.find(|file| Path::new(file).canonicalize().is_ok_and(|input| input == output));
    same.map_or(Ok(()), |file| {
        Err(ConfigError::new(format!("{setting} names {file}, which holds the jobs: name another file")))
    })
}

/// Opens `events`, or stdout where there is none.
pub fn open(events: Option<&Path>) -> anyhow::Result<Box<dyn Write + Send>> {
    let Some(path) = events else { return Ok(Box::new(io::stdout())) };
    Ok(Box::new(append(path).with_context(|| format!("--events {} cannot be written", path.display()))?))
}

fn append(path: &Path) -> io::Result<File> {
    let mut file = File::options().create(true).append(true).open(path)?;
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
