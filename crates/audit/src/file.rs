//! The files of a chain. They are opened under a lock and appended to; a full file is followed by the next one. A chain
//! continues at its end, also after another process; an incomplete last line, left by a crash, is set aside.

use std::{
    fs::File,
    io::{self, Write},
    os::{fd::AsFd, unix::fs::MetadataExt},
    sync::Arc,
};

use tracing::info;

use super::{lock::ChainLock, names::FileSeries, record::Line};
use genfleet_job::file;

/// The file to which lines are appended.
#[derive(Debug)]
pub(crate) struct LogFile {
    file: Arc<File>,
    /// Number of bytes that were written of an incomplete line.
    partial: usize,
    /// `None` for stdout and other streams: they have no parts and cannot be synced.
    parts: Option<Parts>,
    #[cfg(any(test, feature = "testing"))]
    pub(super) faults: Arc<crate::testing::faults::Faults>,
}

/// The parts (files) of a chain.
#[derive(Debug)]
struct Parts {
    series: FileSeries,
    number: u32,
    length: u64,
    limit: u64,
    _lock: ChainLock,
}

/// Syncs a file, also while more is written to it.
#[derive(Clone, Debug)]
pub(crate) struct SyncHandle {
    file: Arc<File>,
    #[cfg(any(test, feature = "testing"))]
    faults: Arc<crate::testing::faults::Faults>,
}

impl SyncHandle {
    /// Returns when everything that was written before is on disk, in a file that still has a name.
    pub(crate) fn sync(&self) -> io::Result<()> {
        #[cfg(any(test, feature = "testing"))]
        self.faults.on_sync()?;
        self.file.sync_data()?;
        if self.file.metadata()?.nlink() == 0 {
            return Err(io::Error::other("its file was removed while this process wrote to it"));
        }
        Ok(())
    }
}

/// The reason why lines were not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// A write failed, for example because the disk is full. A retry may succeed.
    #[error("{0}")]
    NotNow(io::Error),
    /// A sync failed, so that written lines may be lost.
    #[error("a sync failed: {0}")]
    Sync(io::Error),
}

impl LogFile {
    /// Standard output.
    pub(crate) fn stdout() -> io::Result<Self> {
        Ok(Self::over(io::stdout().as_fd().try_clone_to_owned()?.into(), None))
    }

    fn over(file: File, parts: Option<Parts>) -> Self {
        Self {
            file: Arc::new(file),
            partial: 0,
            parts,
            #[cfg(any(test, feature = "testing"))]
            faults: Arc::default(),
        }
    }

    /// Returns a handle to sync the file; `None` if that is not possible.
    pub(crate) fn syncable(&self) -> Option<SyncHandle> {
        self.parts.as_ref()?;
        Some(SyncHandle {
            file: Arc::clone(&self.file),
            #[cfg(any(test, feature = "testing"))]
            faults: Arc::clone(&self.faults),
        })
    }

    /// Returns the name for messages.
    pub(crate) fn name(&self) -> String {
        self.parts
            .as_ref()
            .map_or_else(|| "the stream".to_owned(), |parts| parts.series.part(parts.number).display().to_string())
    }

    /// Writes `lines`, in as few writes as possible. Returns how many were written, and an error if not all were.
    pub(crate) fn write(&mut self, lines: &[Line]) -> (usize, Result<(), WriteError>) {
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
        self.partial == 0 && self.parts.as_ref().is_some_and(full)
    }

    /// Returns the number of `lines` that fit into this part, at least one.
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
        let bytes = lines.iter().map(|line| line.bytes.as_slice()).collect::<Vec<_>>().concat();
        let (count, result) = self.write_out(&bytes[self.partial..]);
        let reached = self.partial + count;
        let mut whole = 0;
        let mut end = 0;
        for line in lines {
            if end + line.bytes.len() > reached {
                break;
            }
            (whole, end) = (whole + 1, end + line.bytes.len());
        }
        self.partial = reached - end;
        if let Some(parts) = &mut self.parts {
            parts.length += end as u64;
            // An incomplete line is removed if possible; otherwise the rest of it is written later.
            if self.partial > 0 && self.file.set_len(parts.length).is_ok() {
                self.partial = 0;
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
        #[cfg(any(test, feature = "testing"))]
        let bytes = self.faults.on_write(bytes)?;
        (&*self.file).write(bytes)
    }

    /// Continues in the next part, after this one is synced.
    fn rotate(&mut self) -> Result<(), WriteError> {
        if let Some(handle) = self.syncable() {
            handle.sync().map_err(WriteError::Sync)?;
        }
        let Some(parts) = &mut self.parts else { return Ok(()) };
        let (number, file) = next_part(&parts.series, parts.number).map_err(WriteError::NotNow)?;
        sync_folder(&parts.series).map_err(WriteError::Sync)?;
        info!(file = %parts.series.part(number).display(), "the audit continues in the next file");
        (parts.number, parts.length) = (number, 0);
        self.file = Arc::new(file);
        Ok(())
    }
}

fn next_part(series: &FileSeries, number: u32) -> io::Result<(u32, File)> {
    let mut next = number + 1;
    loop {
        match file::open(
            &series.part(next),
            File::options().read(true).append(true).create_new(true),
            file::Mode::GroupReads,
        ) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => next += 1,
            opened => return Ok((next, opened?)),
        }
    }
}

/// Makes the name of a new file durable, if folders can be synced.
fn sync_folder(series: &FileSeries) -> io::Result<()> {
    use io::ErrorKind::{InvalidInput, Unsupported};
    match File::open(series.folder())?.sync_all() {
        Err(error) if matches!(error.kind(), InvalidInput | Unsupported) => Ok(()),
        synced => synced,
    }
}

pub(super) mod open;
#[cfg(test)]
mod tests;
