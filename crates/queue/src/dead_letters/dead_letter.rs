//! The content of a dead letter: its job, the reason of the failure, and the publication of its redrive (SPEC 5.3,
//! 6.1).

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;

use super::stored::{DeadLetterQueue, StoredMessage};
use crate::{
    message::{Destination, Publication},
    topology,
};
use genfleet_job::{
    JobId, Kind, decode, hash, job_headers,
    message::{HeaderValue, Headers, Lane, Message, enqueued::ENQUEUED_MS},
    text,
};

/// The reason of a message that matched no queue.
const UNROUTED: &str = "unrouted";
/// The reason of a message in the dead-letter queue of a kind that it never had.
pub const FOREIGN: &str = "foreign";
/// The reason of a dead letter without a reason.
const UNKNOWN: &str = "unknown";
/// The reasons that no worker and no broker gives.
pub const OWN_REASONS: [&str; 3] = [UNROUTED, FOREIGN, UNKNOWN];
/// The headers that a redrive keeps, besides the generation.
const KEPT: [&str; 4] = ["traceparent", "tracestate", ENQUEUED_MS, job_headers::PRODUCER];

/// A dead letter and what is known of it.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    /// The message as it is stored.
    pub stored: StoredMessage,
    /// The job's id, as a worker would read it.
    pub id: JobId,
    /// The job's kind, or that of the queue for a foreign message. Without a kind it cannot be redriven.
    pub kind: Option<Kind>,
    /// `genfleet-reason`; `broker:<reason>` if the broker dead-lettered it; `unrouted` if it matched no queue;
    /// `foreign` if it never was a job of its queue's kind.
    pub reason: String,
    /// The error message.
    pub error: String,
    /// Number of attempts that counted.
    pub attempts: Option<i64>,
    /// Number of redrives.
    pub generation: u32,
    /// Time of the failure; of an unrouted message, the time at which it was sent, if its producer gives one.
    pub failed_at: Option<Timestamp>,
    /// The worker that dead-lettered it.
    pub worker: Option<String>,
    /// A hash that is equal for failures with the same cause.
    pub fingerprint: String,
}

impl DeadLetter {
    /// Reads a stored message. Headers that a producer may have set are ignored.
    pub fn read(stored: StoredMessage) -> Self {
        let (kind, reason, error) = (kind(&stored), reason(&stored), error(&stored));
        let written = |name: &str| header(&stored, name);
        let text = |name: &str| written(name).and_then(HeaderValue::as_str).map(str::to_owned);
        let number = |name: &str| written(name).and_then(HeaderValue::as_i64);
        let of_sort = || sort(stored.queue, &reason, &error);
        let message = &stored.message;
        Self {
            id: decode::extract_id(&message.body, message.message_id.as_deref(), message.timestamp),
            attempts: number(job_headers::ATTEMPTS),
            generation: number(job_headers::GENERATION).and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
            failed_at: text(job_headers::FAILED_AT)
                .and_then(|time| time.parse().ok())
                .or(stored.stored_at)
                .or_else(|| sent_at(&stored)),
            worker: text(job_headers::WORKER),
            fingerprint: text(job_headers::FINGERPRINT)
                .filter(|_| is_given_up_by_worker(&stored))
                .unwrap_or_else(of_sort),
            kind,
            reason,
            error,
            stored,
        }
    }

    /// The name of its kind, or of its queue if the kind is unknown.
    pub fn kind_name(&self) -> &'static str {
        self.kind.map_or(self.stored.queue.as_str(), Kind::as_str)
    }

    /// Returns the message that a redrive by `operator` publishes as a job of `kind`: the same bytes, in the next
    /// generation. If this dead letter has no kind, the body's member `kind`, which names none, becomes `kind`.
    pub fn redrive(&self, kind: Kind, operator: &str) -> Publication {
        let mut message = Message { headers: Headers::new(), ..self.stored.message.clone() };
        if let Some(body) = with_kind(&message.body, kind).filter(|_| self.kind.is_none()) {
            // Another body would have another derived id.
            (message.body, message.message_id) = (body.into(), Some(self.id.to_string()));
        }
        let kept = KEPT.iter().filter_map(|name| self.stored.message.headers.get_key_value(*name));
        message.headers.extend(kept.map(|(name, value)| (name.clone(), value.clone())));
        message.headers.insert(job_headers::REDRIVEN_BY.to_owned(), operator.into());
        message.headers.insert(job_headers::GENERATION.to_owned(), self.next_generation().into());
        if message.message_id.is_none() {
            message.message_id = Some(JobId::derive(&message.body, message.timestamp).to_string());
        }
        Publication { to: Destination::Lane { kind, lane: Lane::Jobs, after: Duration::ZERO }, message }
    }

    /// The generation after a redrive.
    pub fn next_generation(&self) -> u32 {
        self.generation.saturating_add(1)
    }
}

/// Returns the time at which an unrouted message was sent, from its properties. The time of its arrival is not
/// recorded.
fn sent_at(stored: &StoredMessage) -> Option<Timestamp> {
    let sent = stored.message.timestamp.filter(|_| stored.queue == DeadLetterQueue::Unrouted)?;
    Timestamp::from_second(sent.try_into().ok()?).ok()
}

/// Returns a `genfleet-*` header, if only a worker can have set it.
fn header<'a>(stored: &'a StoredMessage, name: &str) -> Option<&'a HeaderValue> {
    stored.message.headers.get(name).filter(|_| stored.is_ours)
}

/// Returns true if a worker dead-lettered it with a reason. A job that the broker dead-letters may have an older
/// reason.
fn is_given_up_by_worker(stored: &StoredMessage) -> bool {
    stored.death.is_none() && header(stored, job_headers::REASON).is_some()
}

fn reason(stored: &StoredMessage) -> String {
    if stored.is_foreign {
        return FOREIGN.to_owned();
    }
    if let Some(death) = &stored.death {
        return format!("broker:{}", death.reason);
    }
    let written = header(stored, job_headers::REASON).and_then(HeaderValue::as_str);
    let otherwise = if stored.queue == DeadLetterQueue::Unrouted { UNROUTED } else { UNKNOWN };
    written.unwrap_or(otherwise).to_owned()
}

fn error(stored: &StoredMessage) -> String {
    if stored.is_foreign {
        let from = stored.death.as_ref().map_or("another exchange", |death| &death.queue);
        return format!(
            "it came here from {from} with key {:?} and never was a job of this kind: a producer's CC or BCC can do \
             that. It is not redriven; dead discard takes it away",
            stored.routing_key
        );
    }
    if let Some(death) = &stored.death {
        return format!("the broker gave it up in {}: {}", death.queue, death.reason);
    }
    let written = header(stored, job_headers::ERROR).and_then(HeaderValue::as_str);
    match written {
        Some(error) => error.to_owned(),
        None if stored.queue == DeadLetterQueue::Unrouted => {
            format!("no queue is bound for key {:?} of exchange {}", stored.routing_key, stored.exchange)
        }
        None => String::new(),
    }
}

/// Computes the fingerprint of a dead letter without one.
fn sort(queue: DeadLetterQueue, reason: &str, error: &str) -> String {
    let mut print = hash::sha256(format!("{queue}\n{reason}\n{error}"));
    print.truncate(16);
    print
}

/// Returns the kind of the queue, else of the routing key, else of the body. Only workers may publish webhook
/// deliveries.
fn kind(stored: &StoredMessage) -> Option<Kind> {
    let named = match stored.queue {
        DeadLetterQueue::Dead(kind) => return Some(kind),
        DeadLetterQueue::Unknown | DeadLetterQueue::Unrouted => {
            topology::kind_of_key(&stored.routing_key).or_else(|| kind_in_body(&stored.message.body)?.parse().ok())
        }
    };
    named.filter(|kind| *kind != Kind::WebhookDeliver || stored.is_ours)
}

/// Returns the value of the body's member `kind`, if it is a string without escapes.
fn kind_in_body(body: &[u8]) -> Option<&str> {
    #[derive(Deserialize)]
    struct Named<'a> {
        kind: &'a str,
    }
    serde_json::from_slice::<Named<'_>>(text::strip_mark(body).ok()?).ok().map(|named| named.kind)
}

/// Returns the body with `kind` in its member `kind`, and all other bytes as they are. `None` if it has no such member.
fn with_kind(body: &[u8], kind: Kind) -> Option<Vec<u8>> {
    let named = kind_in_body(body)?;
    let start = named.as_ptr().addr() - body.as_ptr().addr();
    Some([&body[..start], kind.as_str().as_bytes(), &body[start + named.len()..]].concat())
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;
    use crate::dead_letters::Death;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn stored(queue: DeadLetterQueue, headers: &[(&str, HeaderValue)]) -> StoredMessage {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        StoredMessage::for_test(queue, Message { body: "{}".into(), headers, ..Message::default() })
    }

    fn dead() -> StoredMessage {
        let headers = [
            ("genfleet-reason", "rejected".into()),
            ("genfleet-error", "the API answered 400".into()),
            ("genfleet-attempts", 3_i64.into()),
            ("genfleet-failed-at", "2026-11-20T10:00:00Z".into()),
            ("genfleet-worker", "purger".into()),
            ("genfleet-fingerprint", "00112233aabbccdd".into()),
            ("genfleet-generation", 1_i64.into()),
            ("genfleet-requests", 7_i64.into()),
            ("genfleet-started-at", "2026-11-20T09:00:00Z".into()),
            ("genfleet-state", "{}".into()),
            ("traceparent", PARENT.into()),
        ];
        stored(DeadLetterQueue::Dead(Kind::CdnPurge), &headers)
    }

    #[test]
    fn a_dead_letter_says_what_its_worker_wrote() {
        let letter = DeadLetter::read(dead());
        assert_eq!((letter.kind, letter.reason.as_str()), (Some(Kind::CdnPurge), "rejected"));
        assert_eq!((letter.error.as_str(), letter.attempts), ("the API answered 400", Some(3)));
        assert_eq!((letter.generation, letter.worker.as_deref()), (1, Some("purger")));
        assert_eq!(letter.failed_at.unwrap().to_string(), "2026-11-20T10:00:00Z");
        assert_eq!(letter.fingerprint, "00112233aabbccdd");
    }

    #[test]
    fn what_matched_no_queue_has_the_time_at_which_its_producer_sent_it() {
        let of = |queue, timestamp| {
            let mut stored = stored(queue, &[]);
            stored.message.timestamp = timestamp;
            DeadLetter::read(stored).failed_at.map(|time| time.to_string())
        };
        assert_eq!(of(DeadLetterQueue::Unrouted, Some(1_800_000_000)).as_deref(), Some("2027-01-15T08:00:00Z"));
        assert_eq!(of(DeadLetterQueue::Unrouted, Some(u64::MAX)), None);
        assert_eq!(of(DeadLetterQueue::Unrouted, None), None);
        assert_eq!(of(DeadLetterQueue::Dead(Kind::CdnPurge), Some(1_800_000_000)), None);
    }

    #[test]
    fn a_redrive_is_the_same_bytes_as_a_new_job_one_generation_on() {
        let mut stored = dead();
        stored.message = Message {
            body: "\0 not even JSON".into(),
            message_id: Some("m".into()),
            correlation_id: Some("c".into()),
            reply_to: Some("r".into()),
            timestamp: Some(7),
            content_type: Some("application/json".into()),
            ..stored.message
        };
        let publication = DeadLetter::read(stored.clone()).redrive(Kind::CdnPurge, "ann@ops");
        let to = Destination::Lane { kind: Kind::CdnPurge, lane: Lane::Jobs, after: Duration::ZERO };
        let headers = Headers::from([
            ("genfleet-generation".into(), 2_u32.into()),
            ("genfleet-redriven-by".into(), "ann@ops".into()),
            ("traceparent".into(), PARENT.into()),
        ]);
        assert_eq!(publication, Publication { to, message: Message { headers, ..stored.message } });
    }

    #[test]
    fn a_body_that_names_no_kind_names_the_one_as_which_it_is_redriven() {
        let redriven = |key: &str, body: &'static str| {
            let mut stored = stored(DeadLetterQueue::Unrouted, &[]);
            stored.message.body = body.into();
            let letter = DeadLetter::read(StoredMessage { routing_key: key.to_owned(), is_ours: false, ..stored });
            let message = letter.redrive(Kind::CdnPurge, "ann@ops").message;
            assert_eq!(message.message_id.as_deref(), Some(letter.id.as_str()), "it keeps the id it goes by");
            String::from_utf8(message.body.to_vec()).unwrap()
        };
        let body = "\u{feff}{\"id\":\"a\", \"payload\":{\"kind\":\"b\", \"n\":1.0e2},\n \"kind\" : \"cdn.prune\"}";
        assert_eq!(redriven("cdn.prune", body), body.replace("cdn.prune", "cdn.purge"));
        let other = r#"{"kind": "file.scan"}"#;
        assert_eq!(redriven("cdn.purge", other), other, "its key names the kind: this is the producer's mistake");
        for kept in ["{}", "{", "[1]", r#"{"kind":7}"#, r#"{"kind":"a","kind":"b"}"#] {
            assert_eq!(redriven("cdn.prune", kept), kept);
        }
    }

    #[test]
    fn a_job_without_an_id_keeps_the_one_it_goes_by() {
        let letter = DeadLetter::read(dead());
        assert_eq!(letter.redrive(Kind::CdnPurge, "ann@ops").message.message_id.as_deref(), Some(letter.id.as_str()));
    }

    #[test]
    fn what_the_broker_gave_up_says_so_whatever_its_headers_say() {
        let death = Death { reason: "delivery_limit".into(), queue: "g.jobs.cdn.purge".into(), time: None };
        let letter = DeadLetter::read(StoredMessage { death: Some(death.clone()), is_ours: false, ..dead() });
        assert_eq!(letter.reason, "broker:delivery_limit");
        assert_eq!(letter.error, "the broker gave it up in g.jobs.cdn.purge: delivery_limit");
        assert_eq!((letter.generation, letter.attempts), (0, None), "a producer may have set them");
        assert_ne!(letter.fingerprint, "00112233aabbccdd");
        let ours = DeadLetter::read(StoredMessage { death: Some(death), ..dead() });
        assert_eq!(ours.generation, 1, "a redriven job that the broker gave up");
        assert_eq!(ours.fingerprint, letter.fingerprint, "failures of one sort");
    }

    #[test]
    fn what_matched_no_queue_has_the_kind_of_its_key_or_of_its_body() {
        let unrouted = |key: &str, body: &'static str| {
            let mut stored = stored(DeadLetterQueue::Unrouted, &[]);
            stored.message.body = body.into();
            DeadLetter::read(StoredMessage {
                routing_key: key.to_owned(),
                exchange: "g.jobs".into(),
                is_ours: false,
                ..stored
            })
        };
        assert_eq!(unrouted("cdn.purge", "").kind, Some(Kind::CdnPurge));
        assert_eq!(unrouted("0.1.0.file.scan.resume", "").kind, Some(Kind::FileScan));
        assert_eq!(unrouted("cdn.prune", r#"{"kind":"vni.provision"}"#).kind, Some(Kind::VniProvision));
        assert_eq!(unrouted("cdn.prune", "{").kind, None);
        assert_eq!(unrouted("cdn.purge.more", "").kind, None);
        assert_eq!(unrouted("webhook.deliver", "").kind, None, "a producer cannot ask for a webhook");
        let letter = unrouted("cdn.prune", "");
        assert_eq!((letter.reason.as_str(), letter.kind_name()), ("unrouted", "unrouted"));
        assert_eq!(letter.error, "no queue is bound for key \"cdn.prune\" of exchange g.jobs");
    }

    #[test]
    fn what_is_foreign_is_told_as_that_whatever_it_says() {
        let death = Death { reason: "expired".into(), queue: "g.jobs.cdn.purge".into(), time: None };
        let stored = stored(DeadLetterQueue::Dead(Kind::WebhookDeliver), &[("genfleet-reason", "rejected".into())]);
        let letter = DeadLetter::read(StoredMessage {
            is_foreign: true,
            is_ours: false,
            death: Some(death),
            routing_key: "cdn.purge".into(),
            ..stored
        });
        assert_eq!((letter.reason.as_str(), letter.kind_name()), ("foreign", "webhook.deliver"));
        assert!(letter.error.contains("g.jobs.cdn.purge") && letter.error.contains("discard"), "{}", letter.error);
    }

    #[test]
    fn what_says_nothing_is_unknown() {
        let letter = DeadLetter::read(StoredMessage { headers: Map::new(), ..stored(DeadLetterQueue::Unknown, &[]) });
        assert_eq!((letter.kind, letter.reason.as_str(), letter.kind_name()), (None, "unknown", "unknown"));
    }
}
