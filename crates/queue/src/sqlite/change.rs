//! What publishing and settling do to the tables: one row taken away, others put in, together or not at all.
//!
//! Does not begin or end transactions: `writer` runs many changes in one.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{ToSql, params};

use super::{
    changes::{ChangeKey, Changes},
    command::{Scope, Work},
    row,
};
use crate::{Destination, Publication};
use genfleet_job::{
    Kind,
    message::{Headers, Lane, Message, enqueued::ENQUEUED_MS},
};

/// Events kept.
const EVENTS_KEPT: i64 = 1_000_000;
/// A batch is read to its end from its events: it keeps them all.
const TRIM: &str = "DELETE FROM event WHERE sequence <= ?1 AND NOT EXISTS (SELECT 1 FROM batch)";
/// Old events are removed once in so many.
const TRIM_EVERY: i64 = 1_000;
/// What of a producer's headers counts (SPEC 6.1).
const PRODUCERS_HEADERS: [&str; 3] = ["traceparent", "tracestate", ENQUEUED_MS];

/// One row taken away and others put in.
#[derive(Debug)]
pub(super) struct Change {
    /// What goes.
    pub(super) removal: RowRemoval,
    /// What comes.
    pub(super) publications: Vec<Publication>,
}

/// What a change takes away.
#[derive(Clone, Copy, Debug)]
pub(super) enum RowRemoval {
    /// Nothing: publications only.
    Nothing,
    /// A delivery, settled. The publications are made even where it is gone already.
    Delivery(i64),
    /// A delivery's claim: it is visible again, and counts one more return.
    Claim(i64),
    /// A dead letter. The publications are made only where it was still there.
    DeadLetter(i64),
}

impl Work for Change {
    type Found = bool;
    type Answer = bool;

    /// Whether what was to go was there.
    fn run(&self, scope: &Scope<'_>, changes: &mut Changes) -> rusqlite::Result<bool> {
        let found = take(scope, self.removal, changes)?;
        if found || !matches!(self.removal, RowRemoval::DeadLetter(_)) {
            put(scope, &self.publications, changes)?;
        }
        Ok(found)
    }

    fn answer(self, found: bool) -> bool {
        found
    }
}

/// Puts all of `publications` into their tables.
pub(super) fn put(scope: &Scope<'_>, publications: &[Publication], changes: &mut Changes) -> rusqlite::Result<()> {
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
            Destination::Dead { kind } => bury(scope, kind, message)?,
            Destination::Reply { .. } => {}
        }
    }
    Ok(())
}

fn take(scope: &Scope<'_>, removal: RowRemoval, changes: &mut Changes) -> rusqlite::Result<bool> {
    match removal {
        RowRemoval::Nothing => Ok(true),
        RowRemoval::Delivery(id) => {
            let mut statement = scope.connection.prepare_cached("DELETE FROM message WHERE id = ?1 AND claimed = 1")?;
            Ok(statement.execute([id])? > 0)
        }
        RowRemoval::Claim(id) => give_back(scope, id, changes),
        RowRemoval::DeadLetter(sequence) => {
            let mut statement = scope.connection.prepare_cached("DELETE FROM dead WHERE sequence = ?1")?;
            Ok(statement.execute([sequence])? > 0)
        }
    }
}

/// Keeps its time, and with it its place near the head.
fn give_back(scope: &Scope<'_>, id: i64, changes: &mut Changes) -> rusqlite::Result<bool> {
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
    scope: &Scope<'_>,
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

fn bury(scope: &Scope<'_>, kind: &str, message: &Message) -> rusqlite::Result<()> {
    const SQL: &str = "INSERT INTO dead (kind, died_at,
        message_id, correlation_id, reply_to, timestamp, content_type, headers, body)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    insert(scope, SQL, params![kind, scope.now.as_millisecond()], message, &message.headers)
}

/// Runs `sql` with `first` as its first parameters and the message's columns after them.
fn insert(
    scope: &Scope<'_>,
    sql: &str,
    first: &[&dyn ToSql],
    message: &Message,
    headers: &Headers,
) -> rusqlite::Result<()> {
    let headers = row::written(headers)?;
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

fn record(scope: &Scope<'_>, key: &str, message: &Message) -> rusqlite::Result<()> {
    const SQL: &str = "INSERT INTO event (key, inserted_at, body) VALUES (?1, ?2, ?3)";
    let body: &[u8] = &message.body;
    let mut statement = scope.connection.prepare_cached(SQL)?;
    let sequence = statement.insert(params![key, scope.now.as_millisecond(), body])?;
    if sequence % TRIM_EVERY == 0 {
        let mut statement = scope.connection.prepare_cached(TRIM)?;
        statement.execute([sequence - EVENTS_KEPT])?;
    }
    Ok(())
}

/// Rounded up: a delay is never shorter than asked for.
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
