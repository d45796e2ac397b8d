//! Reads counts, events, dead letters and waiting jobs, on a read-only connection.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use jiff::Timestamp;
use rusqlite::{Connection, Params, Row, params};
use tokio::task;

use super::row;
use crate::message::QueueError;
use genfleet_job::{
    Kind,
    message::{Lane, Message},
};

/// An event as it was published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    /// Sequence number. Later events have higher ones.
    pub sequence: i64,
    /// `<kind>.<outcome>`.
    pub key: String,
    /// The `CloudEvent`.
    pub body: Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeadLetterRow {
    /// Sequence number. Later dead letters have higher ones.
    pub sequence: i64,
    /// The kind, or `unknown` if it could not be read.
    pub kind: String,
    /// Time at which it became a dead letter.
    pub died_at: Timestamp,
    /// The original message, with headers that contain the reason.
    pub message: Message,
}

/// An unsettled job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingJob {
    /// Row number. Later jobs have higher ones.
    pub sequence: i64,
    /// Its kind.
    pub kind: Kind,
    /// Its lane.
    pub lane: Lane,
    /// Earliest time of its start.
    pub visible_at: Timestamp,
    /// True if a worker holds it.
    pub claimed: bool,
    /// Number of earlier returns.
    pub delivery_count: u32,
    /// The message.
    pub message: Message,
}

/// Number of messages in the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreCounts {
    /// Jobs by lane, without empty lanes.
    pub lanes: BTreeMap<(Kind, Lane), LaneCount>,
    /// Dead letters by kind.
    pub dead: BTreeMap<String, u64>,
}

/// Number of jobs in one lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneCount {
    /// Number of jobs that can start now.
    pub waiting: u64,
    /// Number of delayed jobs.
    pub delayed: u64,
    /// Number of jobs that a worker holds.
    pub claimed: u64,
    /// Earliest time at which one of the waiting jobs could have started.
    pub oldest: Option<Timestamp>,
}

/// The shared read-only connection, which one reader uses at a time.
#[derive(Clone, Debug)]
pub(super) struct StoreReader {
    connection: Arc<Mutex<Option<Connection>>>,
    path: Arc<str>,
}

impl StoreReader {
    pub(super) fn new(connection: Connection, path: &str) -> Self {
        Self { connection: Arc::new(Mutex::new(Some(connection))), path: path.into() }
    }

    /// The path of the store as given.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Runs `query` on a blocking thread.
    pub(super) async fn read<T, F>(&self, query: F) -> Result<T, QueueError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let shared = Arc::clone(&self.connection);
        let read = task::spawn_blocking(move || {
            let connection = shared.lock().unwrap_or_else(PoisonError::into_inner);
            connection.as_ref().map(query)
        });
        match read.await {
            Ok(Some(found)) => found.map_err(|source| QueueError::Store { path: self.path.to_string(), source }),
            Ok(None) | Err(_) => Err(QueueError::Closed),
        }
    }

    /// Closes the connection after its current reader.
    pub(super) async fn close(&self) {
        let shared = Arc::clone(&self.connection);
        let closed = task::spawn_blocking(move || shared.lock().unwrap_or_else(PoisonError::into_inner).take());
        drop(closed.await);
    }
}

/// Reads all counts in one transaction.
pub(super) fn counts(connection: &Connection, now: Timestamp) -> rusqlite::Result<StoreCounts> {
    let moment = connection.unchecked_transaction()?;
    Ok(StoreCounts { lanes: lanes(&moment, now)?, dead: dead(&moment)? })
}

fn lanes(connection: &Connection, now: Timestamp) -> rusqlite::Result<BTreeMap<(Kind, Lane), LaneCount>> {
    const SQL: &str = "SELECT kind, lane, claimed, visible_at > ?1 AS later, count(*), min(visible_at) FROM message
        GROUP BY kind, lane, claimed, later";
    let mut lanes = BTreeMap::<_, LaneCount>::new();
    let mut statement = connection.prepare_cached(SQL)?;
    let mut rows = statement.query([now.as_millisecond()])?;
    while let Some(row) = rows.next()? {
        let Some(place) = place(row, 0)? else { continue };
        let lane = lanes.entry(place).or_default();
        let count = row::count(row, 4)?;
        match (row.get(2)?, row.get(3)?) {
            (true, _) => lane.claimed += count,
            (false, true) => lane.delayed += count,
            (false, false) => {
                lane.waiting += count;
                lane.oldest = Some(row::time(row, 5)?);
            }
        }
    }
    Ok(lanes)
}

fn dead(connection: &Connection) -> rusqlite::Result<BTreeMap<String, u64>> {
    let mut statement = connection.prepare_cached("SELECT kind, count(*) FROM dead GROUP BY kind")?;
    let counted = statement.query_map([], |row| Ok((row.get(0)?, row::count(row, 1)?)))?;
    counted.collect()
}

/// Counts the unsettled jobs in all lanes.
pub(super) fn count_unfinished(connection: &Connection) -> rusqlite::Result<u64> {
    connection.prepare_cached("SELECT count(*) FROM message")?.query_row([], |each| row::count(each, 0))
}

/// Reads the first `limit` events after `sequence`.
pub(super) fn events(connection: &Connection, sequence: i64, limit: usize) -> rusqlite::Result<Vec<StoredEvent>> {
    const SQL: &str = "SELECT sequence, key, body FROM event WHERE sequence > ?1 ORDER BY sequence LIMIT ?2";
    let read =
        |each: &Row<'_>| Ok(StoredEvent { sequence: each.get(0)?, key: each.get(1)?, body: row::body(each, 2)? });
    all(connection, SQL, params![sequence, at_most(limit)], read)
}

/// Returns the sequence of the last event.
pub(super) fn events_end(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("SELECT coalesce(max(sequence), 0) FROM event")?.query_row([], |each| each.get(0))
}

/// Reads the first `limit` dead letters after `sequence`, of one kind if one is given.
pub(super) fn dead_letters(
    connection: &Connection,
    kind: Option<&str>,
    sequence: i64,
    limit: usize,
) -> rusqlite::Result<Vec<DeadLetterRow>> {
    const SQL: &str = "SELECT sequence, kind, died_at,
        message_id, correlation_id, reply_to, timestamp, content_type, headers, body FROM dead
        WHERE sequence > ?1 AND (?2 IS NULL OR kind = ?2) ORDER BY sequence LIMIT ?3";
    let read = |each: &Row<'_>| {
        let (sequence, kind) = (each.get(0)?, each.get(1)?);
        Ok(DeadLetterRow { sequence, kind, died_at: row::time(each, 2)?, message: row::read(each, 3)? })
    };
    all(connection, SQL, params![sequence, kind, at_most(limit)], read)
}

/// Returns the number of dead letters of `kind`, and the sequence of the last.
pub(super) fn dead_letters_end(connection: &Connection, kind: &str) -> rusqlite::Result<(u64, i64)> {
    const SQL: &str = "SELECT count(*), coalesce(max(sequence), 0) FROM dead WHERE kind = ?1";
    connection.prepare_cached(SQL)?.query_row([kind], |each| Ok((row::count(each, 0)?, each.get(1)?)))
}

/// Reads the first `limit` unsettled jobs after `sequence`.
pub(super) fn waiting(connection: &Connection, sequence: i64, limit: usize) -> rusqlite::Result<Vec<WaitingJob>> {
    const SQL: &str = "SELECT id, kind, lane, visible_at, claimed, returns,
        message_id, correlation_id, reply_to, timestamp, content_type, headers, body FROM message
        WHERE id > ?1 ORDER BY id LIMIT ?2";
    let read = |each: &Row<'_>| {
        let Some((kind, lane)) = place(each, 1)? else { return Ok(None) };
        let (sequence, visible_at) = (each.get(0)?, row::time(each, 3)?);
        let (claimed, delivery_count, message) = (each.get(4)?, each.get(5)?, row::read(each, 6)?);
        Ok(Some(WaitingJob { sequence, kind, lane, visible_at, claimed, delivery_count, message }))
    };
    Ok(all(connection, SQL, params![sequence, at_most(limit)], read)?.into_iter().flatten().collect())
}

/// Reads kind and lane in the columns from `first`. `None` for a kind that this version does not know.
fn place(row: &Row<'_>, first: usize) -> rusqlite::Result<Option<(Kind, Lane)>> {
    let kind = row.get_ref(first)?.as_str()?.parse().ok();
    let lane = match row.get_ref(first + 1)?.as_str()? {
        "jobs" => Lane::Jobs,
        "resume" => Lane::Resume,
        _ => Lane::Suspect,
    };
    Ok(kind.map(|kind| (kind, lane)))
}

fn all<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    connection.prepare_cached(sql)?.query_map(params, read)?.collect()
}

fn at_most(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
