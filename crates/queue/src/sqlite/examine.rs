//! Whether a store is sound: its version, its journal, its pages, who works it. For the operator's tool; makes no file
//! and changes none.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::Path,
};

use rusqlite::{Connection, ErrorCode};

use super::{lock, schema};
use crate::QueueError;

/// Errors of its pages that are told, at most.
const MAX_DAMAGE: u32 = 10;

/// What a store looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreExamination {
    /// The file, in bytes, without its log.
    pub bytes: u64,
    /// How a commit is written; `wal` is what a worker sets.
    pub journal: String,
    /// What is wrong with its pages, in `SQLite`'s words; empty where they are sound.
    pub damage: Vec<String>,
    /// Whether a process works it now.
    pub worked: bool,
}

/// Looks at the store at `path`; `None` where there is none. Reads all of it. Blocks.
///
/// [`QueueError::Configuration`] where it is no store of ours, or one of another version.
pub fn examine(path: &Path) -> Result<Option<StoreExamination>, QueueError> {
    let bytes = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        found => found.map(|metadata| metadata.len()).unwrap_or_default(),
    };
    let connection = schema::open_to_read(path)?;
    let owned = schema::check_owner(path, &connection);
    let store = |source| QueueError::Store { path: path.display().to_string(), source };
    match owned {
        Err(QueueError::Store { source, .. }) if is_damage(&source) => {
            let damage = vec![source.to_string()];
            return Ok(Some(StoreExamination { bytes, journal: String::new(), damage, worked: is_worked(path) }));
        }
        owned => owned?,
    }
    let journal = connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).map_err(store)?;
    Ok(Some(StoreExamination { bytes, journal, damage: damage(&connection), worked: is_worked(path) }))
}

fn damage(connection: &Connection) -> Vec<String> {
    let mut lines = Vec::new();
    let checked = connection.pragma(None, "quick_check", MAX_DAMAGE, |row| {
        lines.push(row.get::<_, String>(0)?);
        Ok(())
    });
    lines.retain(|line| line != "ok");
    if let Err(error) = checked {
        lines.push(error.to_string());
    }
    lines
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt))
}

/// Asks for the lock, and lets it go at once. The file of it stays as it was.
fn is_worked(path: &Path) -> bool {
    let Ok(file) = File::open(lock::of(path)) else { return false };
    matches!(file.try_lock(), Err(TryLockError::WouldBlock))
}
