//! The files of one chain: opened under a lock, appended to, and followed by the next when full. A chain goes on where
//! it ended, whichever process ended it; what a crash left of a last line is set aside.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::fd::AsFd,
    path::Path,
    sync::Arc,
};

use tracing::{info, warn};

use super::{
    lock::Lock,
    names::{Series, beside},
    record::{Line, Link},
    tail::Tail,
};
use crate::options::ConfigError;

/// So many processes share one name, at most.
const PROCESSES: u32 = 1000;

/// Where lines go.
#[derive(Debug)]
pub struct LogFile {
    file: Arc<File>,
    /// What of a line that could not be written whole is there, in bytes.
    begun: usize,
    /// `None` for stdout and other streams: they have no parts and cannot be synced.
    parts: Option<Parts>,
    #[cfg(test)]
    pub(super) faults: Arc<tests::Faults>,
}

/// The parts of a chain.
#[derive(Debug)]
struct Parts {
    series: Series,
    number: u32,
    length: u64,
    limit: u64,
    _lock: Lock,
}

/// Syncs what was written to a file, also while more is written.
#[derive(Clone, Debug)]
pub struct SyncHandle {
    file: Arc<File>,
    #[cfg(test)]
    faults: Arc<tests::Faults>,
}

impl SyncHandle {
    /// Returns once it is on the disk.
    pub fn sync(&self) -> io::Result<()> {
        #[cfg(test)]
        self.faults.on_sync()?;
        self.file.sync_data()
    }
}

/// Why lines were not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// It may go better later: no room, no right.
    #[error("{0}")]
    NotNow(io::Error),
    /// What was written may be lost: nobody can know.
    #[error("a sync failed: {0}")]
    Sync(io::Error),
}

impl LogFile {
    /// Stdout.
    pub fn stdout() -> io::Result<Self> {
        Ok(Self::over(io::stdout().as_fd().try_clone_to_owned()?.into(), None))
    }

    /// The chain of `series`, or of the next number where another process has it, and where it ended. A part ends at
    /// `limit` bytes.
    pub fn open(series: &Series, limit: u64) -> Result<(Self, Link), ConfigError> {
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

    fn continued(series: Series, limit: u64, lock: Lock) -> Result<(Self, Link), ConfigError> {
        let unusable = |error: io::Error| unusable(series.first(), &error);
        let number = series.last_part().map_err(unusable)?;
        let path = series.part(number);
        let file = appended(&path).map_err(unusable)?;
        if !file.metadata().map_err(unusable)?.is_file() {
            return Ok((Self::over(file, None), Link::default()));
        }
        sync_folder(&series).map_err(unusable)?;
        let tail = Tail::of(&file).map_err(unusable)?;
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

    fn over(file: File, parts: Option<Parts>) -> Self {
        Self {
            file: Arc::new(file),
            begun: 0,
            parts,
            #[cfg(test)]
            faults: Arc::default(),
        }
    }

    /// What makes all that was written durable; `None` where that cannot be done.
    pub fn syncable(&self) -> Option<SyncHandle> {
        self.parts.as_ref()?;
        Some(SyncHandle {
            file: Arc::clone(&self.file),
            #[cfg(test)]
            faults: Arc::clone(&self.faults),
        })
    }

    /// For messages.
    pub fn name(&self) -> String {
        self.parts
            .as_ref()
            .map_or_else(|| "the stream".to_owned(), |parts| parts.series.part(parts.number).display().to_string())
    }

    /// Writes `lines`, in as few writes as it takes. How many of them were written, and why not all.
    pub fn write(&mut self, lines: &[Line]) -> (usize, Result<(), WriteError>) {
        let mut written = 0;
        while written < lines.len() {
            if self.is_full(&lines[written])
                && let Err(error) = self.rotate()
            {
                return (written, Err(error));
            }
            let group = self.fitting(&lines[written..]);
            let (whole, result) = self.append(&lines[written..written + group]);
            written += whole;
            if let Err(error) = result {
                return (written, Err(WriteError::NotNow(error)));
            }
        }
        (written, Ok(()))
    }

    fn is_full(&self, next: &Line) -> bool {
        let full = |parts: &Parts| parts.length > 0 && parts.length + next.bytes.len() as u64 > parts.limit;
        self.begun == 0 && self.parts.as_ref().is_some_and(full)
    }

    /// How many of `lines` go into this part: at least one.
    fn fitting(&self, lines: &[Line]) -> usize {
        let Some(parts) = &self.parts else { return lines.len() };
        let mut length = parts.length;
        let fits = |line: &&Line| {
            length += line.bytes.len() as u64;
            length <= parts.limit
        };
        lines.iter().take_while(fits).count().max(1)
    }

    fn append(&mut self, lines: &[Line]) -> (usize, io::Result<()>) {
        let bytes: Vec<u8> = lines.iter().flat_map(|line| line.bytes.iter().copied()).collect();
        let (count, result) = self.write_out(&bytes[self.begun..]);
        let reached = self.begun + count;
        let mut whole = 0;
        let mut end = 0;
        for line in lines {
            if end + line.bytes.len() > reached {
                break;
            }
            (whole, end) = (whole + 1, end + line.bytes.len());
        }
        self.begun = reached - end;
        if let Some(parts) = &mut self.parts {
            parts.length += end as u64;
            // A file ends in whole lines where that can be done; else the rest of the line follows later.
            if self.begun > 0 && self.file.set_len(parts.length).is_ok() {
                self.begun = 0;
            }
        }
        (whole, result)
    }

    fn write_out(&self, bytes: &[u8]) -> (usize, io::Result<()>) {
        let mut count = 0;
        while count < bytes.len() {
            match self.write_some(&bytes[count..]) {
                Ok(0) => return (count, Err(io::ErrorKind::WriteZero.into())),
                Ok(some) => count += some,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (count, Err(error)),
            }
        }
        (count, Ok(()))
    }

    fn write_some(&self, bytes: &[u8]) -> io::Result<usize> {
        #[cfg(test)]
        let bytes = self.faults.on_write(bytes)?;
        (&*self.file).write(bytes)
    }

    /// Goes on in the next part, once all of this one is durable.
    fn rotate(&mut self) -> Result<(), WriteError> {
        if let Some(handle) = self.syncable() {
            handle.sync().map_err(WriteError::Sync)?;
        }
        let Some(parts) = &mut self.parts else { return Ok(()) };
        let (number, file) = next_part(&parts.series, parts.number).map_err(WriteError::NotNow)?;
        sync_folder(&parts.series).map_err(WriteError::Sync)?;
        info!(file = %parts.series.part(number).display(), "the audit goes on in the next file");
        (parts.number, parts.length) = (number, 0);
        self.file = Arc::new(file);
        Ok(())
    }
}

/// What `--check-config` asks: could lines be written there?
pub fn check(series: &Series) -> Result<(), ConfigError> {
    let unusable = |error: io::Error| unusable(series.first(), &error);
    let path = series.part(series.last_part().map_err(unusable)?);
    if path.exists() {
        let file = appended(&path).map_err(unusable)?;
        let regular = file.metadata().map_err(unusable)?.is_file();
        let foreign_there = regular && Tail::of(&file).map_err(unusable)?.is_foreign();
        return if foreign_there { Err(foreign(&path)) } else { Ok(()) };
    }
    let trial = beside(&path, &format!(".{}", std::process::id()));
    File::create_new(&trial).and_then(|_| fs::remove_file(&trial)).map_err(unusable)
}

fn appended(path: &Path) -> io::Result<File> {
    // Streams that can only be written are none the worse.
    let open = |read| File::options().read(read).append(true).create(true).open(path);
    open(true).or_else(|error| if path.is_file() { Err(error) } else { open(false) })
}

fn next_part(series: &Series, number: u32) -> io::Result<(u32, File)> {
    let mut next = number + 1;
    loop {
        match File::options().read(true).append(true).create_new(true).open(series.part(next)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => next += 1,
            opened => return Ok((next, opened?)),
        }
    }
}

/// The end of the chain in the parts before `number`, which is empty.
fn end_before(series: &Series, number: u32) -> Result<Option<Link>, ConfigError> {
    for path in (1..number).rev().map(|number| series.part(number)) {
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened.map_err(|error| unusable(&path, &error))?,
        };
        let tail = Tail::of(&file).map_err(|error| unusable(&path, &error))?;
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
fn set_aside(path: &Path, file: &File, tail: &Tail) -> io::Result<()> {
    let kept = beside(path, ".torn");
    let keep = || {
        let mut aside = File::options().create(true).append(true).open(&kept)?;
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

/// Makes the name of a new file durable.
fn sync_folder(series: &Series) -> io::Result<()> {
    File::open(series.folder())?.sync_all()
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

#[cfg(test)]
pub(crate) mod tests;
