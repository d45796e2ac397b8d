//! The `genfleet-*` headers with which a job carries what it has achieved (SPEC 5.4).

use jiff::Timestamp;

use crate::message::{HeaderValue, Headers, Message};

/// `genfleet-producer`: the user who published the job, as the broker checked it (AMQP `user_id`).
pub const PRODUCER: &str = "genfleet-producer";

/// `genfleet-redriven-by`: the operator who redrove the job.
pub const REDRIVEN_BY: &str = "genfleet-redriven-by";

/// The longest state, in bytes of JSON.
pub const MAX_STATE_BYTES: usize = 16 * 1024;

/// `genfleet-state`.
const STATE: &str = "genfleet-state";
/// `genfleet-attempts`.
pub const ATTEMPTS: &str = "genfleet-attempts";
/// `genfleet-requests`.
const REQUESTS: &str = "genfleet-requests";
/// `genfleet-started-at`.
const STARTED_AT: &str = "genfleet-started-at";
/// `genfleet-generation`.
pub const GENERATION: &str = "genfleet-generation";
/// `genfleet-not-before`: the end of a delay that is longer than the delay queues permit.
const NOT_BEFORE: &str = "genfleet-not-before";

/// `genfleet-suspected`: the number of moves to the suspects.
const SUSPECTED: &str = "genfleet-suspected";

/// `genfleet-reason` of a dead letter: the error's code.
pub const REASON: &str = "genfleet-reason";
/// `genfleet-error` of a dead letter: the error's message.
pub const ERROR: &str = "genfleet-error";
/// `genfleet-failed-at` of a dead letter.
pub const FAILED_AT: &str = "genfleet-failed-at";
/// `genfleet-worker` of a dead letter: the worker that gave the job up.
pub const WORKER: &str = "genfleet-worker";
/// `genfleet-fingerprint` of a dead letter: the same for failures of the same sort.
pub const FINGERPRINT: &str = "genfleet-fingerprint";

/// The state of a job in its headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobHeaders {
    /// The handler's state, as JSON.
    pub state: Option<String>,
    /// Attempts that counted.
    pub attempts: u32,
    /// HTTP requests sent.
    pub requests: u64,
    /// The time of the first start; `None` for a job that was never started.
    pub started_at: Option<Timestamp>,
    /// Redrives.
    pub generation: u32,
    /// Earliest time of the start.
    pub not_before: Option<Timestamp>,
    /// Moves to the suspects.
    pub suspected: u32,
}

impl JobHeaders {
    /// Reads the headers. An invalid value counts as absent: Genfleet did not write it.
    pub fn read(headers: &Headers) -> Self {
        let number = |name: &str| headers.get(name).and_then(HeaderValue::as_i64);
        let text = |name: &str| headers.get(name).and_then(HeaderValue::as_str);
        Self {
            state: text(STATE).map(str::to_owned),
            attempts: number(ATTEMPTS).and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
            requests: number(REQUESTS).and_then(|n| u64::try_from(n).ok()).unwrap_or(0),
            started_at: text(STARTED_AT).and_then(|t| t.parse().ok()),
            generation: number(GENERATION).and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
            not_before: text(NOT_BEFORE).and_then(|t| t.parse().ok()),
            suspected: number(SUSPECTED).and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
        }
    }

    /// Returns true if the job was started before.
    pub fn is_started(&self) -> bool {
        self.started_at.is_some()
    }

    /// Removes the headers with the state of a job. Headers that describe its end remain.
    pub fn clear(headers: &mut Headers) {
        for name in [STATE, NOT_BEFORE, REQUESTS, SUSPECTED] {
            headers.remove(name);
        }
    }

    /// Copies `message` with these headers; all other headers are kept.
    pub fn write(&self, message: &Message) -> Message {
        let number = |number: u64| (number > 0).then(|| i64::try_from(number).unwrap_or(i64::MAX).into());
        let time = |time: Option<Timestamp>| time.map(|time| time.to_string().into());
        let headers: [(&str, Option<HeaderValue>); 7] = [
            (STATE, self.state.as_deref().map(Into::into)),
            (ATTEMPTS, number(self.attempts.into())),
            (REQUESTS, number(self.requests)),
            (STARTED_AT, time(self.started_at)),
            (GENERATION, number(self.generation.into())),
            (NOT_BEFORE, time(self.not_before)),
            (SUSPECTED, number(self.suspected.into())),
        ];
        let mut message = message.clone();
        for (name, value) in headers {
            match value {
                Some(value) => message.headers.insert(name.to_owned(), value),
                None => message.headers.remove(name),
            };
        }
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_the_body_is_untouched() {
        let carried = JobHeaders {
            state: Some(r#"{"done":"AAE="}"#.into()),
            attempts: 3,
            requests: 17,
            started_at: Some(Timestamp::UNIX_EPOCH),
            generation: 2,
            not_before: Some(Timestamp::UNIX_EPOCH),
            suspected: 1,
        };
        let mut message = Message { body: "{}".into(), ..Message::default() };
        message.headers.insert("traceparent".into(), "00-1-2-01".into());
        let written = carried.write(&message);
        assert_eq!(JobHeaders::read(&written.headers), carried);
        assert_eq!(written.body, message.body);
        assert_eq!(written.headers["traceparent"], "00-1-2-01".into());
    }

    #[test]
    fn a_header_that_no_version_of_ours_wrote_counts_as_absent() {
        let headers = Headers::from([(ATTEMPTS.to_owned(), "many".into()), (STARTED_AT.to_owned(), "soon".into())]);
        assert_eq!(JobHeaders::read(&headers), JobHeaders::default());
    }
}
