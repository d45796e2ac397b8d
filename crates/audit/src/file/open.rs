//! Opening a chain's files: the lock on them, the end of the chain, and what a crash left after it.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use tracing::warn;

use super::{LogFile, Parts, sync_folder};
use crate::{
    lock::Lock,
    names::{FileSeries, beside},
    record::ChainLink,
    tail::ChainTail,
};
use genfleet_job::{file, options::ConfigError};

/// Processes that share one name, at most.
const PROCESSES: u32 = 1000;

impl LogFile {
    /// Opens the chain of `series`, or of the next number where another process has it; returns its end, too. A part ends at
    /// `limit` bytes.
    pub(crate) fn open(series: &FileSeries, limit: u64) -> Result<(Self, ChainLink), ConfigError> {
        let taken = |number: u32| series.of_process(number);
        for series in (1..=PROCESSES).map(taken) {
            let unusable = |error: io::Error| unusable(series.first(), &error);
            let Some(lock) = Lock::take(&beside(series.first(), ".lock")).map_err(unusable)? else { continue };
            if series.first() != taken(1).first() {
                let (taken, used) = (taken(1).first().display().to_string(), series.first().display().to_string());
                warn!(taken, used, "the audit log is written by another process: another one is used");
            }
            return Self::continued(series, limit, lock);
        }
        Err(ConfigError::new(format!("--audit-log: {PROCESSES} processes write {} already", series.first().display())))
    }

    fn continued(series: FileSeries, limit: u64, lock: Lock) -> Result<(Self, ChainLink), ConfigError> {
        let unusable = |error: io::Error| unusable(series.first(), &error);
        let number = series.last_part().map_err(unusable)?;
        let path = series.part(number);
        let file = appended(&path).map_err(unusable)?;
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
            warn!(file = %path.display(), lines = tail.damaged, "the last lines were changed: they stay, and the chain goes on in a new file");
            log.rotate().map_err(|error| self::unusable(&path, &io::Error::other(error)))?;
        }
        Ok((log, tail.end.or(before).unwrap_or_default()))
    }
}

/// Checks that lines could be written there, for `--check-config`.
pub(crate) fn check(series: &FileSeries) -> Result<(), ConfigError> {
    let unusable = |error: io::Error| unusable(series.first(), &error);
    let path = series.part(series.last_part().map_err(unusable)?);
    file::refuse_link(&beside(series.first(), ".lock")).map_err(unusable)?;
    if fs::symlink_metadata(&path).is_ok() {
        let file = appended(&path).map_err(unusable)?;
        let regular = file.metadata().map_err(unusable)?.is_file();
        let foreign_there = regular && ChainTail::of(&file).map_err(unusable)?.is_foreign();
        return if foreign_there { Err(foreign(&path)) } else { Ok(()) };
    }
    let trial = beside(&path, &format!(".{}", std::process::id()));
    File::create_new(&trial).and_then(|_| fs::remove_file(&trial)).map_err(unusable)
}

/// Returns the last part, true where another process writes the chain, and the end of the chain.
pub(crate) fn look(series: &FileSeries) -> Result<(PathBuf, bool, ChainTail), ConfigError> {
    let unusable = |error: io::Error| unusable(series.first(), &error);
    let path = series.part(series.last_part().map_err(unusable)?);
    let lock = beside(series.first(), ".lock");
    let held = lock.exists() && Lock::take(&lock).map_err(unusable)?.is_none();
    let tail = match File::open(&path) {
        Ok(file) if file.metadata().is_ok_and(|metadata| metadata.is_file()) => {
            ChainTail::of(&file).map_err(unusable)?
        }
        _ => ChainTail::default(),
    };
    Ok((path, held, tail))
}

fn appended(path: &Path) -> io::Result<File> {
    // A stream may be open for writing only.
    let open = |read| {
        let options = File::options().read(read).append(true).create(true).clone();
        file::open_or_stream(path, &options, file::GROUP_READS)
    };
    open(true).or_else(|error| if path.is_file() { Err(error) } else { open(false) })
}

/// The end of the chain in the parts before `number`, which is empty.
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

/// Keeps a torn last line in a file beside, and takes it out of `file`.
fn set_aside(path: &Path, file: &File, tail: &ChainTail) -> io::Result<()> {
    let kept = beside(path, ".torn");
    let keep = || {
        let mut aside = file::open(&kept, File::options().create(true).append(true), file::GROUP_READS)?;
        aside.write_all(&[&tail.torn, b"\n".as_slice()].concat())?;
        aside.sync_data()
    };
    let bytes = tail.torn.len();
    match keep() {
        Ok(()) => {
            warn!(file = %path.display(), kept = %kept.display(), bytes, "the last line was torn by a crash: set aside");
        }
        Err(error) => {
            let line = String::from_utf8_lossy(&tail.torn);
            warn!(file = %path.display(), %error, bytes, %line, "the last line was torn by a crash, and can be kept only here");
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
        "--audit-log: {} holds something that is no audit log: name another file, or move this one away",
        path.display()
    ))
}
