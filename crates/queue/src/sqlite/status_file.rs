//! The notice beside a store: what the process that works it tells of itself, for the tool. A file of its own and not a
//! row: it is written every other second, need not outlive a crash, and must not make the disk sync for it.
//!
//! Knows nothing of what is in it ([`crate::fleet`]).

use std::{
    fs,
    io::{self, Write},
    path::PathBuf,
};

use tokio::task::spawn_blocking;

use super::{SqliteQueue, schema};
use genfleet_job::file;

/// What is put to the store's name.
pub(super) const SUFFIX: &str = ".notice";
/// The same while it is written.
pub(super) const FRESH: &str = ".notice.new";

impl SqliteQueue {
    /// Puts the notice up, in place of the one there was.
    pub async fn write_status(&self, text: String) -> io::Result<()> {
        let (path, fresh) = (self.notice(), self.beside(FRESH));
        blocking(move || {
            // Made anew: a link that somebody put there is not followed.
            match fs::remove_file(&fresh) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = file::open(&fresh, fs::File::options().write(true).create_new(true), file::PRIVATE)?;
            file.write_all(text.as_bytes())?;
            fs::rename(&fresh, &path)
        })
        .await
    }

    /// Takes it down.
    pub async fn remove_status(&self) -> io::Result<()> {
        let path = self.notice();
        blocking(move || fs::remove_file(path)).await
    }

    /// The notice; none where nobody put one up.
    pub async fn read_status(&self) -> io::Result<Option<String>> {
        let path = self.notice();
        blocking(move || match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some),
        })
        .await
    }

    fn notice(&self) -> PathBuf {
        self.beside(SUFFIX)
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        schema::beside(self.reader.path().as_ref(), suffix)
    }
}

async fn blocking<T: Send + 'static>(task: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    spawn_blocking(task).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}
