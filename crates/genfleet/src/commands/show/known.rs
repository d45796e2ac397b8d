//! Everything that is known about a job.

use genfleet_core::queue::dead_letters::DeadLetter;
use serde_json::{Value, json};

use super::{events::Events, waiting::WaitingPlace, webhooks::Delivery};
use crate::commands::dead;

/// Everything that is known about a job.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub events: Events,
    pub letters: Vec<DeadLetter>,
    /// `None` if the queue cannot be searched for waiting jobs.
    pub waiting: Option<Vec<WaitingPlace>>,
    /// Webhook deliveries that wait or have failed.
    pub deliveries: Vec<Delivery>,
    pub facts: Vec<Value>,
}

impl Known {
    pub(super) fn is_nothing(&self) -> bool {
        let waits = self.waiting.as_ref().is_some_and(|places| !places.is_empty());
        let is_empty = self.events.total == 0 && self.deliveries.is_empty() && self.facts.is_empty();
        is_empty && self.letters.is_empty() && !waits
    }

    /// Returns everything as one JSON object.
    pub(super) fn json(&self, id: &str) -> Value {
        let letters: Vec<_> = self.letters.iter().map(dead::show::as_json).collect();
        let waiting = self.waiting.as_ref().map(|places| places.iter().map(WaitingPlace::json).collect::<Vec<_>>());
        json!({
            "id": id, "events": self.events.latest, "eventsTotal": self.events.total, "deadLetters": letters,
            "waiting": waiting, "webhookDeliveries": self.deliveries.iter().map(Delivery::json).collect::<Vec<_>>(),
            "audit": self.facts,
        })
    }
}
