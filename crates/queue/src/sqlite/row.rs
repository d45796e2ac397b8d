//! Stores a message in columns, and reads it back unchanged.

use bytes::Bytes;
use jiff::Timestamp;
use rusqlite::{Row, types::Type};

use genfleet_job::message::{Headers, Message};

/// Number of columns of a message: see [`read`].
pub(super) const WIDTH: usize = 7;

/// Reads the message whose columns begin at `first`: `message_id`, `correlation_id`, `reply_to`, `timestamp`,
/// `content_type`, `headers`, `body`.
pub(super) fn read(row: &Row<'_>, first: usize) -> rusqlite::Result<Message> {
    let headers = row.get_ref(first + 5)?.as_str()?;
    Ok(Message {
        message_id: row.get(first)?,
        correlation_id: row.get(first + 1)?,
        reply_to: row.get(first + 2)?,
        timestamp: row.get::<_, Option<i64>>(first + 3)?.map(i64::cast_unsigned),
        content_type: row.get(first + 4)?,
        headers: read_headers(headers, first + 5)?,
        body: body(row, first + 6)?,
    })
}

/// Reads the bytes in column `index`.
pub(super) fn body(row: &Row<'_>, index: usize) -> rusqlite::Result<Bytes> {
    Ok(Bytes::copy_from_slice(row.get_ref(index)?.as_blob()?))
}

/// Encodes `headers` for the store.
pub(super) fn encode(headers: &Headers) -> rusqlite::Result<String> {
    if headers.is_empty() {
        return Ok(String::new());
    }
    serde_json::to_string(headers).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

/// Reads the time in column `index`, stored in Unix milliseconds.
pub(super) fn time(row: &Row<'_>, index: usize) -> rusqlite::Result<Timestamp> {
    Timestamp::from_millisecond(row.get(index)?).map_err(|error| unreadable(index, Type::Integer, error))
}

/// Reads a count, which is never negative.
pub(super) fn count(row: &Row<'_>, index: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(index).map(i64::unsigned_abs)
}

fn read_headers(stored: &str, index: usize) -> rusqlite::Result<Headers> {
    if stored.is_empty() {
        return Ok(Headers::new());
    }
    serde_json::from_str(stored).map_err(|error| unreadable(index, Type::Text, error))
}

fn unreadable(index: usize, kind: Type, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(index, kind, Box::new(error))
}
