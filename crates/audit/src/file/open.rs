//! Opens a chain's files: takes the lock, finds the end of the chain, and sets an incomplete last line aside.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use tracing::warn;

use super::{LogFile, Parts, sync_folder};
use crate::{lock::ChainLock, names::FileSeries, record::ChainLink, tail::ChainTail};
use genfleet_job::{file, options::ConfigError};

/// Maximum number of processes that share a name.
const PROCESSES: u32 = 1000;

impl LogFile {
    /// Opens the chain of `series`, or of the next number if another process uses it. Also returns the chain's end. A
    /// part has at most `limit` bytes.
    pub(crate) fn open(series: &FileSeries, limit: u64) -> Result<(Self, ChainLink), ConfigError> {
        let numbered = |number: u32| series.of_process(number);
        for series in (1..=PROCESSES).map(numbered) {
            let unusable = |error: io::Error| unusable(series.first(), &error);
            let Some(lock) = ChainLock::take(&file::with_suffix(series.first(), ".lock")).map_err(unusable)? else {
                continue;
            };
            if series.first() != numbered(1).first() {
                let (taken, used) = (numbered(1).first().display().to_string(), series.first().display().to_string());
                warn!(taken, used, "another process writes this audit log: another file is used");
            }
            return Self::open_locked(series, limit, lock);
        }
        let first = series.first().display();
        Err(ConfigError::new(format!("--audit-log: {PROCESSES} processes already write {first}: name another file")))
    }

    fn open_locked(series: FileSeries, limit: u64, lock: ChainLock) -> Result<(Self, ChainLink), ConfigError> {
        let unusable = |error: io::Error| unusable(series.first(), &error);
        let number = series.last_part().map_err(unusable)?;
        let path = series.part(number);
        let file = open_for_append(&path).map_err(unusable)?;
        if !file.metadata().map_err(unusable)?.is_file() {
            return Ok((Self::over(file, None), ChainLink::default()));
        }
        sync_folder(&series).map_err(unusable)?;
        let tail = ChainTail::of(&file).map_err(unusable)?;
        if tail.is_foreign() {
            return Err(foreign(&path));
        }
        if !tail.torn.is_empty() {
            set_aside(&path, &file, &tail).map_err(unusable)?;
        }
        let before = if tail.end.is_none() { end_before(&series, number)? } else { None };
        let parts = Parts { series, number, length: tail.whole, limit, _lock: lock };
        let mut log = Self::over(file, Some(parts));
        if tail.damaged > 0 {
            warn!(file = %path.display(), lines = tail.damaged, "the last lines were changed: they are kept, and the chain continues in a new file");
            log.rotate().map_err(|error| self::unusable(&path, &io::Error::other(error)))?;
        }
        Ok((log, tail.end.or(before).unwrap_or_default()))
    }
}

/// Checks that the audit can be written, for `--check-config`.
pub(crate) fn check(series: &FileSeries) -> Result<(), ConfigError> {
    let unusable = |error: io::Error| unusable(series.first(), &error);
    let path = series.part(series.last_part().map_err(unusable)?);
    file::refuse_link(&file::with_suffix(series.first(), ".lock")).map_err(unusable)?;
    if fs::symlink_metadata(&path).is_ok() {
        let file = open_for_append(&path).map_err(unusable)?;
        let regular = file.metadata().map_err(unusable)?.is_file();
        let foreign_there = regular && ChainTail::of(&file).map_err(unusable)?.is_foreign();
        return if foreign_there { Err(foreign(&path)) } else { Ok(()) };
    }
    let trial = file::with_suffix(&path, &format!(".{}", std::process::id()));
    File::create_new(&trial).and_then(|_| fs::remove_file(&trial)).map_err(unusable)
}

/// Returns the last part, whether another process writes the chain, and the end of the chain.
pub(crate) fn look(series: &FileSeries) -> Result<(PathBuf, bool, ChainTail), ConfigError> {
    let unusable = |error: io::Error| unusable(series.first(), &error);
    let path = series.part(series.last_part().map_err(unusable)?);
    let lock = file::with_suffix(series.first(), ".lock");
    let held = lock.exists() && ChainLock::take(&lock).map_err(unusable)?.is_none();
    let tail = match File::open(&path) {
        Ok(file) if file.metadata().is_ok_and(|metadata| metadata.is_file()) => {
            ChainTail::of(&file).map_err(unusable)?
        }
        _ => ChainTail::default(),
    };
    Ok((path, held, tail))
}

fn open_for_append(path: &Path) -> io::Result<File> {
    // Some streams can only be opened for writing.
    let open = |read| {
        let options = File::options().read(read).append(true).create(true).clone();
        file::open_or_stream(path, &options, file::Mode::GroupReads)
    };
    open(true).or_else(|error| if path.is_file() { Err(error) } else { open(false) })
}

/// Finds the end of the chain in the parts before `number`, which is empty.
fn end_before(series: &FileSeries, number: u32) -> Result<Option<ChainLink>, ConfigError> {
    for path in (1..number).rev().map(|number| series.part(number)) {
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened.map_err(|error| unusable(&path, &error))?,
        };
        let tail = ChainTail::of(&file).map_err(|error| unusable(&path, &error))?;
        if tail.is_foreign() {
            return Err(foreign(&path));
        }
        if tail.end.is_some() {
            return Ok(tail.end);
        }
    }
    Ok(None)
}

/// Moves an incomplete last line from `file` to a file next to it.
fn set_aside(path: &Path, file: &File, tail: &ChainTail) -> io::Result<()> {
    let kept = file::with_suffix(path, ".torn");
    let keep = || {
        let mut aside = file::open(&kept, File::options().create(true).append(true), file::Mode::GroupReads)?;
        aside.write_all(&[&tail.torn, b"\n".as_slice()].concat())?;
        aside.sync_data()
    };
    let bytes = tail.torn.len();
    match keep() {
        Ok(()) => {
            warn!(file = %path.display(), kept = %kept.display(), bytes, "the last line is incomplete because of a crash: it is set aside");
        }
        Err(error) => {
            let line = String::from_utf8_lossy(&tail.torn);
            warn!(file = %path.display(), %error, bytes, %line, "the last line is incomplete because of a crash, and can be kept only in this log");
        }
    }
    file.set_len(tail.whole)?;
    file.sync_data()
}

fn unusable(path: &Path, error: &io::Error) -> ConfigError {
    ConfigError::new(format!(
        "--audit-log: {} cannot be written ({error}): name a file in a folder that exists and can be written, - or off",
        path.display()
    ))
}

fn foreign(path: &Path) -> ConfigError {
    ConfigError::new(format!(
        "--audit-log: {} exists and is no audit log: name another file, or move this one away",
        path.display()
    ))
}
