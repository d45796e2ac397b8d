//! The metrics of the store: its condition and the number of waiting messages.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use metrics::gauge;
use rusqlite::{Connection, params};
use tokio::{
    select,
    time::{MissedTickBehavior, interval},
};

use super::{
    handle::{StoreCondition, StoreState},
    inspect::StoreReader,
    row,
};
use genfleet_job::{Kind, clock::SharedClock, message::Lane, metric};

/// Interval of the counts.
const EVERY: Duration = Duration::from_secs(10);

/// Counts the waiting messages of `kind` until the store is closed.
pub(super) async fn count(reader: StoreReader, state: Arc<StoreState>, clock: SharedClock, kind: Kind) {
    let mut due = interval(EVERY);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut condition = state.condition.subscribe();
    loop {
        select! {
            // Cannot fail: the sender is in `state`.
            _ = condition.wait_for(|now| matches!(now, StoreCondition::Closed | StoreCondition::Failed(_))) => return,
            _ = due.tick() => {}
        }
        state.gauge();
        let now = clock.now();
        let Ok(ready) = reader.read(move |connection| ready(connection, kind, now)).await else { continue };
        for (queue, messages) in ready {
            let messages = u32::try_from(messages).unwrap_or(u32::MAX);
            gauge!(metric::QUEUE_MESSAGES, "kind" => kind.as_str(), "queue" => queue).set(messages);
        }
    }
}

/// Returns the number of jobs that can start now in each lane, and of dead letters.
pub(super) fn ready(connection: &Connection, kind: Kind, now: Timestamp) -> rusqlite::Result<Vec<(&'static str, u64)>> {
    const VISIBLE: &str = "SELECT count(*) FROM message
        WHERE kind = ?1 AND lane = ?2 AND claimed = 0 AND visible_at <= ?3";
    const DEAD: &str = "SELECT count(*) FROM dead WHERE kind = ?1";
    let mut counted = Vec::new();
    let mut visible = connection.prepare_cached(VISIBLE)?;
    for lane in [Lane::Jobs, Lane::Resume, Lane::Suspect] {
        let of_lane = params![kind.as_str(), lane.as_str(), now.as_millisecond()];
        counted.push((lane.as_str(), visible.query_row(of_lane, |each| row::count(each, 0))?));
    }
    let dead = connection.prepare_cached(DEAD)?.query_row([kind.as_str()], |each| row::count(each, 0))?;
    counted.push(("dead", dead));
    Ok(counted)
}
