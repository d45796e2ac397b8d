//! The messages that follow from an attempt: event, reply, webhook jobs, dead letter, the job's next round. Pure;
//! [`super::settlement`] publishes them.

use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use crate::webhook::{Receiver, delivery_jobs};
use genfleet_job::job_headers::{self, JobHeaders};
use genfleet_job::{
    JobId, Kind,
    event::{self, Ending},
    hash,
    message::{HeaderValue, Headers, Lane, MAX_HEADER_BYTES, Message, header_bytes},
    trace_context::TraceContext,
};
use genfleet_queue::{Destination, Publication, topology};

/// Longest `genfleet-error`, in bytes.
const MAX_ERROR_BYTES: usize = 2048;
/// The longest delay of the delay queues; a longer one is continued by `genfleet-not-before`.
const LONGEST_DELAY: Duration = Duration::from_secs(topology::LONGEST_DELAY as u64);
/// The length of a UUID in text.
const UUID_LENGTH: usize = 36;

/// Reason for which a message becomes a dead letter.
#[derive(Debug)]
pub(crate) struct DeadReason {
    /// Code of the event, and `genfleet-reason`.
    pub(crate) reason: &'static str,
    /// Code of the last error, where `reason` is `attempts_exhausted`.
    pub(crate) cause: Option<&'static str>,
    /// Message of the error, and `genfleet-error`.
    pub(crate) error: String,
}

/// Builds the publications for the end of the job in `message`: the event, the same as a reply, a webhook job for each of
/// the `receivers`, and, for a failed job, the original bytes as a dead letter. All but the last continue the trace at
/// `place`.
pub(crate) fn ended_publications(
    message: &Message,
    ending: &Ending,
    dead: Option<&DeadReason>,
    receivers: &[Receiver],
    place: Option<&TraceContext>,
) -> Vec<Publication> {
    let event = ending.event(place);
    let mut event_message = Message {
        body: event.body.clone(),
        message_id: Some(event.id.to_string()),
        correlation_id: message.correlation_id.clone(),
        timestamp: u64::try_from(ending.time.as_second()).ok(),
        content_type: Some(event::CONTENT_TYPE.to_owned()),
        headers: place.map(TraceContext::headers).unwrap_or_default(),
        reply_to: None,
    };
    limit_headers(&mut event_message.headers);
    if event_message.correlation_id.is_none() {
        event_message.correlation_id.clone_from(&message.message_id);
    }
    let to = Destination::Event { kind: ending.kind.to_owned(), outcome: ending.outcome.as_str() };
    let mut publications = vec![Publication { to, message: event_message.clone() }];
    publications.extend(delivery_jobs(&event, receivers, &event_message.headers, ending.time));
    if let Some(queue) = message.reply_to.clone().filter(|queue| !queue.is_empty()) {
        event_message.correlation_id.clone_from(&message.correlation_id);
        publications.push(Publication { to: Destination::Reply { queue }, message: event_message });
    }
    publications.extend(dead.map(|dead| dead_letter(message, ending, dead)));
    publications
}

/// Builds the job's next round: its message with `headers`, into `lane` after the delay `after`. It stays at its
/// producer's place in a trace, so that all attempts are siblings; without one, the first attempt begins a trace.
pub(crate) fn next_round(
    message: &Message,
    headers: &JobHeaders,
    kind: Kind,
    lane: Lane,
    after: Duration,
    now: Timestamp,
    place: Option<&TraceContext>,
) -> Publication {
    let mut headers = headers.clone();
    headers.not_before = (after > LONGEST_DELAY).then(|| now.saturating_add(after).unwrap_or(Timestamp::MAX));
    let mut message = with_id(headers.write(message));
    if TraceContext::read(&message.headers).is_none() {
        message.headers.extend(place.map(TraceContext::headers).unwrap_or_default());
    }
    Publication { to: Destination::Lane { kind, lane, after: after.min(LONGEST_DELAY) }, message }
}

/// Builds the publication that moves a message unchanged into `lane`, after the delay `after`.
pub(crate) fn move_publication(message: &Message, kind: Kind, lane: Lane, after: Duration) -> Publication {
    Publication { to: Destination::Lane { kind, lane, after }, message: with_id(message.clone()) }
}

/// Gives a message without an id the derived id of its job, which it keeps from now on.
fn with_id(mut message: Message) -> Message {
    if message.message_id.is_none() {
        message.message_id = Some(JobId::derive(&message.body, message.timestamp).to_string());
    }
    limit_headers(&mut message.headers);
    message
}

fn dead_letter(message: &Message, ending: &Ending, dead: &DeadReason) -> Publication {
    let mut message = message.clone();
    JobHeaders::clear(&mut message.headers);
    let set: [(&str, HeaderValue); 7] = [
        (job_headers::REASON, dead.reason.into()),
        (job_headers::ERROR, truncate(&dead.error, MAX_ERROR_BYTES).into()),
        (job_headers::ATTEMPTS, ending.attempts.into()),
        (job_headers::FAILED_AT, ending.time.to_string().into()),
        (job_headers::WORKER, ending.worker.into()),
        (job_headers::FINGERPRINT, fingerprint(ending.kind, dead).into()),
        (job_headers::GENERATION, ending.generation.into()),
    ];
    message.headers.extend(set.map(|(name, value)| (name.to_owned(), value)));
    let message = with_id(message);
    Publication { to: Destination::Dead { kind: ending.kind.to_owned() }, message }
}

/// Identifies failures with the same cause: a hash of kind, code, cause and the message without its UUIDs, numbers and
/// quoted parts.
fn fingerprint(kind: &str, dead: &DeadReason) -> String {
    let mut sort = String::new();
    let mut quoted = false;
    let mut rest = dead.error.as_str();
    while let Some(character) = rest.chars().next() {
        let is_uuid = rest.get(..UUID_LENGTH).is_some_and(|text| Uuid::try_parse(text).is_ok());
        rest = &rest[if is_uuid { UUID_LENGTH } else { character.len_utf8() }..];
        let character = if is_uuid { '0' } else { character };
        match character {
            '"' => {
                quoted = !quoted;
                sort.push('"');
            }
            _ if quoted => {}
            '0'..='9' if sort.ends_with('#') => {}
            '0'..='9' => sort.push('#'),
            other => sort.push(other),
        }
    }
    let all = format!("{kind}\n{}\n{}\n{sort}", dead.reason, dead.cause.unwrap_or_default());
    let mut print = hash::sha256(all);
    print.truncate(16);
    print
}

/// Holds the headers to their limit; those that a producer may have made large go first.
fn limit_headers(headers: &mut Headers) {
    for droppable in ["tracestate", "traceparent", job_headers::ERROR] {
        if header_bytes(headers) > MAX_HEADER_BYTES {
            headers.remove(droppable);
        }
    }
}

fn truncate(text: &str, bytes: usize) -> &str {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use genfleet_job::{event::Outcome, message::enqueued::ENQUEUED_MS};

    fn ending(outcome: Outcome) -> Ending {
        Ending {
            kind: "cdn.purge",
            worker: "purger",
            job: JobId::parse("job-1").unwrap(),
            outcome,
            action: None,
            environment: "mypurecloud.com".into(),
            attempts: 8,
            generation: 1,
            producer: None,
            redriven_by: None,
            requests: 9,
            latency_ms: 0,
            queued: None,
            report: None,
            error: None,
            trace_id: None,
            time: Timestamp::UNIX_EPOCH,
            audit: None,
        }
    }

    fn message() -> Message {
        let headers = Headers::from([("genfleet-state".to_owned(), "{}".into())]);
        let reply_to = Some("answers".to_owned());
        Message {
            body: "garbage".into(),
            message_id: Some("m".into()),
            correlation_id: Some("c".into()),
            reply_to,
            headers,
            ..Message::default()
        }
    }

    #[test]
    fn a_failed_job_is_an_event_a_reply_and_a_dead_letter_byte_for_byte() {
        let dead = DeadReason { reason: "attempts_exhausted", cause: Some("api_unavailable"), error: "503".to_owned() };
        let all = ended_publications(&message(), &ending(Outcome::Failed), Some(&dead), &[], None);
        assert_eq!(all[0].to, Destination::Event { kind: "cdn.purge".into(), outcome: "failed" });
        assert_eq!(all[1].to, Destination::Reply { queue: "answers".into() });
        assert_eq!(all[1].message.correlation_id.as_deref(), Some("c"));
        assert_eq!(all[0].message.body, all[1].message.body);
        assert_eq!(all[2].to, Destination::Dead { kind: "cdn.purge".into() });
        assert_eq!(all[2].message.body, message().body);
        assert_eq!(all[2].message.headers["genfleet-reason"], "attempts_exhausted".into());
        assert_eq!(all[2].message.headers["genfleet-attempts"], 8_u32.into());
        assert!(!all[2].message.headers.contains_key("genfleet-state"), "a redrive begins anew");
    }

    fn place() -> TraceContext {
        TraceContext::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", Some("a=b")).unwrap()
    }

    #[test]
    fn an_event_says_where_in_a_trace_it_was_sent_and_a_dead_letter_where_its_producer_was() {
        let mut message = message();
        message.headers.extend([("traceparent".to_owned(), "of the producer".into())]);
        let dead = DeadReason { reason: "rejected", cause: None, error: "no".to_owned() };
        let all = ended_publications(&message, &ending(Outcome::Failed), Some(&dead), &[], Some(&place()));
        let event: serde_json::Value = serde_json::from_slice(&all[0].message.body).unwrap();
        assert_eq!(event["traceparent"], place().traceparent());
        assert_eq!((&all[0].message.headers, &all[1].message.headers), (&place().headers(), &place().headers()));
        assert_eq!(all[2].message.headers["traceparent"], "of the producer".into());
    }

    #[test]
    fn all_attempts_are_in_the_trace_of_their_producer_or_else_of_the_first() {
        let again = |message: &Message, place: Option<&TraceContext>| {
            let (kind, now) = (Kind::CdnPurge, Timestamp::UNIX_EPOCH);
            let publication =
                next_round(message, &JobHeaders::default(), kind, Lane::Resume, Duration::ZERO, now, place);
            TraceContext::read(&publication.message.headers)
        };
        assert_eq!(again(&message(), Some(&place())), Some(place()));
        assert_eq!(again(&message(), None), None);
        let producer = place().traceparent().replace("b7ad", "aaaa");
        let came = Message { headers: [("traceparent".to_owned(), producer.as_str().into())].into(), ..message() };
        assert_eq!(again(&came, Some(&place())).unwrap().traceparent(), producer);
    }

    #[test]
    fn a_successful_job_leaves_no_dead_letter() {
        let all = ended_publications(&message(), &ending(Outcome::Succeeded), None, &[], None);
        assert!(!all.iter().any(|publication| matches!(publication.to, Destination::Dead { .. })));
    }

    #[test]
    fn each_receiver_has_a_job_of_its_own_with_the_bytes_of_the_event_and_the_trace() {
        let receivers = ["https://a.example", "https://b.example"].map(|url| Receiver::parse(url).unwrap());
        let all = ended_publications(&message(), &ending(Outcome::Succeeded), None, &receivers, Some(&place()));
        let deliveries: Vec<_> = all.iter().filter(|one| matches!(one.to, Destination::Lane { .. })).collect();
        assert_eq!(deliveries.len(), 2);
        for (delivery, url) in deliveries.iter().zip(["https://a.example/", "https://b.example/"]) {
            let job: serde_json::Value = serde_json::from_slice(&delivery.message.body).unwrap();
            assert_eq!(job["payload"]["url"], url);
            assert_eq!(job["payload"]["event"].as_str().map(str::as_bytes), Some(&all[0].message.body[..]));
            let enqueued = (ENQUEUED_MS.to_owned(), HeaderValue::Number(0));
            assert_eq!(delivery.message.headers, place().headers().into_iter().chain([enqueued]).collect());
        }
    }

    #[test]
    fn failures_of_the_same_sort_share_a_fingerprint() {
        let print = |error: &str| {
            fingerprint("cdn.purge", &DeadReason { reason: "rejected", cause: None, error: error.to_owned() })
        };
        assert_eq!(print("path \"/a\" refused after 3 ms"), print("path \"/bcd\" refused after 17 ms"));
        let scan = |id: &str| print(&format!("the scan {id} of the file {id} failed"));
        assert_eq!(scan("a1b2c3d4-e5f6-7890-abcd-ef1234567890"), scan("0b9a8c7d-6e5f-4a3b-9c2d-1e0f9a8b7c6d"));
        assert_ne!(print("path refused"), print("path forbidden"));
    }

    #[test]
    fn a_delay_beyond_the_levels_travels_as_not_before() {
        let day = Duration::from_secs(100_000);
        let publication = next_round(
            &message(),
            &JobHeaders::default(),
            Kind::CdnPurge,
            Lane::Jobs,
            day,
            Timestamp::UNIX_EPOCH,
            None,
        );
        assert_eq!(publication.to, Destination::Lane { kind: Kind::CdnPurge, lane: Lane::Jobs, after: LONGEST_DELAY });
        assert_eq!(publication.message.headers["genfleet-not-before"], "1970-01-02T03:46:40Z".into());
    }

    #[test]
    fn a_message_without_an_id_keeps_the_one_its_job_goes_by() {
        let message = Message { body: "{}".into(), timestamp: Some(7), ..Message::default() };
        let id = JobId::derive(b"{}", Some(7)).to_string();
        let kind = Kind::CdnPurge;
        let again =
            next_round(&message, &JobHeaders::default(), kind, Lane::Jobs, Duration::ZERO, Timestamp::UNIX_EPOCH, None);
        assert_eq!(again.message.message_id.as_deref(), Some(id.as_str()));
        assert_eq!(
            move_publication(&message, kind, Lane::Suspect, Duration::ZERO).message.message_id.as_deref(),
            Some(id.as_str())
        );
        let dead = DeadReason { reason: "rejected", cause: None, error: "no".to_owned() };
        let dead = ended_publications(&message, &ending(Outcome::Failed), Some(&dead), &[], None).pop().unwrap();
        assert_eq!(dead.message.message_id.as_deref(), Some(id.as_str()));
    }

    #[test]
    fn headers_are_held_to_their_limit() {
        let mut message = message();
        message.headers.insert("tracestate".into(), "x".repeat(100_000).into());
        let publication = next_round(
            &message,
            &JobHeaders::default(),
            Kind::CdnPurge,
            Lane::Resume,
            Duration::ZERO,
            Timestamp::UNIX_EPOCH,
            None,
        );
        assert!(header_bytes(&publication.message.headers) <= MAX_HEADER_BYTES);
    }

    #[test]
    fn a_long_error_is_cut_at_a_character() {
        assert_eq!(truncate("aä", 2), "a");
    }
}
