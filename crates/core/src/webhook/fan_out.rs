//! Turns a final event into one `webhook.deliver` job for each receiver. Pure; the jobs are published together with the
//! event.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use super::{
    delivery::{DeliveryPayload, WAITS},
    receiver::Receiver,
};
use genfleet_job::{
    Kind, derive_id,
    event::Event,
    message::{Headers, Lane, Message},
};
use genfleet_queue::{Destination, Publication};

/// The jobs that deliver `event` to `receivers`, enqueued at `time`, with the trace headers `trace`. Repeats have the
/// same ids.
pub(crate) fn delivery_jobs<'a>(
    event: &'a Event,
    receivers: &'a [Receiver],
    trace: &'a Headers,
    time: Timestamp,
) -> impl Iterator<Item = Publication> + 'a {
    receivers.iter().map(move |receiver| {
        let id = derive_id(&format!("webhook:{}:{}", event.id, receiver.url())).to_string();
        let mut message = Message::new_job(body(&id, event, receiver), id, time);
        message.headers.extend(trace.clone());
        let to = Destination::Lane { kind: Kind::WebhookDeliver, lane: Lane::Jobs, after: Duration::ZERO };
        Publication { to, message }
    })
}

fn body(id: &str, event: &Event, receiver: &Receiver) -> Vec<u8> {
    let payload = DeliveryPayload {
        url: receiver.url().to_string(),
        event_id: event.id.to_string(),
        // Events are UTF-8.
        event: String::from_utf8_lossy(&event.body).into_owned(),
    };
    let attempts = WAITS.len() + 1;
    let kind = Kind::WebhookDeliver.as_str();
    json!({ "id": id, "kind": kind, "maxAttempts": attempts, "payload": payload }).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use clap::{Args, FromArgMatches};
    use uuid::Uuid;

    use super::*;
    use crate::{
        webhook::{Deliverer, WebhookOptions},
        worker::{JobRules, validate_job},
    };
    use genfleet_job::{MAX_BODY_BYTES, event::MAX_EVENT_BYTES};

    const URL: &str = "https://hooks.example/a?b=c";

    /// The default settings.
    fn options() -> WebhookOptions {
        let matches = WebhookOptions::augment_args(clap::Command::new("options")).get_matches_from(["options"]);
        WebhookOptions::from_arg_matches(&matches).unwrap()
    }

    fn event(body: &str) -> Event {
        Event { id: Uuid::nil(), body: body.to_owned().into() }
    }

    fn one(event: &Event) -> Message {
        let trace = Headers::from([("traceparent".to_owned(), "00-a-b-01".into())]);
        let receivers = [Receiver::parse(URL).unwrap()];
        let mut jobs: Vec<_> = delivery_jobs(event, &receivers, &trace, Timestamp::from_second(7).unwrap()).collect();
        assert_eq!(jobs.len(), 1);
        let Publication { to, message } = jobs.swap_remove(0);
        let lane = Destination::Lane { kind: Kind::WebhookDeliver, lane: Lane::Jobs, after: Duration::ZERO };
        assert_eq!(to, lane);
        message
    }

    #[test]
    fn a_delivery_is_a_job_that_carries_the_event_byte_for_byte() {
        let written = "{\"a\": \"\\u00e4 \\\\ \\\" \u{e4}\u{1F600}\"}";
        let message = one(&event(written));
        let rules = JobRules::new::<DeliveryPayload>(Kind::WebhookDeliver, |_| vec![]);
        let (job, payload) = validate_job::<Deliverer>(&rules, &options(), &message.body, None, None).unwrap();
        assert_eq!((payload.event.as_str(), payload.url.as_str()), (written, URL));
        assert_eq!(payload.event_id, Uuid::nil().to_string());
        assert_eq!(job.max_attempts, 7);
        assert_eq!(message.message_id.as_deref(), Some(job.id.as_str()));
        assert_eq!(message.timestamp, Some(7));
        assert_eq!(message.headers["traceparent"], "00-a-b-01".into());
    }

    #[test]
    fn its_id_is_made_of_event_and_url_so_that_repeats_are_the_same_job() {
        let name = format!("genfleet:webhook:{}:{URL}", Uuid::nil());
        let expected = Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes()).to_string();
        assert_eq!(one(&event("{}")).message_id.as_deref(), Some(expected.as_str()));
    }

    #[test]
    fn the_longest_event_fits_into_a_job() {
        let worst = format!("\"{}\"", "\\\"".repeat(MAX_EVENT_BYTES / 2 - 1));
        assert_eq!(worst.len(), MAX_EVENT_BYTES);
        assert!(one(&event(&worst)).body.len() < MAX_BODY_BYTES - 4096);
    }
}
