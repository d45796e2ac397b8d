//! The status file next to a store, in which the worker of the store reports its state to the tool. It is a file and
//! not a row, because it is written every other second, need not survive a crash, and must not cause a disk sync.

use std::{
    fs,
    io::{self, Write},
    path::PathBuf,
};

use tokio::task::spawn_blocking;

use super::{
    schema::{STATUS_SUFFIX, STATUS_TEMPORARY_SUFFIX},
    store::SqliteQueue,
};
use genfleet_job::file;

impl SqliteQueue {
    /// Writes the status file, and replaces an earlier one.
    pub async fn write_status(&self, text: String) -> io::Result<()> {
        let (path, temporary) = (self.beside(STATUS_SUFFIX), self.beside(STATUS_TEMPORARY_SUFFIX));
        blocking(move || {
            // The file is created again, so that a symbolic link in its place is not followed.
            match fs::remove_file(&temporary) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file =
                file::open(&temporary, fs::File::options().write(true).create_new(true), file::Mode::Private)?;
            file.write_all(text.as_bytes())?;
            fs::rename(&temporary, &path)
        })
        .await
    }

    /// Removes the status file.
    pub async fn remove_status(&self) -> io::Result<()> {
        let path = self.beside(STATUS_SUFFIX);
        blocking(move || fs::remove_file(path)).await
    }

    /// Reads the status file; `None` if there is none.
    pub async fn read_status(&self) -> io::Result<Option<String>> {
        let path = self.beside(STATUS_SUFFIX);
        blocking(move || match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some),
        })
        .await
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        file::with_suffix(self.reader.path().as_ref(), suffix)
    }
}

async fn blocking<T: Send + 'static>(task: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    spawn_blocking(task).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}
