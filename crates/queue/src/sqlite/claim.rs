//! Claims rows for a consumer, in the order in which they are to start.
//!
//! A claim is on disk before its rows are delivered, so that a crash of the process is counted.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::{
    changes::Changes,
    handle::WriterHandle,
    row,
    settler::RowClaim,
    work::{StoreOperation, TransactionScope},
};
use genfleet_job::{
    Kind,
    message::{Lane, Message},
};

/// Pause of a consumer between two requests while the store is unavailable.
const UNAVAILABLE_PAUSE: Duration = Duration::from_secs(1);

/// A request for rows of a kind.
pub(super) struct Claim {
    pub(super) kind: Kind,
    /// The lanes, which take turns row by row while they have rows.
    pub(super) lanes: Vec<Lane>,
    /// Maximum number of rows.
    pub(super) limit: usize,
    /// The writer that returns unsettled rows.
    pub(super) handle: WriterHandle,
}

/// Rows that are claimed when the transaction is committed.
pub(super) struct FoundRows {
    rows: Vec<ClaimedRow>,
    next_due: Option<i64>,
}

#[derive(Debug)]
pub(super) struct ClaimedRows {
    /// The rows in the order in which they are to start.
    pub(super) rows: Vec<(RowClaim, ClaimedRow)>,
    /// Time at which the next delayed row becomes visible, in Unix milliseconds. Known only if fewer rows than the
    /// limit were claimed.
    pub(super) next_due: Option<i64>,
}

/// The content of a row when it was claimed.
#[derive(Debug)]
pub(super) struct ClaimedRow {
    id: i64,
    pub(super) lane: Lane,
    /// Number of earlier returns.
    pub(super) delivery_count: u32,
    pub(super) message: Message,
}

impl StoreOperation for Claim {
    type Staged = FoundRows;
    type Output = ClaimedRows;

    fn run(&self, scope: &TransactionScope<'_>, _: &mut Changes) -> rusqlite::Result<FoundRows> {
        let waiting = |lane: &Lane| visible(scope, self.kind, *lane, self.limit).map(|ids| (*lane, ids));
        let waiting = self.lanes.iter().map(waiting).collect::<rusqlite::Result<Vec<_>>>()?;
        let chosen = in_turn(waiting, self.limit);
        let rows = take(scope.connection, chosen)?;
        let next_due = if rows.len() < self.limit { next_due(scope, self.kind, &self.lanes)? } else { None };
        Ok(FoundRows { rows, next_due })
    }

    fn into_output(self, found: FoundRows) -> ClaimedRows {
        let claim = |row: ClaimedRow| (RowClaim::new(row.id, self.kind, self.handle.clone()), row);
        ClaimedRows { rows: found.rows.into_iter().map(claim).collect(), next_due: found.next_due }
    }

    /// Returns no rows, so that a consumer can be paused while the store is unavailable.
    fn when_unavailable(&self, now: Timestamp) -> Option<FoundRows> {
        let pause = i64::try_from(UNAVAILABLE_PAUSE.as_millis()).unwrap_or(i64::MAX);
        Some(FoundRows { rows: Vec::new(), next_due: Some(now.as_millisecond().saturating_add(pause)) })
    }
}

/// Takes at most `limit` rows from the lanes in turn, and then the rest of the longer one.
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

fn visible(scope: &TransactionScope<'_>, kind: Kind, lane: Lane, limit: usize) -> rusqlite::Result<Vec<i64>> {
    const SQL: &str = "SELECT id FROM message WHERE kind = ?1 AND lane = ?2 AND claimed = 0 AND visible_at <= ?3
        ORDER BY visible_at, id LIMIT ?4";
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut statement = scope.connection.prepare_cached(SQL)?;
    let ids = statement
        .query_map(params![kind.as_str(), lane.as_str(), scope.now.as_millisecond(), limit], |row| row.get(0))?;
    ids.collect()
}

/// Reads the rows and claims them. Two statements take less time than one with `RETURNING`, which fills a table of its
/// own.
fn take(connection: &Connection, rows: Vec<(Lane, i64)>) -> rusqlite::Result<Vec<ClaimedRow>> {
    const READ: &str = "SELECT returns,
        message_id, correlation_id, reply_to, timestamp, content_type, headers, body FROM message WHERE id = ?1";
    let mut read = connection.prepare_cached(READ)?;
    let mut claim = connection.prepare_cached("UPDATE message SET claimed = 1 WHERE id = ?1")?;
    let take = |(lane, id)| {
        let row = read.query_row([id], |row| {
            Ok(ClaimedRow { id, lane, delivery_count: row.get(0)?, message: row::read(row, 1)? })
        })?;
        claim.execute([id])?;
        Ok(row)
    };
    rows.into_iter().map(take).collect()
}

fn next_due(scope: &TransactionScope<'_>, kind: Kind, lanes: &[Lane]) -> rusqlite::Result<Option<i64>> {
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
