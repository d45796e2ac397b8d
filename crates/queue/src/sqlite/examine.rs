//! Examines a store for the operator's tool: its version, journal and pages, and whether a process uses it. Creates and
//! changes no file.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::Path,
};

use rusqlite::{Connection, ErrorCode};

use super::{lock, schema};
use crate::message::QueueError;

/// Maximum number of reported page errors.
const MAX_DAMAGE: u32 = 10;

/// The result of an examination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreExamination {
    /// Size of the file in bytes, without its log.
    pub bytes: u64,
    /// The journal mode; a worker sets `wal`.
    pub journal: String,
    /// Page errors, as `SQLite` reports them; empty if there are none.
    pub damage: Vec<String>,
    /// True if a worker has it open.
    pub worked: bool,
}

/// Examines the store at `path`; `None` if it does not exist. Reads the whole file. Blocks.
///
/// Returns [`QueueError::Configuration`] if it is not a store of this version.
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

/// Takes the lock and releases it at once. Its file is not changed.
fn is_worked(path: &Path) -> bool {
    let Ok(file) = File::open(lock::of(path)) else { return false };
    matches!(file.try_lock(), Err(TryLockError::WouldBlock))
}
