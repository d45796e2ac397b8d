//! Steps of the wall clock. Rows become visible by the wall clock, because they outlive the process. If the clock is
//! set back, delayed rows would wait longer by as much. Therefore the last time is kept, in the file for the next
//! process and next to the monotonic clock for this one, and the worker of the store moves all rows back with the
//! clock.
//!
//! A clock that is set forward makes delayed rows visible early: this looks the same as a machine that was suspended.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension};

use super::role::Role;
use genfleet_job::clock::SharedClock;

/// Smallest step that is applied, in milliseconds. Smaller steps are added up.
const SMALLEST: i64 = 1_000;
/// Minimum interval of writing the time to the file, in milliseconds.
const NOTE_EVERY: i64 = 1_000;

/// The last known time, in milliseconds since 1970 as in the rows.
#[derive(Debug)]
pub(super) struct ClockSteps {
    clock: SharedClock,
    role: Role,
    /// The time of the wall clock, and the monotonic time of reading it.
    seen: (i64, Instant),
    /// The time in the file.
    noted: i64,
}

/// A reading of the clock, to be [kept](ClockSteps::keep) after its changes are on disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClockReading {
    pub(super) now: Timestamp,
    at: Instant,
    /// The number of milliseconds by which the clock was set back.
    back: Option<i64>,
}

impl ClockSteps {
    /// Reads the last time from a store that is being opened.
    pub(super) fn new(connection: &Connection, role: Role, clock: SharedClock) -> rusqlite::Result<Self> {
        let noted: Option<i64> = connection.query_row("SELECT at FROM clock", [], |row| row.get(0)).optional()?;
        let noted = noted.unwrap_or(i64::MIN);
        let seen = (clock.now().as_millisecond().max(noted), Instant::now());
        Ok(Self { clock, role, seen, noted })
    }

    /// Reads the clock inside a transaction. If it was set back, moves all rows back with it.
    pub(super) fn look(&self, transaction: &Connection) -> rusqlite::Result<ClockReading> {
        let (now, at) = (self.clock.now(), Instant::now());
        let behind = self.due(at).saturating_sub(now.as_millisecond());
        let back = (self.role == Role::Worker && behind >= SMALLEST).then_some(behind);
        if let Some(back) = back {
            // A row that is delayed for ever stays so.
            const SQL: &str = "UPDATE message SET visible_at = visible_at - ?1 WHERE visible_at < 9223372036854775807";
            transaction.execute(SQL, [back])?;
        }
        let look = ClockReading { now, at, back };
        if let Some(time) = self.to_note(look) {
            const SQL: &str = "INSERT INTO clock (id, at) VALUES (1, ?1) ON CONFLICT (id) DO UPDATE SET at = ?1";
            transaction.prepare_cached(SQL)?.execute([time])?;
        }
        Ok(look)
    }

    /// Keeps a reading whose changes are on disk.
    pub(super) fn keep(&mut self, look: ClockReading) {
        if let Some(back) = look.back {
            let by = Duration::from_millis(back.unsigned_abs());
            tracing::warn!(?by, "the clock was set back: jobs that wait go back with it");
        }
        self.noted = self.to_note(look).unwrap_or(self.noted);
        let now = look.now.as_millisecond();
        // Small steps back are added up until they reach the smallest step.
        if look.back.is_some() || now > self.due(look.at) {
            self.seen = (now, look.at);
        }
    }

    /// Returns the time that the wall clock shows at `at` if it is not set.
    fn due(&self, at: Instant) -> i64 {
        let (wall, when) = self.seen;
        let passed = at.saturating_duration_since(when).as_millis();
        wall.saturating_add(i64::try_from(passed).unwrap_or(i64::MAX))
    }

    fn to_note(&self, look: ClockReading) -> Option<i64> {
        let now = look.now.as_millisecond();
        (look.back.is_some() || now >= self.noted.saturating_add(NOTE_EVERY)).then_some(now)
    }
}
