//! The status file beside an embedded store (SPEC 6.2): the status of the one process that works the store, and when it
//! was written.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::status::MemberStatus;

/// An older status was written by a process that is gone.
const OLD: SignedDuration = SignedDuration::from_secs(10);
/// The furthest that a status may lie in the future: it was written while it was read, by the same clock.
const AHEAD: SignedDuration = SignedDuration::from_secs(2);

/// The content of the file.
#[derive(Serialize, Deserialize)]
struct StatusFile {
    /// Milliseconds since 1970.
    at: i64,
    #[serde(rename = "news")]
    status: MemberStatus,
}

/// Writes `status` as it stands in the file.
pub(super) fn write(at: Timestamp, status: MemberStatus) -> String {
    // Plain data: it has no member that cannot be written.
    serde_json::to_string(&StatusFile { at: at.as_millisecond(), status }).unwrap_or_default()
}

/// Reads the status of a process that is alive at `now`; `None` if there is none.
pub fn read_live_status(text: &str, now: Timestamp) -> Option<MemberStatus> {
    let StatusFile { at, mut status } = serde_json::from_str(text).ok()?;
    status.limit();
    let age = now.duration_since(Timestamp::from_millisecond(at).ok()?);
    (age < OLD && age > -AHEAD).then_some(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_status_file_is_ignored() {
        let at: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        let status =
            MemberStatus { process: "p".to_owned(), token_limit: 300, client_limit: 3000, ..MemberStatus::default() };
        let text = write(at, status.clone());
        let after = |seconds| read_live_status(&text, at + SignedDuration::from_secs(seconds));
        assert_eq!((after(0), after(9)), (Some(status.clone()), Some(status)));
        assert_eq!((after(10), after(-3600)), (None, None));
        assert_eq!(read_live_status("{", at), None);
    }
}
