//! Opens the store's file, creates its tables, and refuses other files.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use crate::message::QueueError;
use genfleet_job::{
    file::{self, with_suffix},
    lease::PreviousHolder,
};

/// "gnfl". Distinguishes stores from other programs' files.
const APPLICATION_ID: i64 = 0x676e_666c;
/// Version of the tables. A file with another version is refused.
pub(super) const VERSION: i64 = 1;
/// Maximum wait of a statement for another process's transaction.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(1);
/// Suffix of the status file.
pub(super) const STATUS_SUFFIX: &str = ".notice";
/// Suffix of the status file while it is written.
pub(super) const STATUS_TEMPORARY_SUFFIX: &str = ".notice.new";

/// The tables. The body is the last column, so that frequently read columns are on a row's first page. Ids are never
/// reused, so that a late settlement cannot affect another row.
const TABLES: &str = "
CREATE TABLE message (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    lane TEXT NOT NULL,
    visible_at INTEGER NOT NULL,
    claimed INTEGER NOT NULL DEFAULT 0,
    returns INTEGER NOT NULL DEFAULT 0,
    message_id TEXT, correlation_id TEXT, reply_to TEXT, timestamp INTEGER, content_type TEXT,
    headers TEXT NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE INDEX message_claim ON message (kind, lane, claimed, visible_at);
CREATE TABLE dead (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    died_at INTEGER NOT NULL,
    message_id TEXT, correlation_id TEXT, reply_to TEXT, timestamp INTEGER, content_type TEXT,
    headers TEXT NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE INDEX dead_kind ON dead (kind);
CREATE TABLE event (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL,
    inserted_at INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE TABLE batch (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    source TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    total INTEGER NOT NULL,
    printed INTEGER NOT NULL
) STRICT;
";

/// The table with the last time. Stores of earlier versions do not have it, and earlier versions ignore it.
const CLOCK: &str =
    "CREATE TABLE IF NOT EXISTS clock (id INTEGER PRIMARY KEY CHECK (id = 1), at INTEGER NOT NULL) STRICT";

/// Returns [`PreviousHolder::Somebody`] if a job of this store has ended or was started before.
pub(super) fn before(connection: &Connection) -> rusqlite::Result<PreviousHolder> {
    const SQL: &str = "SELECT EXISTS (SELECT 1 FROM event) OR EXISTS (SELECT 1 FROM dead)
        OR EXISTS (SELECT 1 FROM message WHERE returns > 0 OR lane <> 'jobs')";
    let worked = connection.query_row(SQL, [], |row| row.get::<_, bool>(0))?;
    Ok(if worked { PreviousHolder::Somebody } else { PreviousHolder::Nobody })
}

/// The owner of a file.
enum FileOwner {
    Nobody,
    Us { version: i64 },
    SomeoneElse,
}

/// Opens the store at `path` for writing, and creates its tables if the file is new.
pub(super) fn open(path: &Path) -> Result<Connection, QueueError> {
    let path = &in_its_folder(path);
    // The log and the index get the file's mode.
    match file::open(path, File::options().write(true).create_new(true), file::Mode::Private) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(unusable(path, &error)),
        _ => {}
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(path, flags).map_err(|error| open_error(path, error))?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(|error| open_error(path, error))?;
    let made = retry_while_busy(|| make(&connection)).map_err(|error| open_error(path, error))?;
    check(path, &made)?;
    retry_while_busy(|| set_durability(&connection)).map_err(|error| open_error(path, error))?;
    retry_while_busy(|| connection.execute_batch(CLOCK)).map_err(|error| open_error(path, error))?;
    Ok(connection)
}

/// Refuses symbolic links in place of the store's files.
pub(super) fn check_links(path: &Path) -> Result<(), QueueError> {
    let files = ["", "-wal", "-shm", ".lock"].map(|suffix| with_suffix(path, suffix));
    let refused = |error: io::Error| QueueError::Configuration(format!("the store {}: {error}", path.display()));
    files.iter().try_for_each(|each| file::refuse_link(each)).map_err(refused)
}

/// Resolves links in `path`, except in its last part.
pub(super) fn in_its_folder(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match (fs::canonicalize(folder), path.file_name()) {
        (Ok(folder), Some(name)) => folder.join(name),
        _ => path.to_owned(),
    }
}

/// Refuses names that `SQLite` does not interpret as files.
pub(super) fn check_name(path: &Path) -> Result<(), QueueError> {
    let refused =
        |problem: &str| Err(QueueError::Configuration(format!("{problem}: name a file, such as genfleet.db")));
    match path.as_os_str().as_encoded_bytes() {
        b"" => refused("the store's address names no file"),
        b":memory:" => refused("a store in memory would be gone with the process, and its jobs with it"),
        name if name.starts_with(b"file:") => refused("a store is no URI that begins with file:"),
        _ => Ok(()),
    }
}

/// Checks whether [`open`] would refuse the store at `path`, whose file is at `real`. Changes nothing.
pub(super) fn check_usable(path: &Path, real: &Path) -> Result<(), QueueError> {
    check_name(path)?;
    check_links(path)?;
    // The log and the lock are created in the same folder.
    let trial = with_suffix(real, &format!(".{}", std::process::id()));
    File::create_new(&trial).and_then(|_| fs::remove_file(&trial)).map_err(|error| unusable(path, &error))?;
    match File::options().write(true).open(real) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened.map_err(|error| unusable(path, &error))?,
    };
    match owner_of(real).map_err(|error| open_error(path, error))? {
        FileOwner::Nobody => Ok(()),
        known => check(path, &known),
    }
}

/// Reads the owner from the file alone, because the log never changes it.
fn owner_of(file: &Path) -> rusqlite::Result<FileOwner> {
    let absolute = std::path::absolute(file).ok().and_then(|file| url::Url::from_file_path(file).ok());
    let Some(mut address) = absolute else { return Err(rusqlite::Error::InvalidPath(file.to_owned())) };
    address.set_query(Some("immutable=1"));
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    owner(&Connection::open_with_flags(address.as_str(), flags)?)
}

/// Opens the store at `path` for reading.
pub(super) fn open_to_read(path: &Path) -> Result<Connection, QueueError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|error| open_error(path, error))?;
    connection.busy_timeout(BUSY_TIMEOUT * 10).map_err(|error| open_error(path, error))?;
    Ok(connection)
}

/// Checks that a file is a store of this version.
pub(super) fn check_owner(path: &Path, connection: &Connection) -> Result<(), QueueError> {
    check(path, &owner(connection).map_err(|error| open_error(path, error))?)
}

/// Removes all files of a closed store. A missing file is not an error.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    // The log is removed first: a remaining log would be read into the next store with this name.
    for suffix in ["-wal", "-shm", STATUS_SUFFIX, STATUS_TEMPORARY_SUFFIX, "", ".lock"] {
        match fs::remove_file(with_suffix(path, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Creates the tables if the file is new, and returns the owner. Nothing is written to another program's file.
fn make(connection: &Connection) -> rusqlite::Result<FileOwner> {
    if !matches!(owner(connection)?, FileOwner::Nobody) {
        return owner(connection);
    }
    let transaction = rusqlite::Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
    if matches!(owner(&transaction)?, FileOwner::Nobody) {
        transaction.execute_batch(TABLES)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", VERSION)?;
    }
    transaction.commit()?;
    owner(connection)
}

fn owner(connection: &Connection) -> rusqlite::Result<FileOwner> {
    let application: i64 = connection.pragma_query_one(None, "application_id")?;
    let version: i64 = connection.pragma_query_one(None, "user_version")?;
    let objects: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok(match (application, version, objects) {
        (0, 0, 0) => FileOwner::Nobody,
        (APPLICATION_ID, version, _) => FileOwner::Us { version },
        _ => FileOwner::SomeoneElse,
    })
}

fn check(path: &Path, owner: &FileOwner) -> Result<(), QueueError> {
    match owner {
        FileOwner::Us { version } if *version == VERSION => Ok(()),
        FileOwner::Us { version } => Err(QueueError::Configuration(format!(
            "the store {} was written by another version of genfleet (its schema is {version}, this version knows \
             {VERSION}): use that version, or name another file",
            path.display()
        ))),
        FileOwner::Nobody | FileOwner::SomeoneElse => Err(foreign_file_error(path)),
    }
}

/// Makes commits durable before they return. With WAL alone a power failure would lose the last ones.
fn set_durability(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "journal_size_limit", 64 * 1024 * 1024)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(())
}

/// Retries while other processes hold the file, because switching the journal mode does not wait.
fn retry_while_busy<T>(attempt: impl Fn() -> rusqlite::Result<T>) -> rusqlite::Result<T> {
    for _ in 0..50 {
        match attempt() {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                thread::sleep(Duration::from_millis(100));
            }
            other => return other,
        }
    }
    attempt()
}

fn foreign_file_error(path: &Path) -> QueueError {
    let path = path.display();
    QueueError::Configuration(format!("{path} is no store of genfleet's and is left as it is: name another file"))
}

fn open_error(path: &Path, error: rusqlite::Error) -> QueueError {
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => foreign_file_error(path),
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => unusable(path, &error),
        _ => QueueError::Store { path: path.display().to_string(), source: error },
    }
}

fn unusable(path: &Path, error: &dyn std::error::Error) -> QueueError {
    QueueError::Configuration(format!(
        "the store {} cannot be opened ({error}): name a file in a folder that exists and can be written",
        path.display()
    ))
}
