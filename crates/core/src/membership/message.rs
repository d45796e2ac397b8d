//! The messages that the processes of a fleet exchange: small JSON objects. No member is required, and none is trusted
//! without bounds.

use serde::{Deserialize, Serialize};

use super::status::MemberStatus;

/// The version of the format. It rises only if an older reader would misunderstand a message; unknown members are
/// ignored.
const VERSION: u32 = 1;
/// The longest message that is read, in bytes.
pub(super) const LONGEST: usize = 64 * 1024;

/// One message of a process to its fleet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "say")]
pub(super) enum MemberMessage {
    /// The sender is alive; carries its whole status.
    #[serde(rename = "here")]
    Heartbeat(Box<MemberStatus>),
    /// The sender leaves.
    #[serde(rename = "gone")]
    Leave { process: String, client: String },
    /// The sender asks for a heartbeat of every process.
    #[serde(rename = "ask")]
    Query,
    /// A message of a later version.
    #[serde(other)]
    Unknown,
}

/// An unsigned message on the wire.
#[derive(Serialize, Deserialize)]
struct UnsignedMessage<M> {
    v: u32,
    #[serde(flatten)]
    message: M,
}

impl MemberMessage {
    /// Writes the message without a signature.
    pub(super) fn write(&self) -> String {
        // Plain data: it has no member that cannot be written.
        serde_json::to_string(&UnsignedMessage { v: VERSION, message: self }).unwrap_or_default()
    }

    /// Reads an unsigned message; `None` if this version does not understand it.
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        if body.len() > LONGEST {
            return None;
        }
        let read: UnsignedMessage<Self> = serde_json::from_slice(body).ok()?;
        if read.v == VERSION { read.message.limit() } else { None }
    }

    /// Limits what the message holds; `None` if it says nothing.
    pub(super) fn limit(self) -> Option<Self> {
        match self {
            Self::Heartbeat(status) if status.process.is_empty() => None,
            Self::Heartbeat(mut status) => {
                status.limit();
                Some(Self::Heartbeat(status))
            }
            Self::Unknown => None,
            message @ (Self::Leave { .. } | Self::Query) => Some(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{super::status::*, *};

    fn status() -> MemberStatus {
        MemberStatus {
            process: "host-1-20261127T221530.000Z".to_owned(),
            client: "0011223344556677".to_owned(),
            client_shut_ms: Some(17_000),
            token_limit: 300,
            client_limit: 3000,
            shut: vec![HoldStatus { reason: "throttled".to_owned(), for_ms: Some(17_000), ..HoldStatus::default() }],
            kinds: vec![KindStatus { kind: "cdn.purge".to_owned(), running: 3, ..KindStatus::default() }],
            ..MemberStatus::default()
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let (process, client) = ("a".to_owned(), "c".to_owned());
        for message in [
            MemberMessage::Heartbeat(Box::new(status())),
            MemberMessage::Leave { process, client },
            MemberMessage::Query,
        ] {
            assert_eq!(MemberMessage::read(message.write().as_bytes()), Some(message));
        }
    }

    #[test]
    fn unknown_and_missing_members_are_accepted() {
        let body = br#"{"v":1,"say":"here","process":"p","mood":"fine","kinds":[{"kind":"x","colour":1}]}"#;
        let Some(MemberMessage::Heartbeat(read)) = MemberMessage::read(body) else { panic!("it is read") };
        assert_eq!((read.process.as_str(), read.kinds[0].kind.as_str(), read.working), ("p", "x", false));
    }

    #[test]
    fn garbage_and_other_versions_are_ignored() {
        let huge = format!(r#"{{"v":1,"say":"here","process":"{}"}}"#, "p".repeat(LONGEST));
        for body in [
            "",
            "null",
            "[]",
            "{",
            r#"{"say":"ask"}"#,
            r#"{"v":2,"say":"ask"}"#,
            r#"{"v":"1","say":"ask"}"#,
            r#"{"v":1,"say":"sing"}"#,
            r#"{"v":1,"say":"here","process":""}"#,
            r#"{"v":1,"say":"here","process":"p","tokenLimit":-1}"#,
            r#"{"v":1,"say":"gone"}"#,
            huge.as_str(),
        ] {
            assert_eq!(MemberMessage::read(body.as_bytes()), None, "{}", &body[..body.len().min(80)]);
        }
        assert_eq!(MemberMessage::read(b"\xff\x00"), None);
        let deep = format!(r#"{{"v":1,"say":"here","process":"p","x":{}1{}}}"#, "[".repeat(5000), "]".repeat(5000));
        assert_eq!(MemberMessage::read(deep.as_bytes()), None);
    }

    #[test]
    fn texts_and_figures_are_limited_and_nobody_can_close_the_limit_for_good() {
        let mut status = status();
        status.client_shut_ms = Some(u64::MAX);
        status.worker = "ü".repeat(5000);
        status.kinds = vec![KindStatus::default(); 300];
        status.receivers = vec![ReceiverStatus { why: "ü".repeat(5000), ..ReceiverStatus::default() }; 3];
        status.kinds[0].oldest_seconds = Some(1e300);
        status.kinds[1].oldest_seconds = Some(-1e300);
        (status.requests_last_minute, status.token_limit, status.up_seconds) = (u32::MAX, 0, u64::MAX);
        status.clock_ahead_seconds = Some(i64::MIN);
        let written = MemberMessage::Heartbeat(Box::new(status)).write();
        let Some(MemberMessage::Heartbeat(read)) = MemberMessage::read(written.as_bytes()) else {
            panic!("it is read")
        };
        assert_eq!((read.worker.chars().count(), read.kinds.len()), (LONGEST_TEXT, LONGEST_LIST));
        assert_eq!(read.receivers[2].why.chars().count(), LONGEST_TEXT);
        assert_eq!(read.client_shut(), Some(LONGEST_SHUT));
        assert_eq!((read.requests_last_minute, read.token_limit, read.up_seconds), (MOST_REQUESTS, 1, OLDEST));
        assert_eq!(read.clock_ahead_seconds, Some(-OLDEST.cast_signed()));
        for age in [&read.kinds[0], &read.kinds[1]].map(|kind| kind.oldest_seconds.unwrap()) {
            assert!(Duration::try_from_secs_f64(age).is_ok(), "{age}");
        }
    }
}
