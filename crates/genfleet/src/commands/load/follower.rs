//! Reads the events of a run from either queue. On RabbitMQ it uses a queue of its own, which is bound before the first
//! job is published; after a lost connection it also reads the inspection queue of past events.
#![expect(clippy::doc_markdown, reason = "RabbitMQ is a name")]

use std::time::Duration;

use genfleet_core::{
    queue::{EventFollower, QueueError, QueueInspector, rabbit::FollowedEvent},
    worker::QueueOptions,
};
use serde::Deserialize;
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep},
};
use uuid::Uuid;

use super::{
    ledger::{Ended, is_of},
    publisher::LoadEvent,
};

/// Time between two attempts to read past events.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Starts the task that sends every event of `run` from now on to `sender`.
pub(super) async fn start(
    options: &QueueOptions,
    run: &str,
    sender: mpsc::Sender<LoadEvent>,
) -> anyhow::Result<JoinHandle<()>> {
    let inspector = options.inspect("genfleet load")?;
    let follower = inspector.follow_events(0).await?;
    let forwarder = Forwarder { run: run.to_owned(), sender };
    Ok(tokio::spawn(forwarder.follow(inspector, follower)))
}

/// Passes the events of a run on. Its methods return `None` when nothing receives them any more.
struct Forwarder {
    run: String,
    sender: mpsc::Sender<LoadEvent>,
}

impl Forwarder {
    async fn follow(self, inspector: QueueInspector, mut follower: EventFollower) {
        loop {
            let sent = match follower.next().await {
                Ok(FollowedEvent::Event(event)) => self.event(&event).await,
                Ok(FollowedEvent::Lost(reason)) => {
                    self.warn(format!("{reason}; going on once the broker is back")).await
                }
                Ok(FollowedEvent::Back) => self.read_past_events(&inspector).await,
                Err(error) => return self.fault(error).await,
            };
            if sent.is_none() {
                return;
            }
        }
    }

    /// Reads the events that were published while the connection was lost, and earlier ones.
    async fn read_past_events(&self, inspector: &QueueInspector) -> Option<()> {
        loop {
            let mut found = Vec::new();
            match inspector.each_event(|event| found.extend(read(&event, &self.run))).await {
                Ok(()) => {
                    for ended in found {
                        self.sender.send(LoadEvent::Found(ended, Instant::now())).await.ok()?;
                    }
                    return Some(());
                }
                Err(error) => self.warn(format!("past events cannot be read: {error}")).await?,
            }
            sleep(RETRY_INTERVAL).await;
        }
    }

    async fn event(&self, body: &[u8]) -> Option<()> {
        let Some(ended) = read(body, &self.run) else { return Some(()) };
        self.sender.send(LoadEvent::Ended(ended, Instant::now())).await.ok()
    }

    async fn warn(&self, message: String) -> Option<()> {
        self.sender.send(LoadEvent::Warning(message)).await.ok()
    }

    async fn fault(&self, error: QueueError) {
        let _ = self.sender.send(LoadEvent::Fault(error.into())).await;
    }
}

#[derive(Deserialize)]
struct Event {
    id: Uuid,
    subject: String,
    data: Data,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    outcome: String,
    #[serde(default)]
    requests: u64,
    latency_ms: Option<u64>,
    queued_ms: Option<u64>,
    #[serde(default)]
    queued_rough: bool,
    error: Option<Failure>,
}

#[derive(Deserialize)]
struct Failure {
    code: String,
    cause: Option<String>,
}

/// Parses an event; `None` if it belongs to another run.
fn read(body: &[u8], run: &str) -> Option<Ended> {
    let event: Event = serde_json::from_slice(body).ok()?;
    if !is_of(run, &event.subject) {
        return None;
    }
    let milliseconds = |long: Option<u64>| long.map(|long| u32::try_from(long).unwrap_or(u32::MAX));
    let Data { outcome, requests, latency_ms, queued_ms, queued_rough, error } = event.data;
    let code = error.map(|Failure { code, cause }| match cause {
        Some(cause) => format!("{code} ({cause})"),
        None => code,
    });
    let (ran, queued) = (milliseconds(latency_ms), milliseconds(queued_ms));
    Some(Ended { subject: event.subject, id: event.id, outcome, code, requests, ran, queued, is_rough: queued_rough })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_of_the_run_is_read_and_others_are_not() {
        let event = |subject: &str| {
            json!({
                "specversion": "1.0", "id": Uuid::from_u128(7), "subject": subject, "type": "genfleet.cdn.purge.failed",
                "data": {
                    "jobId": subject, "outcome": "failed", "requests": 3, "latencyMs": 12, "queuedMs": null, "report": {},
                    "error": { "code": "attempts_exhausted", "message": "no", "cause": "api_timeout" },
                },
            })
            .to_string()
        };
        let read_one = read(event("load-r-5").as_bytes(), "r").unwrap();
        assert_eq!((read_one.id, read_one.requests, read_one.ran), (Uuid::from_u128(7), 3, Some(12)));
        assert_eq!(read_one.code.as_deref(), Some("attempts_exhausted (api_timeout)"));
        assert_eq!(read(event("release-42").as_bytes(), "r"), None);
        assert_eq!(read(b"not an event", "r"), None);
    }
}
