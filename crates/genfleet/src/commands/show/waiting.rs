//! The places where a job waits, on the embedded queue. A queue of `RabbitMQ` cannot be searched without consuming it.

use genfleet_core::{
    job::{Kind, decode::extract_id, job_headers},
    message::HeaderValue,
    queue::{QueueError, QueueInspector, sqlite::WaitingJob},
};
use serde_json::{Value, json};

use super::webhooks::Delivery;
use crate::terminal::count;

/// Maximum number of places that are shown of one job.
const SHOWN: usize = 20;

/// A place where the job waits.
#[derive(Debug)]
pub(super) struct WaitingPlace(WaitingJob);

/// Finds the places where job `id` waits, and the waiting webhook deliveries of its events. `None` if the queue cannot
/// be searched.
pub(super) async fn of(
    inspector: &QueueInspector,
    id: &str,
) -> Result<Option<(Vec<WaitingPlace>, Vec<Delivery>)>, QueueError> {
    let (mut places, mut deliveries) = (Vec::new(), Vec::new());
    let keep = |job: WaitingJob| {
        if job.kind == Kind::WebhookDeliver && deliveries.len() < SHOWN {
            deliveries.extend(Delivery::waiting(&job, id));
        }
        let message = &job.message;
        let found = extract_id(&message.body, message.message_id.as_deref(), message.timestamp);
        if found.as_str() == id && places.len() < SHOWN {
            places.push(WaitingPlace(job));
        }
    };
    let is_searchable = inspector.each_waiting_job(keep).await?;
    Ok(is_searchable.then_some((places, deliveries)))
}

impl WaitingPlace {
    fn header(&self, name: &str) -> Option<i64> {
        self.0.message.headers.get(name).and_then(HeaderValue::as_i64)
    }

    /// Returns the place as a JSON object.
    pub(super) fn json(&self) -> Value {
        json!({
            "kind": self.0.kind.as_str(), "lane": self.0.lane.as_str(), "running": self.0.claimed,
            "notBefore": self.0.visible_at.to_string(), "returns": self.0.delivery_count,
            "attempts": self.header(job_headers::ATTEMPTS).unwrap_or(0),
            "generation": self.header(job_headers::GENERATION).unwrap_or(0),
        })
    }

    /// Formats the place in a line.
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
