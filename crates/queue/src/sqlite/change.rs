//! Changes of the tables by publishing and settling: one row is removed and others are inserted, in one transaction.
//!
//! The writer begins and ends transactions, and runs many changes in each.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{ToSql, params};

use metrics::histogram;
use tokio::time::Instant;

use super::{
    changes::{ChangeKey, Changes},
    handle::WriterHandle,
    row,
    work::{OperationReply, StoreOperation, TransactionScope},
};
use crate::message::{Destination, Publication, QueueError};
use genfleet_job::{
    Kind,
    message::{Headers, Lane, Message, enqueued::ENQUEUED_MS},
    metric,
};

const EVENTS_KEPT: i64 = 1_000_000;
/// Removes old events. A batch keeps all its events, because they are read to find its end.
const TRIM: &str = "DELETE FROM event WHERE sequence <= ?1 AND NOT EXISTS (SELECT 1 FROM batch)";
/// Number of new events after which old ones are removed.
const TRIM_EVERY: i64 = 1_000;
/// The producer's headers that are kept (SPEC 6.1).
const PRODUCERS_HEADERS: [&str; 3] = ["traceparent", "tracestate", ENQUEUED_MS];

/// The row that a change removes.
#[derive(Clone, Copy, Debug)]
pub(super) enum RowRemoval {
    /// Removes no row. The change only publishes.
    Nothing,
    /// Removes a settled delivery. The publications are stored even if the row no longer exists.
    Delivery(i64),
    /// Removes the claim on a delivery. The row is visible again, with one more return.
    Claim(i64),
    /// Removes a dead letter. The publications are stored only if it still exists.
    DeadLetter(i64),
}

struct StoreChange {
    removal: RowRemoval,
    publications: Vec<Publication>,
}

impl WriterHandle {
    /// Removes a row and stores `publications`. Returns false if the row no longer exists. The time is measured like a
    /// broker's confirm.
    pub(super) async fn change(&self, removal: RowRemoval, publications: Vec<Publication>) -> Result<bool, QueueError> {
        let begun = Instant::now();
        let found = self.ask(StoreChange { removal, publications }).await?;
        histogram!(metric::PUBLISH_CONFIRM).record(begun.elapsed());
        Ok(found)
    }

    /// Removes a row and publishes nothing.
    pub(super) fn post_removal(&self, removal: RowRemoval) -> OperationReply<bool> {
        self.post(StoreChange { removal, publications: Vec::new() })
    }
}

impl StoreOperation for StoreChange {
    type Staged = bool;
    type Output = bool;

    /// Returns true if the row existed.
    fn run(&self, scope: &TransactionScope<'_>, changes: &mut Changes) -> rusqlite::Result<bool> {
        let found = remove(scope, self.removal, changes)?;
        if found || !matches!(self.removal, RowRemoval::DeadLetter(_)) {
            insert_all(scope, &self.publications, changes)?;
        }
        Ok(found)
    }

    fn into_output(self, found: bool) -> bool {
        found
    }
}

/// Inserts all of `publications` into their tables.
pub(super) fn insert_all(
    scope: &TransactionScope<'_>,
    publications: &[Publication],
    changes: &mut Changes,
) -> rusqlite::Result<()> {
    for Publication { to, message } in publications {
        match to {
            Destination::Jobs(kind) => {
                let counted = producers(&message.headers);
                enqueue(scope, (*kind, Lane::Jobs), Duration::ZERO, message, &counted)?;
                changes.touch(ChangeKey::of(*kind, Lane::Jobs));
            }
            Destination::Lane { kind, lane, after } => {
                enqueue(scope, (*kind, *lane), *after, message, &message.headers)?;
                changes.touch(ChangeKey::of(*kind, *lane));
            }
            Destination::Event { kind, outcome } => {
                record(scope, &format!("{kind}.{outcome}"), message)?;
                changes.event();
            }
            Destination::Dead { kind } => insert_dead_letter(scope, kind, message)?,
            Destination::Reply { .. } => {}
        }
    }
    Ok(())
}

fn remove(scope: &TransactionScope<'_>, removal: RowRemoval, changes: &mut Changes) -> rusqlite::Result<bool> {
    let delete = |sql, row: i64| Ok(scope.connection.prepare_cached(sql)?.execute([row])? > 0);
    match removal {
        RowRemoval::Nothing => Ok(true),
        RowRemoval::Delivery(id) => delete("DELETE FROM message WHERE id = ?1 AND claimed = 1", id),
        RowRemoval::Claim(id) => give_back(scope, id, changes),
        RowRemoval::DeadLetter(sequence) => delete("DELETE FROM dead WHERE sequence = ?1", sequence),
    }
}

/// Releases a claim. The row keeps its time, and therefore its position near the head.
fn give_back(scope: &TransactionScope<'_>, id: i64, changes: &mut Changes) -> rusqlite::Result<bool> {
    const SQL: &str = "UPDATE message SET claimed = 0, returns = returns + 1
        WHERE id = ?1 AND claimed = 1 RETURNING kind, lane = 'suspect'";
    let mut statement = scope.connection.prepare_cached(SQL)?;
    let mut rows = statement.query([id])?;
    let mut found = false;
    while let Some(row) = rows.next()? {
        let lane = if row.get(1)? { Lane::Suspect } else { Lane::Jobs };
        if let Ok(kind) = row.get_ref(0)?.as_str()?.parse::<Kind>() {
            changes.touch(ChangeKey::of(kind, lane));
        }
        found = true;
    }
    Ok(found)
}

fn enqueue(
    scope: &TransactionScope<'_>,
    (kind, lane): (Kind, Lane),
    after: Duration,
    message: &Message,
    headers: &Headers,
) -> rusqlite::Result<()> {
    const SQL: &str = "INSERT INTO message (kind, lane, visible_at,
        message_id, correlation_id, reply_to, timestamp, content_type, headers, body)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
    insert(scope, SQL, params![kind.as_str(), lane.as_str(), visible_at(scope.now, after)], message, headers)
}

fn insert_dead_letter(scope: &TransactionScope<'_>, kind: &str, message: &Message) -> rusqlite::Result<()> {
    const SQL: &str = "INSERT INTO dead (kind, died_at,
        message_id, correlation_id, reply_to, timestamp, content_type, headers, body)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    insert(scope, SQL, params![kind, scope.now.as_millisecond()], message, &message.headers)
}

/// Runs `sql` with `first` as its first parameters and the message's columns after them.
fn insert(
    scope: &TransactionScope<'_>,
    sql: &str,
    first: &[&dyn ToSql],
    message: &Message,
    headers: &Headers,
) -> rusqlite::Result<()> {
    let headers = row::encode(headers)?;
    let timestamp = message.timestamp.map(u64::cast_signed);
    let body: &[u8] = &message.body;
    let rest: [&dyn ToSql; row::WIDTH] = [
        &message.message_id,
        &message.correlation_id,
        &message.reply_to,
        &timestamp,
        &message.content_type,
        &headers,
        &body,
    ];
    scope.connection.prepare_cached(sql)?.execute(&*[first, &rest].concat())?;
    Ok(())
}

fn record(scope: &TransactionScope<'_>, key: &str, message: &Message) -> rusqlite::Result<()> {
    const SQL: &str = "INSERT INTO event (key, inserted_at, body) VALUES (?1, ?2, ?3)";
    let body: &[u8] = &message.body;
    let row = params![key, scope.now.as_millisecond(), body];
    let sequence = scope.connection.prepare_cached(SQL)?.insert(row)?;
    if sequence % TRIM_EVERY == 0 {
        scope.connection.prepare_cached(TRIM)?.execute([sequence - EVENTS_KEPT])?;
    }
    Ok(())
}

/// Rounds up, so that a delay is never shorter than requested.
fn visible_at(now: Timestamp, after: Duration) -> i64 {
    if after.is_zero() {
        return now.as_millisecond();
    }
    let nanoseconds = now.as_nanosecond() + i128::try_from(after.as_nanos()).unwrap_or(i128::MAX / 2);
    i64::try_from((nanoseconds + 999_999).div_euclid(1_000_000)).unwrap_or(i64::MAX)
}

fn producers(headers: &Headers) -> Headers {
    let counts = |(name, _): &(&String, _)| PRODUCERS_HEADERS.contains(&name.as_str());
    headers.iter().filter(counts).map(|(name, value)| (name.clone(), value.clone())).collect()
}
