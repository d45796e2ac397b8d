//! Which rows are handed out next, in which order, and the right to settle them.
//!
//! A claim is on the disk before its rows are handed out, so that the death of a process is counted.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, params};
use tokio::time::Instant;

use super::{
    change::RowRemoval,
    changes::Changes,
    command::{Scope, Work},
    handle::WriterHandle,
    row,
};
use crate::unsettled::UnsettledGuard;
use genfleet_job::{
    Kind,
    message::{Lane, Message},
};

/// When a consumer asks again that was told "nothing" because the store is in trouble.
const TROUBLE_PAUSE: Duration = Duration::from_secs(1);

/// A wish for rows.
#[derive(Debug)]
pub(super) struct Claim {
    /// Of this kind.
    pub(super) kind: Kind,
    /// From these lanes in turn; each row of one is followed by one of the next while that has any.
    pub(super) lanes: Vec<Lane>,
    /// So many at most.
    pub(super) limit: usize,
    /// By whom they can be given back.
    pub(super) link: WriterHandle,
}

/// Rows taken, not yet on the disk.
#[derive(Debug)]
pub(super) struct Found {
    rows: Vec<Row>,
    next_due: Option<i64>,
}

/// Rows taken.
#[derive(Debug)]
pub(super) struct Claimed {
    /// In the order they are to be started.
    pub(super) rows: Vec<(RowClaim, Row)>,
    /// When the next delayed row becomes visible, Unix milliseconds; known where fewer rows came than were asked.
    pub(super) next_due: Option<i64>,
}

/// One row, as it was when it was taken.
#[derive(Debug)]
pub(super) struct Row {
    id: i64,
    /// Where it waited.
    pub(super) lane: Lane,
    /// How often it came back.
    pub(super) delivery_count: u32,
    /// What it is.
    pub(super) message: Message,
}

/// A claim on one row. Dropped, the row is given back.
#[derive(Debug)]
pub(super) struct RowClaim {
    id: i64,
    link: WriterHandle,
    /// Taken by whoever settles.
    counted: Option<UnsettledGuard>,
}

impl RowClaim {
    fn new(id: i64, kind: Kind, link: WriterHandle) -> Self {
        let counted = Some(link.state().unsettled.hold(kind));
        Self { id, link, counted }
    }

    /// When the store was opened, where jobs were worked from it before.
    pub(super) fn taken_over(&self) -> Option<Instant> {
        self.link.state().taken_over
    }

    /// The row, the way to it, and its place in the count, to be dropped once it is settled; dropping the claim changes
    /// nothing any more.
    pub(super) fn settle(mut self) -> (i64, WriterHandle, Option<UnsettledGuard>) {
        (self.id, self.link.clone(), self.counted.take())
    }
}

impl Drop for RowClaim {
    fn drop(&mut self) {
        if self.counted.is_some() {
            drop(self.link.post_change(RowRemoval::Claim(self.id)));
        }
    }
}

impl Claim {
    /// No rows now, look again in a moment.
    pub(super) fn nothing(now: Timestamp) -> Found {
        let pause = i64::try_from(TROUBLE_PAUSE.as_millis()).unwrap_or(i64::MAX);
        Found { rows: Vec::new(), next_due: Some(now.as_millisecond().saturating_add(pause)) }
    }
}

impl Work for Claim {
    type Found = Found;
    type Answer = Claimed;

    fn run(&self, scope: &Scope<'_>, _: &mut Changes) -> rusqlite::Result<Found> {
        let waiting = |lane: &Lane| visible(scope, self.kind, *lane, self.limit).map(|ids| (*lane, ids));
        let waiting = self.lanes.iter().map(waiting).collect::<rusqlite::Result<Vec<_>>>()?;
        let chosen = in_turn(waiting, self.limit);
        let take = |(lane, id)| take(scope.connection, id, lane);
        let rows = chosen.into_iter().map(take).collect::<rusqlite::Result<Vec<_>>>()?;
        let next_due = if rows.len() < self.limit { next_due(scope, self.kind, &self.lanes)? } else { None };
        Ok(Found { rows, next_due })
    }

    fn answer(self, found: Found) -> Claimed {
        let hold = |row: Row| (RowClaim::new(row.id, self.kind, self.link.clone()), row);
        Claimed { rows: found.rows.into_iter().map(hold).collect(), next_due: found.next_due }
    }
}

/// One of each lane after the other, the rest of the longer one at the end; `limit` at most.
fn in_turn(waiting: Vec<(Lane, Vec<i64>)>, limit: usize) -> Vec<(Lane, i64)> {
    let mut lanes: Vec<_> = waiting.into_iter().map(|(lane, ids)| (lane, ids.into_iter())).collect();
    let mut chosen = Vec::with_capacity(limit);
    loop {
        let before = chosen.len();
        for (lane, ids) in &mut lanes {
            chosen.extend(ids.next().map(|id| (*lane, id)));
        }
        if chosen.len() == before || chosen.len() >= limit {
            chosen.truncate(limit);
            return chosen;
        }
    }
}

fn visible(scope: &Scope<'_>, kind: Kind, lane: Lane, limit: usize) -> rusqlite::Result<Vec<i64>> {
    const SQL: &str = "SELECT id FROM message WHERE kind = ?1 AND lane = ?2 AND claimed = 0 AND visible_at <= ?3
        ORDER BY visible_at, id LIMIT ?4";
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut statement = scope.connection.prepare_cached(SQL)?;
    let ids = statement
        .query_map(params![kind.as_str(), lane.as_str(), scope.now.as_millisecond(), limit], |row| row.get(0))?;
    ids.collect()
}

fn take(connection: &Connection, id: i64, lane: Lane) -> rusqlite::Result<Row> {
    const SQL: &str = "UPDATE message SET claimed = 1 WHERE id = ?1 RETURNING returns,
        message_id, correlation_id, reply_to, timestamp, content_type, headers, body";
    let mut statement = connection.prepare_cached(SQL)?;
    statement.query_row([id], |row| Ok(Row { id, lane, delivery_count: row.get(0)?, message: row::read(row, 1)? }))
}

fn next_due(scope: &Scope<'_>, kind: Kind, lanes: &[Lane]) -> rusqlite::Result<Option<i64>> {
    const SQL: &str = "SELECT min(visible_at) FROM message
        WHERE kind = ?1 AND lane = ?2 AND claimed = 0 AND visible_at > ?3";
    let mut statement = scope.connection.prepare_cached(SQL)?;
    let mut earliest = None;
    for lane in lanes {
        let due: Option<i64> =
            statement.query_row(params![kind.as_str(), lane.as_str(), scope.now.as_millisecond()], |row| row.get(0))?;
        earliest = earliest.into_iter().chain(due).min();
    }
    Ok(earliest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn begun_and_new_jobs_take_turns_until_one_lane_is_empty() {
        let waiting = vec![(Lane::Resume, vec![1, 2]), (Lane::Jobs, vec![11, 12, 13, 14])];
        let order = |limit| in_turn(waiting.clone(), limit).into_iter().map(|(_, id)| id).collect::<Vec<_>>();
        assert_eq!(order(10), [1, 11, 2, 12, 13, 14]);
        assert_eq!(order(3), [1, 11, 2]);
        assert_eq!(order(1), [1]);
        assert!(order(0).is_empty());
    }
}
