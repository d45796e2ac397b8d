//! Webhooks (SPEC 7): deliveries and their receivers.

use std::collections::BTreeMap;

use harness::{Delivery, Events, Launch, Message, Receiver, eventually, seconds};
use serde_json::Value;

mod addresses;
mod batch;
mod crashes;
mod deliveries;
mod published_libraries;
mod receivers_down;
mod settings;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Adds a secret, permits deliveries to this machine, and makes waits a thousand times shorter.
fn signing(launch: Launch) -> Launch {
    launch
        .env("GENFLEET_WEBHOOK_SECRET", SECRET)
        .env("GENFLEET_WEBHOOK_ALLOW", "127.0.0.1")
        .env("GENFLEET_WEBHOOK_RETRY_SCALE", "0.001")
}

/// The same, with all events delivered to these URLs.
fn telling(launch: Launch, receivers: &[&Receiver]) -> Launch {
    let urls: Vec<_> = receivers.iter().map(|receiver| receiver.url()).collect();
    signing(launch).env("GENFLEET_WEBHOOK_URL", &urls.join(","))
}

/// Waits until `receiver` has accepted deliveries of `count` events.
async fn taken(receiver: &Receiver, count: usize) -> BTreeMap<String, Vec<Delivery>> {
    eventually(seconds(120), format!("{count} events are taken"), async || {
        let taken = receiver.taken();
        if taken.len() >= count { Ok(taken) } else { Err(format!("{} are", taken.len())) }
    })
    .await
}

/// Reads the next `count` events as they were published, by their ids.
async fn published(events: &mut Events, count: usize) -> BTreeMap<String, Message> {
    let messages = events.collect_messages(count, seconds(60)).await;
    messages.into_iter().map(|message| (message.json()["id"].as_str().unwrap().to_owned(), message)).collect()
}

/// Waits for the event of a delivery that finally failed.
async fn failed_delivery(events: &mut Events) -> Value {
    loop {
        let event = events.next_event(seconds(60)).await;
        if event["type"] == "genfleet.webhook.deliver.failed" {
            return event;
        }
    }
}
