//! Where a job waits, on the embedded queue. On `RabbitMQ` nobody can look without taking.

use genfleet_core::{
    job::{Kind, decode::extract_id, job_headers},
    message::HeaderValue,
    queue::{QueueError, dead_letters::DeadLetters, sqlite::WaitingJob},
};
use serde_json::{Value, json};

use super::{Known, webhooks::Delivery};
use crate::terminal::count;

/// Read from the store at once.
const PAGE: usize = 64;
/// Shown of one job, at most.
const SHOWN: usize = 20;

/// One place where the job waits.
#[derive(Debug)]
pub(super) struct WaitingPlace(WaitingJob);

/// Finds the places where job `id` waits, and the deliveries of its events that wait, where the queue tells.
pub(super) async fn of(shelves: &DeadLetters, id: &str, known: &mut Known) -> Result<(), QueueError> {
    let DeadLetters::Sqlite(store) = shelves else { return Ok(()) };
    let (mut places, mut sequence) = (Vec::new(), 0);
    while places.len() < SHOWN {
        let page = store.waiting_after(sequence, PAGE).await?;
        let Some(last) = page.last() else { break };
        sequence = last.sequence;
        let is_it = |job: &WaitingJob| {
            let message = &job.message;
            extract_id(&message.body, message.message_id.as_deref(), message.timestamp).as_str() == id
        };
        let deliveries = page.iter().filter(|job| job.kind == Kind::WebhookDeliver);
        known.deliveries.extend(deliveries.filter_map(|job| Delivery::waiting(job, id)).take(SHOWN));
        places.extend(page.into_iter().filter(is_it).map(WaitingPlace));
    }
    known.waiting = Some(places);
    Ok(())
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
            "attempts": self.header(job_headers::ATTEMPTS).unwrap_or(0),
            "generation": self.header(job_headers::GENERATION).unwrap_or(0),
        })
    }

    /// In a line.
    pub(super) fn text(&self) -> String {
        let place = if self.0.claimed {
            "held by a worker".to_owned()
        } else {
            format!("in {}, from {:.0} on", self.0.lane, self.0.visible_at)
        };
        let attempts = self.header(job_headers::ATTEMPTS).unwrap_or(0);
        let (attempts, returns) = (count(attempts, "attempt"), count(self.0.delivery_count, "time"));
        format!("{}  {place}, {attempts}, returned {returns}", self.0.kind)
    }
}
