//! A job's latest events. They are found by reading all events that are kept.

use std::collections::VecDeque;

use bytes::Bytes;
use genfleet_core::queue::{QueueError, QueueInspector};
use serde::Deserialize;
use serde_json::Value;

/// Maximum number of events that are shown of one job.
const KEPT: usize = 20;

/// The latest of a job's events.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// As they were published, the oldest first.
    pub latest: VecDeque<Value>,
    /// Number of events, including those that are not shown.
    pub total: u64,
}

#[derive(Deserialize)]
struct Subject<'a> {
    #[serde(borrow)]
    subject: std::borrow::Cow<'a, str>,
}

/// Reads the events of job `id`.
pub(super) async fn of(inspector: &QueueInspector, id: &str) -> Result<Events, QueueError> {
    let mut events = Events::default();
    inspector.each_event(|event| events.add(&event, id)).await?;
    Ok(events)
}

impl Events {
    fn add(&mut self, event: &Bytes, id: &str) {
        if !serde_json::from_slice::<Subject<'_>>(event).is_ok_and(|event| event.subject == id) {
            return;
        }
        self.total += 1;
        self.latest.extend(serde_json::from_slice::<Value>(event));
        self.latest.drain(..self.latest.len().saturating_sub(KEPT));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_of_a_job_are_kept_and_all_are_counted() {
        let mut events = Events::default();
        for number in 0..KEPT + 5 {
            let event = serde_json::json!({ "id": number, "subject": "job \"1\"" }).to_string();
            events.add(&event.into(), "job \"1\"");
        }
        events.add(&r#"{"subject":"another"}"#.into(), "job \"1\"");
        events.add(&"no event".into(), "job \"1\"");
        assert_eq!((events.total, events.latest.len()), (KEPT as u64 + 5, KEPT));
        assert_eq!(events.latest[0]["id"], 5);
    }
}
