//! Webhook deliveries of a job's events that wait (embedded queue) or have failed. Successful deliveries are only in
//! the log and the metrics of the worker.

use genfleet_core::{
    queue::{dead_letters::DeadLetter, sqlite::WaitingJob},
    webhook::Receiver,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::terminal::{Paint, line, truncate};

/// Maximum number of characters that are shown of an error.
const ERROR_WIDTH: usize = 200;

/// A delivery that waits or has failed.
#[derive(Debug)]
pub(super) struct Delivery {
    id: String,
    receiver: String,
    /// The time at which it failed, or until which it waits.
    time: Option<String>,
    /// Reason and error of a failed delivery; `None` if it waits.
    failure: Option<(String, String)>,
}

#[derive(Deserialize)]
struct Job {
    payload: Payload,
}

#[derive(Deserialize)]
struct Payload {
    url: String,
    event: String,
}

/// Returns the receiver of the delivery in `body`; `None` if it is not a delivery of an event of job `id`.
fn receiver(body: &[u8], id: &str) -> Option<String> {
    let Payload { url, event } = serde_json::from_slice::<Job>(body).ok()?.payload;
    let event: Value = serde_json::from_str(&event).ok()?;
    // Only scheme and host are shown, because a path can contain a secret.
    (event["subject"] == id)
        .then(|| Receiver::parse(&url).map_or_else(|_| "[redacted]".to_owned(), |it| it.to_string()))
}

impl Delivery {
    /// Reads a dead letter; `None` if it is not a delivery for job `id`.
    pub(super) fn failed(letter: &DeadLetter, id: &str) -> Option<Self> {
        Some(Self {
            receiver: receiver(&letter.stored.message.body, id)?,
            id: letter.id.to_string(),
            time: letter.failed_at.map(|time| time.to_string()),
            failure: Some((letter.reason.clone(), letter.error.clone())),
        })
    }

    /// Reads a waiting message; `None` if it is not a delivery for job `id`.
    pub(super) fn waiting(waiting: &WaitingJob, id: &str) -> Option<Self> {
        let message = &waiting.message;
        Some(Self {
            receiver: receiver(&message.body, id)?,
            id: message.message_id.clone().unwrap_or_default(),
            time: Some(waiting.visible_at.to_string()),
            failure: None,
        })
    }

    /// Returns the delivery as a JSON object.
    pub(super) fn json(&self) -> Value {
        let (reason, error) = self.failure.as_ref().map(|(reason, error)| (reason, error)).unzip();
        let state = if reason.is_some() { "dead" } else { "waiting" };
        json!({
            "id": self.id, "receiver": self.receiver, "state": state, "time": self.time, "reason": reason, "error": error,
        })
    }

    /// Formats the delivery in a line.
    pub(super) fn text(&self, paint: Paint) -> String {
        let (time, receiver) = (self.time.as_deref().unwrap_or_default(), line(&self.receiver));
        match &self.failure {
            Some((reason, error)) => {
                format!("{time}  {receiver}  {}  {}", paint.red(&line(reason)), truncate(error, ERROR_WIDTH))
            }
            None => format!("{receiver}  waits until {time}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_is_of_the_job_whose_event_it_carries() {
        let body = |subject: &str| {
            let event = json!({ "subject": subject }).to_string();
            json!({ "payload": { "url": "https://hooks.example/secret", "eventId": "e", "event": event } }).to_string()
        };
        assert_eq!(receiver(body("a").as_bytes(), "a").as_deref(), Some("https://hooks.example"));
        assert_eq!(receiver(body("b").as_bytes(), "a"), None);
        assert_eq!(receiver(b"{}", "a"), None);
    }
}
