//! The batch of `genfleet run`. It is loaded once, in one transaction; the store also records which of its events were
//! printed. The job files themselves are read elsewhere.

use rusqlite::{OptionalExtension, params};

use super::{
    change::insert_all,
    changes::Changes,
    row,
    work::{StoreOperation, TransactionScope},
};
use crate::message::Publication;

/// The job files with which a store was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The files, for messages.
    pub source: String,
    /// The SHA-256 of their content, in hexadecimal. A changed file is a different batch.
    pub sha256: String,
    /// Number of jobs, including invalid lines.
    pub total: u64,
}

/// The result of loading a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadOutcome {
    /// The batch is in the store now.
    Loaded,
    /// The batch was already in the store, from an earlier start. Nothing was published.
    Already {
        /// The sequence up to which its events were printed.
        printed: i64,
    },
    /// The store contains another batch. Nothing was published.
    Refused {
        /// The other batch.
        recorded: Batch,
    },
    /// The store contains no batch, but other jobs, dead letters or events. Nothing was published.
    Foreign,
}

/// Records a batch and publishes its jobs.
pub(super) struct LoadBatch {
    pub(super) batch: Batch,
    pub(super) publications: Vec<Publication>,
}

/// Records the sequence up to which events were printed.
pub(super) struct RecordPrinted(pub(super) i64);

impl StoreOperation for LoadBatch {
    type Staged = LoadOutcome;
    type Output = LoadOutcome;

    fn run(&self, scope: &TransactionScope<'_>, changes: &mut Changes) -> rusqlite::Result<LoadOutcome> {
        const SQL: &str = "INSERT INTO batch (id, source, sha256, total, printed) VALUES (1, ?1, ?2, ?3, 0)";
        let found = outcome(scope.connection, &self.batch)?;
        if found != LoadOutcome::Loaded {
            return Ok(found);
        }
        let Batch { source, sha256, total } = &self.batch;
        let total = i64::try_from(*total).unwrap_or(i64::MAX);
        scope.connection.execute(SQL, params![source, sha256, total])?;
        insert_all(scope, &self.publications, changes)?;
        Ok(LoadOutcome::Loaded)
    }

    fn into_output(self, outcome: LoadOutcome) -> LoadOutcome {
        outcome
    }
}

impl StoreOperation for RecordPrinted {
    type Staged = ();
    type Output = ();

    fn run(&self, scope: &TransactionScope<'_>, _: &mut Changes) -> rusqlite::Result<()> {
        scope.connection.prepare_cached("UPDATE batch SET printed = ?1")?.execute([self.0])?;
        Ok(())
    }

    fn into_output(self, (): ()) {}
}

/// Returns the result that loading `batch` would have.
pub(super) fn outcome(connection: &rusqlite::Connection, batch: &Batch) -> rusqlite::Result<LoadOutcome> {
    const ANYTHING: &str = "SELECT EXISTS (SELECT 1 FROM message) OR EXISTS (SELECT 1 FROM dead)
        OR EXISTS (SELECT 1 FROM event)";
    Ok(match read_recorded(connection)? {
        Some((recorded, printed)) if recorded.sha256 == batch.sha256 => LoadOutcome::Already { printed },
        Some((recorded, _)) => LoadOutcome::Refused { recorded },
        None if connection.query_row(ANYTHING, [], |row| row.get(0))? => LoadOutcome::Foreign,
        None => LoadOutcome::Loaded,
    })
}

/// Returns the batch with which the store was loaded, and the sequence up to which its events were printed.
pub(super) fn read_recorded(connection: &rusqlite::Connection) -> rusqlite::Result<Option<(Batch, i64)>> {
    const SQL: &str = "SELECT source, sha256, total, printed FROM batch";
    let read = |found: &rusqlite::Row<'_>| {
        let batch = Batch { source: found.get(0)?, sha256: found.get(1)?, total: row::count(found, 2)? };
        Ok((batch, found.get(3)?))
    };
    connection.query_row(SQL, [], read).optional()
}
