//! Replies to messages that producers sent for a kind that does not exist: an event, which also goes to `reply_to`. The
//! message itself stays in its queue; what is settled here is a copy.

use std::sync::Arc;

use jiff::Timestamp;
use tracing::warn;

use super::{
    audit_outcome::{readable_payload_sha256, record_outcome},
    context::ProcessContext,
    large_body::{offload, reserve_memory},
    publications::{DeadReason, ended_publications},
    settlement::warn_not_settled,
};
use crate::webhook::Webhooks;
use genfleet_audit::Audit;
use genfleet_job::{
    JobId, Kind, Rejection, UNKNOWN_KIND, decode,
    error::JobError,
    event::{Ending, Outcome, error_object},
    job_headers::PRODUCER,
    message::{Message, enqueued::QueueWait},
    metric,
};
use genfleet_queue::{Publication, QueueError, UnknownKindMessage, UnknownKinds};

const CODE: &str = "unknown_kind";
/// `action` of their outcomes in the audit.
const AUDIT_ACTION: &str = "job_unreadable";

/// Replies to each message, until the process drains. The queue bounds how many are replied to at once.
pub(crate) async fn reply_to_all(process: ProcessContext, mut messages: UnknownKinds) {
    let process = Arc::new(process);
    while let Some(message) = process.drain.run_until_cancelled(messages.next()).await {
        process.work.spawn(reply(Arc::clone(&process), message));
    }
}

async fn reply(process: Arc<ProcessContext>, UnknownKindMessage { key, message, settler }: UnknownKindMessage) {
    let _memory = reserve_memory(message.body.len()).await;
    if settler.is_stale() {
        return;
    }
    if let Some(kind) = producers_kind(&key) {
        warn!(%kind, "a job matched no queue although its kind exists: a binding is missing, see genfleet doctor");
        return log_failure(settler.settle(Vec::new()).await.map(drop));
    }
    let (body, id, timestamp) = (message.body.clone(), message.message_id.clone(), message.timestamp);
    let read = move || {
        let id = decode::extract_id(&body, id.as_deref(), timestamp);
        (id, decode::extract_webhook(&body), readable_payload_sha256(&body))
    };
    let (id, own, payload) = offload(message.body.len(), read).await;
    let error = JobError::permanent(CODE, explanation(&key));
    let mut ending = ending(&process.genesys.addresses().environment, id, &error, process.clock.now());
    ending.producer = message.headers.get(PRODUCER).and_then(|user| user.as_str()).map(str::to_owned);
    ending.audit = record_outcome(&process.audit, AUDIT_ACTION, &ending, payload);
    let durable = async {
        match &ending.audit {
            Some(stamp) => process.audit.wait_until_durable(stamp.seq).await,
            None => process.audit.wait_until_writable().await,
        }
    };
    if !matches!(process.give_up.run_until_cancelled(durable).await, Some(Ok(()))) {
        return settler.give_back().await;
    }
    warn!(id = %ending.job, outcome = "failed", code = CODE, "a job of an unknown kind is kept, and its producer is informed");
    let receivers = process.webhooks.receivers(ending.kind, own.as_deref());
    let publications = ended_publications(&message, &ending, None, &receivers, None);
    log_failure(match settler.settle(publications).await {
        // The message stays in its queue; only the reply is not sent.
        Err(QueueError::TooLarge { size, settler: Some(settler) }) => {
            warn!("a job of an unknown kind is not answered: {size}");
            settler.settle(Vec::new()).await.map(drop)
        }
        // No job ended: the message still waits in its queue and is counted there.
        result => result.map(|_| metrics::counter!(metric::EVENTS_PUBLISHED).increment(1)),
    });
}

/// Records the end of a message that is no job of any kind, and builds what is published for it: its event and a dead
/// letter. For jobs that do not come through a broker.
pub fn reject_unknown_job(
    audit: &Audit,
    webhooks: &Webhooks,
    environment: &str,
    message: &Message,
    rejection: Rejection,
    now: Timestamp,
) -> Vec<Publication> {
    let Rejection { id, code, message: text, violations } = rejection;
    let error = JobError { violations, ..JobError::permanent(code, text) };
    let mut ending = ending(environment, id, &error, now);
    // Validation that fails counts as one attempt.
    ending.attempts = 1;
    ending.queued = Some(QueueWait { ms: 0, is_rough: false });
    ending.audit = record_outcome(audit, AUDIT_ACTION, &ending, readable_payload_sha256(&message.body));
    let own = decode::extract_webhook(&message.body);
    let receivers = webhooks.receivers(ending.kind, own.as_deref());
    let dead = DeadReason { reason: code, cause: None, error: error.message };
    ended_publications(message, &ending, Some(&dead), &receivers, None)
}

fn ending(environment: &str, job: JobId, error: &JobError, time: Timestamp) -> Ending {
    Ending {
        kind: UNKNOWN_KIND,
        worker: "genfleet",
        job,
        outcome: Outcome::Failed,
        action: None,
        environment: environment.to_owned(),
        attempts: 0,
        generation: 0,
        producer: None,
        redriven_by: None,
        requests: 0,
        latency_ms: 0,
        queued: None,
        report: None,
        error: Some(error_object(error, error.code, None)),
        trace_id: None,
        time,
        audit: None,
    }
}

/// Parses `key` as a kind that producers may use.
fn producers_kind(key: &str) -> Option<Kind> {
    key.parse().ok().filter(|kind: &Kind| !kind.is_internal())
}

/// Explains what is wrong with the routing key, and what to do.
fn explanation(key: &str) -> String {
    let given: String = key.chars().take(64).collect();
    let meant = Kind::suggest(key).map_or(".".to_owned(), |kind| format!(", did you mean {kind}?"));
    let kinds = Kind::of_producers().map(Kind::as_str).collect::<Vec<_>>().join(", ");
    format!(
        "no job has the routing key {given:?}{meant} The kinds are {kinds}: publish it again with one of them. \
         The message was not run; it is kept in the queue of what matches nothing"
    )
}

fn log_failure(result: Result<(), QueueError>) {
    if let Err(error) = result {
        warn_not_settled(&error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_producer_is_told_what_it_meant_and_what_there_is() {
        let kinds = "cdn.purge, stream.configure, channel.provision, vni.provision, file.scan";
        for (key, begins) in [
            ("cdn.prune", "no job has the routing key \"cdn.prune\", did you mean cdn.purge? The kinds are "),
            ("order\u{1b}created", "no job has the routing key \"order\\u{1b}created\". The kinds are "),
        ] {
            let text = explanation(key);
            assert!(text.starts_with(begins) && text.contains(kinds), "{text}");
            assert!(!text.contains("webhook.deliver"), "{text}");
        }
    }

    #[test]
    fn only_what_producers_may_ask_for_is_a_kind_of_theirs() {
        assert_eq!(producers_kind("cdn.purge"), Some(Kind::CdnPurge));
        for other in ["webhook.deliver", "cdn.purge.resume", "CDN.PURGE", ""] {
            assert_eq!(producers_kind(other), None, "{other}");
        }
    }
}
