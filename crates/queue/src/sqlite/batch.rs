//! The batch of `genfleet run`: loaded once, in one transaction, and how far its events were printed. The job files
//! themselves are read elsewhere.

use rusqlite::{OptionalExtension, params};

use super::{
    change::insert_all,
    changes::Changes,
    row,
    work::{Scope, Work},
};
use crate::message::Publication;

/// The job files that a store was loaded with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The files, for messages.
    pub source: String,
    /// The SHA-256 of their content, in hexadecimal: a changed file is another batch.
    pub sha256: String,
    /// How many jobs it has, bad lines counted.
    pub total: u64,
}

/// The result of loading a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadOutcome {
    /// It is in the store now.
    Loaded,
    /// It was already, from an earlier start: nothing was published.
    Already {
        /// Its events were printed up to this sequence.
        printed: i64,
    },
    /// The store has another batch: nothing was published.
    Refused {
        /// That one.
        recorded: Batch,
    },
    /// The store has no batch but jobs, dead letters or events of others: nothing was published.
    Foreign,
}

/// Records a batch and publishes its jobs.
pub(super) struct LoadBatch {
    pub(super) batch: Batch,
    pub(super) publications: Vec<Publication>,
}

/// Records up to which sequence events were printed.
pub(super) struct RecordPrinted(pub(super) i64);

impl Work for LoadBatch {
    type Found = LoadOutcome;
    type Answer = LoadOutcome;

    fn run(&self, scope: &Scope<'_>, changes: &mut Changes) -> rusqlite::Result<LoadOutcome> {
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

    fn answer(self, outcome: LoadOutcome) -> LoadOutcome {
        outcome
    }
}

impl Work for RecordPrinted {
    type Found = ();
    type Answer = ();

    fn run(&self, scope: &Scope<'_>, _: &mut Changes) -> rusqlite::Result<()> {
        scope.connection.prepare_cached("UPDATE batch SET printed = ?1")?.execute([self.0])?;
        Ok(())
    }

    fn answer(self, (): ()) {}
}

/// The result that loading `batch` would have.
pub(super) fn outcome(connection: &rusqlite::Connection, batch: &Batch) -> rusqlite::Result<LoadOutcome> {
    const ANYTHING: &str = "SELECT EXISTS (SELECT 1 FROM message) OR EXISTS (SELECT 1 FROM dead)
        OR EXISTS (SELECT 1 FROM event)";
    Ok(match recorded(connection)? {
        Some((recorded, printed)) if recorded.sha256 == batch.sha256 => LoadOutcome::Already { printed },
        Some((recorded, _)) => LoadOutcome::Refused { recorded },
        None if connection.query_row(ANYTHING, [], |row| row.get(0))? => LoadOutcome::Foreign,
        None => LoadOutcome::Loaded,
    })
}

/// The batch that the store was loaded with, and up to which sequence its events were printed.
pub(super) fn recorded(connection: &rusqlite::Connection) -> rusqlite::Result<Option<(Batch, i64)>> {
    const SQL: &str = "SELECT source, sha256, total, printed FROM batch";
    let read = |found: &rusqlite::Row<'_>| {
        let batch = Batch { source: found.get(0)?, sha256: found.get(1)?, total: row::count(found, 2)? };
        Ok((batch, found.get(3)?))
    };
    connection.query_row(SQL, [], read).optional()
}
