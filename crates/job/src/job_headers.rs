//! What a job has achieved travels with it in `genfleet-*` headers (SPEC 5.4): reading and writing them.

use jiff::Timestamp;

use crate::message::{HeaderValue, Headers, Message};

/// `genfleet-producer`: the user who published the job, as the broker checked it (AMQP `user_id`).
pub const PRODUCER: &str = "genfleet-producer";

/// `genfleet-redriven-by`: the operator who ran the job again, as the tool knew them.
pub const REDRIVEN_BY: &str = "genfleet-redriven-by";

/// State is at most this long, in bytes of JSON.
pub const MAX_STATE_BYTES: usize = 16 * 1024;

/// `genfleet-state`.
pub const STATE: &str = "genfleet-state";
/// `genfleet-attempts`.
pub const ATTEMPTS: &str = "genfleet-attempts";
/// `genfleet-requests`.
pub const REQUESTS: &str = "genfleet-requests";
/// `genfleet-started-at`.
pub const STARTED_AT: &str = "genfleet-started-at";
/// `genfleet-generation`.
pub const GENERATION: &str = "genfleet-generation";
/// `genfleet-not-before`: the rest of a delay longer than the delay levels reach.
pub const NOT_BEFORE: &str = "genfleet-not-before";

/// `genfleet-suspected`: how often it was moved to the suspects.
pub const SUSPECTED: &str = "genfleet-suspected";

/// The part of a message's headers that the worker keeps its books in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobHeaders {
    /// The handler's own, as JSON.
    pub state: Option<String>,
    /// Attempts that counted.
    pub attempts: u32,
    /// HTTP requests sent.
    pub requests: u64,
    /// When first handed to a handler; a job that has this has begun.
    pub started_at: Option<Timestamp>,
    /// Redrives.
    pub generation: u32,
    /// Not started earlier.
    pub not_before: Option<Timestamp>,
    /// How often it was moved to the suspects.
    pub suspected: u32,
}

impl JobHeaders {
    /// What the headers say. A value that cannot be read counts as absent: it was not written by this product.
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

    /// Whether the job was handed to a handler before.
    pub fn started(&self) -> bool {
        self.started_at.is_some()
    }

    /// `message` with these books in its headers; everything else that counted on arrival goes along.
    pub fn write(&self, message: &Message) -> Message {
        let mut message = message.clone();
        for name in [STATE, ATTEMPTS, REQUESTS, STARTED_AT, GENERATION, NOT_BEFORE, SUSPECTED] {
            message.headers.remove(name);
        }
        let mut set = |name: &str, value: HeaderValue| message.headers.insert(name.to_owned(), value);
        if let Some(state) = &self.state {
            set(STATE, state.as_str().into());
        }
        if self.attempts > 0 {
            set(ATTEMPTS, self.attempts.into());
        }
        if self.requests > 0 {
            set(REQUESTS, i64::try_from(self.requests).unwrap_or(i64::MAX).into());
        }
        if let Some(started_at) = self.started_at {
            set(STARTED_AT, started_at.to_string().into());
        }
        if self.generation > 0 {
            set(GENERATION, self.generation.into());
        }
        if let Some(not_before) = self.not_before {
            set(NOT_BEFORE, not_before.to_string().into());
        }
        if self.suspected > 0 {
            set(SUSPECTED, self.suspected.into());
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
