//! What processes tell each other, and the tool: small JSON, of which nothing is needed and nothing believed blindly.
//! Times are told as what is left of them, since the clocks of hosts differ.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Raised only where an older reader would take a word for something else. A member that is not known is passed over.
const VERSION: u32 = 1;
/// What is longer is none of ours.
pub const LONGEST: usize = 64 * 1024;
/// Names and sentences are cut to so many characters.
const LONGEST_TEXT: usize = 300;
/// Entries of a list, at most.
const LONGEST_LIST: usize = 32;
/// No word closes a limit for longer. Where the API asks for more, that is told again every second until it is over.
const LONGEST_SHUT: Duration = Duration::from_secs(3600);
/// Nobody sends more requests a minute.
const MOST_REQUESTS: u32 = 10_000_000;
/// Nothing is older, in seconds: a hundred years.
const OLDEST: u64 = 100 * 365 * 24 * 3600;

/// One message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "camelCase")]
pub enum Word {
    /// "I am here", and all that is to be known.
    Here(Box<News>),
    /// "I am leaving."
    #[serde(rename_all = "camelCase")]
    Gone {
        /// Who.
        process: String,
        /// Of which client.
        client: String,
    },
    /// "Who is there?" All answer at once.
    Ask,
    /// What a later version says.
    #[serde(other)]
    Other,
}

/// What one process tells of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct News {
    /// Unlike any other's: host, number, start; as in the audit.
    pub process: String,
    /// Stands for the OAuth client.
    pub client: String,
    /// The binary.
    pub worker: String,
    /// Of this product.
    pub version: String,
    /// Seconds since it was started.
    pub up_seconds: u64,
    /// Has it jobs in hand that call the API, or did it a moment ago?
    pub working: bool,
    /// Requests it sent in the last minute.
    pub requests_last_minute: u32,
    /// Requests a minute that its token lets through.
    pub token_limit: u32,
    /// Requests a minute that it takes for the client's limit.
    pub client_limit: u32,
    /// Its part of them.
    pub share: u32,
    /// What it may send now.
    pub budget_left: u32,
    /// The API told it that the client's limit is closed: milliseconds that are left of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_shut_ms: Option<u64>,
    /// Seconds by which its clock is ahead of the API's; none where the API did not answer yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock_ahead_seconds: Option<i64>,
    /// What its requests to the API come to, where they fail, in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failing: Option<String>,
    /// What of the queue keeps it from taking jobs, each in a sentence.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_ready: Vec<String>,
    /// What is shut, and why.
    pub shut: Vec<ShutNews>,
    /// What it works.
    pub kinds: Vec<KindNews>,
    /// Receivers of webhooks that take nothing from it now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub receivers: Vec<ReceiverNews>,
    /// Whether its signature was looked at, and good. Told by whoever heard it, never by the process itself.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub verified: Option<bool>,
}

/// A brake that is on, or a gate that is shut.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ShutNews {
    /// As in `genfleet_gate_state`.
    pub reason: String,
    /// In a sentence.
    pub why: String,
    /// Which kind alone, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Milliseconds until it opens, or is tried again; none where nobody knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub for_ms: Option<u64>,
}

/// A receiver of webhooks that takes nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ReceiverNews {
    /// Scheme and host.
    pub receiver: String,
    /// In a sentence, of the last delivery.
    pub why: String,
    /// Deliveries that failed since the last one that did not.
    pub in_a_row: u32,
    /// Milliseconds since the first of them.
    pub for_ms: u64,
}

/// What a process does of one kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct KindNews {
    /// `cdn.purge`, …
    pub kind: String,
    /// Another process works it; this one waits for its turn.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub standing_by: bool,
    /// Jobs in a handler now.
    pub running: u32,
    /// Deliveries held unsettled now, those of the running jobs among them.
    pub held: u32,
    /// Jobs that ended in the last minute.
    pub ended_last_minute: u32,
    /// Those of them that failed.
    pub failed_last_minute: u32,
    /// Seconds the job delivered last had waited; none where none came, or none that told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_seconds: Option<f64>,
}

#[derive(Serialize)]
struct Written<'a> {
    v: u32,
    #[serde(flatten)]
    word: &'a Word,
}

#[derive(Deserialize)]
struct Read {
    v: u32,
    #[serde(flatten)]
    word: Word,
}

impl Word {
    /// As it is sent.
    pub fn write(&self) -> String {
        // Plain data: it has no member that cannot be written.
        serde_json::to_string(&Written { v: VERSION, word: self }).unwrap_or_default()
    }

    /// What was sent without a signature; none where it is no word of ours, or says nothing to this version.
    pub fn read(body: &[u8]) -> Option<Self> {
        if body.len() > LONGEST {
            return None;
        }
        let read: Read = serde_json::from_slice(body).ok().filter(|read: &Read| read.v == VERSION)?;
        read.word.bounded()
    }

    /// The same within bounds; none where it says nothing.
    pub fn bounded(self) -> Option<Self> {
        match self {
            Self::Here(news) if news.process.is_empty() => None,
            Self::Here(mut news) => {
                news.bound();
                Some(Self::Here(news))
            }
            Self::Other => None,
            word @ (Self::Gone { .. } | Self::Ask) => Some(word),
        }
    }
}

impl News {
    /// How long the client's limit is closed still.
    pub fn client_shut(&self) -> Option<Duration> {
        self.client_shut_ms.map(Duration::from_millis)
    }

    /// Jobs in handlers now.
    pub fn running(&self) -> u32 {
        self.kinds.iter().fold(0, |sum, kind| sum.saturating_add(kind.running))
    }

    /// Nobody can fill our memory, or our operator's screen, and no figure is beyond what can be.
    pub fn bound(&mut self) {
        self.client_shut_ms = self.client_shut_ms.map(|millis| millis.min(self::millis(LONGEST_SHUT)));
        self.up_seconds = self.up_seconds.min(OLDEST);
        let furthest = OLDEST.cast_signed();
        self.clock_ahead_seconds = self.clock_ahead_seconds.map(|ahead| ahead.clamp(-furthest, furthest));
        for requests in [&mut self.requests_last_minute, &mut self.share, &mut self.budget_left] {
            *requests = (*requests).min(MOST_REQUESTS);
        }
        for limit in [&mut self.token_limit, &mut self.client_limit] {
            *limit = (*limit).clamp(1, MOST_REQUESTS);
        }
        let told = self.shut.iter_mut().filter_map(|shut| shut.for_ms.as_mut());
        let times = told.chain(self.receivers.iter_mut().map(|receiver| &mut receiver.for_ms));
        times.for_each(|millis| *millis = (*millis).min(OLDEST * 1000));
        #[expect(clippy::cast_precision_loss, reason = "it is a round number")]
        let oldest = OLDEST as f64;
        let ages = self.kinds.iter_mut().filter_map(|kind| kind.oldest_seconds.as_mut());
        ages.for_each(|age| *age = age.clamp(0.0, oldest));
        self.shut.truncate(LONGEST_LIST);
        self.not_ready.truncate(LONGEST_LIST);
        self.kinds.truncate(LONGEST_LIST);
        self.receivers.truncate(LONGEST_LIST);
        let own = [&mut self.process, &mut self.client, &mut self.worker, &mut self.version];
        let shut = self.shut.iter_mut().flat_map(|shut| [&mut shut.reason, &mut shut.why]);
        let kinds = self.kinds.iter_mut().map(|kind| &mut kind.kind);
        let receivers = self.receivers.iter_mut().flat_map(|each| [&mut each.receiver, &mut each.why]);
        own.into_iter().chain(shut).chain(kinds).chain(receivers).for_each(cut);
        let optional = self.shut.iter_mut().filter_map(|shut| shut.kind.as_mut());
        optional.chain(&mut self.failing).chain(&mut self.not_ready).for_each(cut);
    }
}

/// Milliseconds, for the wire.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn cut(text: &mut String) {
    if let Some((end, _)) = text.char_indices().nth(LONGEST_TEXT) {
        text.truncate(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn news() -> News {
        News {
            process: "host-1-20261127T221530.000Z".to_owned(),
            client: "0011223344556677".to_owned(),
            client_shut_ms: Some(17_000),
            token_limit: 300,
            client_limit: 3000,
            shut: vec![ShutNews { reason: "throttled".to_owned(), for_ms: Some(17_000), ..ShutNews::default() }],
            kinds: vec![KindNews { kind: "cdn.purge".to_owned(), running: 3, ..KindNews::default() }],
            ..News::default()
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let (process, client) = ("a".to_owned(), "c".to_owned());
        for word in [Word::Here(Box::new(news())), Word::Gone { process, client }, Word::Ask] {
            assert_eq!(Word::read(word.write().as_bytes()), Some(word));
        }
    }

    #[test]
    fn members_that_are_not_known_or_not_there_do_no_harm() {
        let body = br#"{"v":1,"say":"here","process":"p","mood":"fine","kinds":[{"kind":"x","colour":1}]}"#;
        let Some(Word::Here(read)) = Word::read(body) else { panic!("it is read") };
        assert_eq!((read.process.as_str(), read.kinds[0].kind.as_str(), read.working), ("p", "x", false));
    }

    #[test]
    fn garbage_and_what_other_versions_say_is_passed_over() {
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
            assert_eq!(Word::read(body.as_bytes()), None, "{}", &body[..body.len().min(80)]);
        }
        assert_eq!(Word::read(b"\xff\x00"), None);
        let deep = format!(r#"{{"v":1,"say":"here","process":"p","x":{}1{}}}"#, "[".repeat(5000), "]".repeat(5000));
        assert_eq!(Word::read(deep.as_bytes()), None);
    }

    #[test]
    fn what_is_too_long_is_cut_and_nobody_can_shut_us_for_good() {
        let mut news = news();
        news.client_shut_ms = Some(u64::MAX);
        news.worker = "ü".repeat(5000);
        news.kinds = vec![KindNews::default(); 300];
        news.receivers = vec![ReceiverNews { why: "ü".repeat(5000), ..ReceiverNews::default() }; 3];
        news.kinds[0].oldest_seconds = Some(1e300);
        news.kinds[1].oldest_seconds = Some(-1e300);
        (news.requests_last_minute, news.token_limit, news.up_seconds) = (u32::MAX, 0, u64::MAX);
        news.clock_ahead_seconds = Some(i64::MIN);
        let written = Word::Here(Box::new(news)).write();
        let Some(Word::Here(read)) = Word::read(written.as_bytes()) else { panic!("it is read") };
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
