//! The lock of the process that writes a chain. It is a lock of the operating system, which is released when the
//! process ends, even by a crash.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use genfleet_job::file;

/// The right to write one chain. Dropping it releases the lock and removes its file.
#[derive(Debug)]
pub(crate) struct ChainLock {
    path: PathBuf,
    // Held until after the file is removed.
    _file: File,
}

impl ChainLock {
    /// Takes the lock in the file at `path`; `None` if another process has it.
    pub(crate) fn take(path: &Path) -> io::Result<Option<Self>> {
        loop {
            let file = file::open(path, File::options().create(true).truncate(false).write(true), file::Mode::Private)?;
            match file.try_lock() {
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
                Ok(()) if is_still(path, &file)? => return Ok(Some(Self { path: path.to_owned(), _file: file })),
                // Its last holder has just removed it, so a lock on it would exclude no process.
                Ok(()) => {}
            }
        }
    }
}

fn is_still(path: &Path, file: &File) -> io::Result<bool> {
    let held = file.metadata()?;
    match fs::metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (held.dev(), held.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

impl Drop for ChainLock {
    fn drop(&mut self) {
        // A file that remains does no harm.
        let _ = fs::remove_file(&self.path);
    }
}
