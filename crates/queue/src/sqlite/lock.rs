//! The lock of the process that works a store. It is a lock of the operating system, which is released when the process
//! ends, even by a crash.
//!
//! The lock file is not removed, because then two processes could lock two files with the same name.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use super::schema;
use crate::message::QueueError;
use genfleet_job::file;

/// Takes the lock on the store at `path`. Dropping the file releases it.
pub(super) fn take(path: &Path) -> Result<File, QueueError> {
    let lock = of(path);
    let unusable = |error: std::io::Error| {
        QueueError::Configuration(format!(
            "the lock file {} cannot be used ({error}): name a store in a folder that exists and can be written",
            lock.display()
        ))
    };
    let file = file::open(&lock, File::options().create(true).truncate(false).write(true), file::Mode::Private)
        .map_err(unusable)?;
    match lock_with_retries(&file) {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(QueueError::Configuration(format!(
            "the store {} is used by another process, and only one process may use it: stop that one, or name \
             another file",
            path.display()
        ))),
        Err(TryLockError::Error(error)) => Err(unusable(error)),
    }
}

/// Retries a few times, because a process that only checks the lock holds it for a moment.
fn lock_with_retries(file: &File) -> Result<(), TryLockError> {
    for _ in 0..10 {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(20)),
            other => return other,
        }
    }
    file.try_lock()
}

/// Returns true if no process works the store at `path`.
pub(super) fn is_free(path: &Path) -> bool {
    File::open(of(path))
        .map_or_else(|error| error.kind() == io::ErrorKind::NotFound, |file| file.try_lock_shared().is_ok())
}

/// Returns the path of the lock file of the store at `path`.
pub(super) fn of(path: &Path) -> PathBuf {
    file::with_suffix(&real(path), ".lock")
}

/// Resolves links in the path, so that a store with two names has one lock.
pub(super) fn real(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| schema::in_its_folder(path))
}
