//! The status of one process, as it tells its fleet, the operator's tool and the page of the admin port. Times are
//! written as what is left of them or how long they last, because the clocks of hosts differ.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Texts are cut to this many characters.
pub(super) const LONGEST_TEXT: usize = 300;
/// Lists are cut to this many entries.
pub(super) const LONGEST_LIST: usize = 32;
/// The longest time for which a message may close the client's limit. If the API asks for more, the message is repeated
/// every second until then.
pub(super) const LONGEST_SHUT: Duration = Duration::from_secs(3600);
/// The highest plausible rate, in requests a minute.
pub(super) const MOST_REQUESTS: u32 = 10_000_000;
/// The highest plausible age, in seconds: a hundred years.
pub(super) const OLDEST: u64 = 100 * 365 * 24 * 3600;

/// The status of one process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MemberStatus {
    /// The process: host, pid and start time, as in the audit.
    pub process: String,
    /// A fingerprint of the OAuth client.
    pub client: String,
    /// The name of the binary.
    pub worker: String,
    /// The version of Genfleet.
    pub version: String,
    /// Seconds since the process started.
    pub up_seconds: u64,
    /// True while the process has jobs that call the API, and for a moment after.
    pub working: bool,
    /// Requests sent in the last minute.
    pub requests_last_minute: u32,
    /// The token's limit, in requests a minute.
    pub token_limit: u32,
    /// The client's limit as the process knows it, in requests a minute.
    pub client_limit: u32,
    /// The process's share of the client's limit.
    pub share: u32,
    /// Requests that it may send now.
    pub budget_left: u32,
    /// Milliseconds for which the client's limit stays closed, if the API closed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_shut_ms: Option<u64>,
    /// Seconds by which the process's clock is ahead of the API's; `None` until the API answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock_ahead_seconds: Option<i64>,
    /// The reason why requests to the API fail, if they do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failing: Option<String>,
    /// The reasons on the queue's side why the process is not ready.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_ready: Vec<String>,
    /// What is wrong although the process is ready.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// The holds and pauses that stop requests.
    pub shut: Vec<HoldStatus>,
    /// The kinds that the process works.
    pub kinds: Vec<KindStatus>,
    /// The webhook receivers that refuse deliveries.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub receivers: Vec<ReceiverStatus>,
    /// The result of the signature check. Set by the reader, never by the process itself.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub verified: Option<bool>,
}

/// A hold or pause that stops requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HoldStatus {
    /// The label in `genfleet_gate_state`.
    pub reason: String,
    /// The explanation, as a sentence.
    pub why: String,
    /// The only kind that is stopped; `None` for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Milliseconds until it ends or is checked again; `None` if unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub for_ms: Option<u64>,
}

/// A webhook receiver that refuses deliveries.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ReceiverStatus {
    /// Scheme and host.
    pub receiver: String,
    /// The reason of the last failure, as a sentence.
    pub why: String,
    /// Failures since the last success.
    pub in_a_row: u32,
    /// Milliseconds since the first of them.
    pub for_ms: u64,
}

/// The activity of a process on one kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct KindStatus {
    /// The kind, e.g. `cdn.purge`.
    pub kind: String,
    /// True if another process works this exclusive kind and this one waits.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub standing_by: bool,
    /// Jobs in a handler.
    pub running: u32,
    /// Unsettled deliveries, including those of running jobs.
    pub held: u32,
    /// Jobs that ended in the last minute.
    pub ended_last_minute: u32,
    /// Those of them that failed.
    pub failed_last_minute: u32,
    /// Seconds that the job delivered last had waited; `None` if unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_seconds: Option<f64>,
}

impl MemberStatus {
    /// The time for which the client's limit stays closed.
    pub fn client_shut(&self) -> Option<Duration> {
        self.client_shut_ms.map(Duration::from_millis)
    }

    /// The number of jobs in handlers.
    pub fn running(&self) -> u32 {
        self.kinds.iter().fold(0, |sum, kind| sum.saturating_add(kind.running))
    }

    /// Limits texts, lists and figures, so that a sender can fill neither the reader's memory nor the operator's
    /// screen.
    pub(super) fn limit(&mut self) {
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
        let holds = self.shut.iter_mut().filter_map(|shut| shut.for_ms.as_mut());
        let times = holds.chain(self.receivers.iter_mut().map(|receiver| &mut receiver.for_ms));
        times.for_each(|millis| *millis = (*millis).min(OLDEST * 1000));
        #[expect(clippy::cast_precision_loss, reason = "it is a round number")]
        let oldest = OLDEST as f64;
        let ages = self.kinds.iter_mut().filter_map(|kind| kind.oldest_seconds.as_mut());
        ages.for_each(|age| *age = age.clamp(0.0, oldest));
        self.shut.truncate(LONGEST_LIST);
        self.not_ready.truncate(LONGEST_LIST);
        self.notes.truncate(LONGEST_LIST);
        self.kinds.truncate(LONGEST_LIST);
        self.receivers.truncate(LONGEST_LIST);
        let own = [&mut self.process, &mut self.client, &mut self.worker, &mut self.version];
        let shut = self.shut.iter_mut().flat_map(|shut| [&mut shut.reason, &mut shut.why]);
        let kinds = self.kinds.iter_mut().map(|kind| &mut kind.kind);
        let receivers = self.receivers.iter_mut().flat_map(|each| [&mut each.receiver, &mut each.why]);
        own.into_iter().chain(shut).chain(kinds).chain(receivers).for_each(truncate);
        let optional = self.shut.iter_mut().filter_map(|shut| shut.kind.as_mut());
        optional.chain(&mut self.failing).chain(&mut self.not_ready).chain(&mut self.notes).for_each(truncate);
    }
}

/// Converts to milliseconds.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn truncate(text: &mut String) {
    if let Some((end, _)) = text.char_indices().nth(LONGEST_TEXT) {
        text.truncate(end);
    }
}
