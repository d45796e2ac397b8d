//! Answers what producers sent for a kind that does not exist: with an event, which also goes to `reply_to`. The message
//! itself stays where it is kept; what is settled here is a copy.

use std::sync::Arc;

use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::warn;

use super::{
    aside::{aside, room},
    audited::{outcome_unrun, readable_payload},
    process::not_settled,
    report,
};
use crate::webhook::Webhooks;
use genfleet_audit::Audit;
use genfleet_job::{
    Kind, UNKNOWN_KIND,
    clock::SharedClock,
    decode,
    error::JobError,
    event::{Ending, Outcome, error_object},
    job_headers::PRODUCER,
    message::Message,
    metric, suggestion,
};
use genfleet_queue::{QueueError, UnknownKindMessage, UnknownKinds};

const CODE: &str = "unknown_kind";

/// What an answer needs.
#[derive(Debug)]
pub struct Answers {
    /// Where it is written down first.
    pub audit: Audit,
    /// Who is told beside the queue.
    pub webhooks: Webhooks,
    /// The region, or the API's host.
    pub environment: String,
    /// What time it is.
    pub clock: SharedClock,
    /// The process takes no more.
    pub drain: CancellationToken,
    /// The process waits no longer.
    pub give_up: CancellationToken,
    /// What the process waits for before it ends.
    pub work: TaskTracker,
}

impl Answers {
    /// Answers each, until the process drains. How many at once is bounded by the queue.
    pub async fn run(self: Arc<Self>, mut unanswered: UnknownKinds) {
        while let Some(unrouted) = self.drain.run_until_cancelled(unanswered.next()).await {
            self.work.spawn(Arc::clone(&self).answer(unrouted));
        }
    }

    async fn answer(self: Arc<Self>, UnknownKindMessage { key, message, settler }: UnknownKindMessage) {
        let _room = room(message.body.len()).await;
        if settler.is_stale() {
            return;
        }
        if let Some(kind) = producers_kind(&key) {
            warn!(%kind, "a job matched no queue although its kind exists: a binding is missing, see genfleet doctor");
            return settled(settler.settle(Vec::new()).await.map(drop));
        }
        let (mut ending, own, payload) = self.ending(&key, &message).await;
        ending.audit = outcome_unrun(&self.audit, "job_unreadable", &ending, payload);
        let durable = async {
            match &ending.audit {
                Some(stamp) => self.audit.durable(stamp.seq).await,
                None => self.audit.wait_until_writable().await,
            }
        };
        if !matches!(self.give_up.run_until_cancelled(durable).await, Some(Ok(()))) {
            return settler.give_back().await;
        }
        warn!(id = %ending.job, outcome = "failed", code = CODE, "a job of an unknown kind is kept, and its producer told");
        let receivers = self.webhooks.receivers(ending.kind, own.as_deref());
        let publications = report::ended(&message, &ending, None, &receivers, None);
        settled(match settler.settle(publications).await {
            // It stays where it is kept; only the answer is not given.
            Err(QueueError::TooLarge { size, settler: Some(settler) }) => {
                warn!("a job of an unknown kind is not answered: {size}");
                settler.settle(Vec::new()).await.map(drop)
            }
            result => result.map(|_| count()),
        });
    }

    /// What is told, the URL that the body names for it, and the hash of its payload.
    async fn ending(&self, key: &str, message: &Message) -> (Ending, Option<String>, Option<String>) {
        let (body, id, timestamp) = (message.body.clone(), message.message_id.clone(), message.timestamp);
        let read = move || {
            let id = decode::extract_id(&body, id.as_deref(), timestamp);
            (id, decode::extract_webhook(&body), readable_payload(&body))
        };
        let (job, own, payload) = aside(message.body.len(), read).await;
        let error = JobError::permanent(CODE, told(key));
        let ending = Ending {
            kind: UNKNOWN_KIND,
            worker: "genfleet",
            job,
            outcome: Outcome::Failed,
            action: None,
            environment: self.environment.clone(),
            attempts: 0,
            generation: 0,
            producer: message.headers.get(PRODUCER).and_then(|user| user.as_str()).map(str::to_owned),
            redriven_by: None,
            requests: 0,
            latency_ms: 0,
            queued: None,
            report: None,
            error: Some(error_object(&error, CODE, None)),
            trace_id: None,
            time: self.clock.now(),
            audit: None,
        };
        (ending, own, payload)
    }
}

/// The kind that `key` is, where producers may ask for it.
fn producers_kind(key: &str) -> Option<Kind> {
    key.parse().ok().filter(|kind: &Kind| !kind.is_internal())
}

/// What is wrong with the routing key, and what to do.
fn told(key: &str) -> String {
    let given: String = key.chars().take(64).collect();
    let meant = suggestion::suggest_kind(key).map_or(".".to_owned(), |kind| format!(", did you mean {kind}?"));
    let kinds = Kind::of_producers().map(Kind::as_str).collect::<Vec<_>>().join(", ");
    format!(
        "no job has the routing key {given:?}{meant} The kinds are {kinds}: publish it again with one of them. \
         The message was not run; it is kept in the queue of what matches nothing"
    )
}

fn settled(result: Result<(), QueueError>) {
    if let Err(error) = result {
        not_settled(&error);
    }
}

/// No job ended: the message still waits where it is kept, and is counted there.
fn count() {
    metrics::counter!(metric::EVENTS_PUBLISHED).increment(1);
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
            let told = told(key);
            assert!(told.starts_with(begins) && told.contains(kinds), "{told}");
            assert!(!told.contains("webhook.deliver"), "{told}");
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
