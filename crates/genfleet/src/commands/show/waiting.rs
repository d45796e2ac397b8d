//! Where a job waits, on the embedded queue. On `RabbitMQ` nobody can look without taking.

use genfleet_core::{
    job::decode::readable_id,
    message::HeaderValue,
    queue::{
        QueueError,
        dead_letters::DeadLetters,
        sqlite::{SqliteQueue, WaitingJob},
    },
};
use serde_json::{Value, json};

/// Read from the store at once.
const PAGE: usize = 64;
/// Shown of one job, at most.
const SHOWN: usize = 20;

/// One place where the job waits.
#[derive(Debug)]
pub(super) struct WaitingPlace(WaitingJob);

/// The places where job `id` waits; none where the queue does not tell.
pub(super) async fn of(shelves: &DeadLetters, id: &str) -> Result<Option<Vec<WaitingPlace>>, QueueError> {
    match shelves {
        DeadLetters::Rabbit(_) => Ok(None),
        DeadLetters::Sqlite(store) => places(store, id).await.map(Some),
    }
}

async fn places(store: &SqliteQueue, id: &str) -> Result<Vec<WaitingPlace>, QueueError> {
    let (mut places, mut sequence) = (Vec::new(), 0);
    while places.len() < SHOWN {
        let page = store.waiting_after(sequence, PAGE).await?;
        let Some(last) = page.last() else { break };
        sequence = last.sequence;
        let is_it = |job: &WaitingJob| {
            let message = &job.message;
            readable_id(&message.body, message.message_id.as_deref(), message.timestamp).as_str() == id
        };
        places.extend(page.into_iter().filter(is_it).map(WaitingPlace));
    }
    Ok(places)
}

impl WaitingPlace {
    fn header(&self, name: &str) -> Option<i64> {
        self.0.message.headers.get(name).and_then(HeaderValue::as_i64)
    }

    /// As one object.
    pub(super) fn json(&self) -> Value {
        json!({
            "kind": self.0.kind.as_str(), "lane": self.0.lane.as_str(), "running": self.0.claimed,
            "notBefore": self.0.visible_at.to_string(), "returns": self.0.delivery_count,
            "attempts": self.header("genfleet-attempts").unwrap_or(0),
            "generation": self.header("genfleet-generation").unwrap_or(0),
        })
    }

    /// In a line.
    pub(super) fn text(&self) -> String {
        let place = if self.0.claimed {
            "held by a worker".to_owned()
        } else {
            format!("in {}, from {:.0} on", self.0.lane, self.0.visible_at)
        };
        let attempts = self.header("genfleet-attempts").unwrap_or(0);
        format!("{}  {place}, {attempts} attempts, returned {} times", self.0.kind, self.0.delivery_count)
    }
}
