//! The `AsyncAPI` 3 document: the exchanges and queues that upstream systems write to and read from, with their
//! messages.
//!
//! As `AsyncAPI` prescribes, it is written from Genfleet's view: Genfleet receives jobs and sends events. The format
//! has no place for AMQP's own properties; they are in `x-amqp-properties`.

use serde_json::{Map, Value, json};

use super::{KindContract, event, job, named};
use genfleet_job::{
    Kind,
    event::{CONTENT_TYPE, Outcome},
    job_headers,
    message::{Lane, enqueued::ENQUEUED_MS},
};
use genfleet_queue::{
    Destination,
    topology::{self, dead_queue, lane_queue, route},
};

const BINDING: &str = "0.3.0";

const ABOUT: &str = "Genfleet works jobs on Genesys Cloud. A producer publishes a job on the exchange of jobs with the \
job's kind as routing key, persistent, with publisher confirms; it needs the right to write to that exchange and no \
other. Every job ends in an event, at least once, repeats with the same id, on the exchange of events and, where the job \
names a reply queue, there, too. Who must miss no event binds a queue of its own. `genfleet topology` prints all \
exchanges, queues and bindings, `genfleet schema` the schemas.";

/// The document for queues under `prefix`.
pub(super) fn document(kinds: &[KindContract], prefix: &str) -> Value {
    let upstream: Vec<&KindContract> = kinds.iter().filter(|one| !one.kind.is_internal()).collect();
    let mut channels = Map::new();
    let mut operations = Map::new();
    let mut messages = Map::new();
    let mut schemas = Map::new();
    for contract in &upstream {
        let kind = contract.kind;
        channels.insert(kind.to_string(), jobs_channel(contract, prefix));
        operations.insert(format!("work.{kind}"), jobs_operation(kind));
        messages.insert(kind.to_string(), job_message(contract, &mut schemas));
    }
    channels.insert("events".to_owned(), events_channel(prefix));
    channels.insert("events.window".to_owned(), window_channel(prefix));
    channels.insert("replies".to_owned(), replies_channel());
    operations.insert("tell".to_owned(), sends("events", "event", "Publishes the end of a job."));
    messages.insert("event".to_owned(), event_message(kinds, &mut schemas));
    for contract in &upstream {
        let kind = contract.kind;
        channels.insert(format!("dead.{kind}"), dead_channel(kind, prefix));
        operations.insert(format!("bury.{kind}"), sends(&format!("dead.{kind}"), "dead", "Keeps failed jobs."));
    }
    messages.insert("dead".to_owned(), dead_message(&mut schemas));
    json!({
        "asyncapi": "3.0.0",
        "id": "urn:genfleet:asyncapi",
        "info": {
            "title": "Genfleet",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": { "name": env!("CARGO_PKG_LICENSE") },
        },
        "defaultContentType": "application/json",
        "servers": { "broker": server() },
        "channels": channels,
        "operations": operations,
        "components": { "messages": messages, "schemas": schemas },
    })
}

fn server() -> Value {
    json!({
        "host": "rabbit.example:5672",
        "protocol": "amqp",
        "protocolVersion": "0.9.1",
        "description": "RabbitMQ 3.10 to 4.x; the workers' --queue-url.",
    })
}

fn jobs_channel(contract: &KindContract, prefix: &str) -> Value {
    let kind = contract.kind;
    let (exchange, key) = route(prefix, &Destination::Jobs(kind));
    let queue = lane_queue(prefix, Lane::Jobs, kind);
    json!({
        "address": key,
        "title": format!("{kind} jobs"),
        "description": format!("The exchange that producers publish to; it leads to the queue {queue}."),
        "messages": { "job": message(kind.as_str()) },
        "bindings": { "amqp": by_key(&exchange, "topic") },
    })
}

fn jobs_operation(kind: Kind) -> Value {
    let channel = |name: &str| json!({ "$ref": format!("#/channels/{name}") });
    json!({
        "action": "receive",
        "channel": channel(kind.as_str()),
        "title": format!("Works {kind} jobs"),
        "messages": [{ "$ref": format!("#/channels/{kind}/messages/job") }],
        "bindings": { "amqp": { "deliveryMode": 2, "mandatory": true, "ack": true, "bindingVersion": BINDING } },
        "reply": {
            "address": {
                "location": "$message.header#/reply_to",
                "description": "The AMQP property reply_to: the queue that also gets the job's event: direct reply-to, a queue declared without a name (amq.gen-…), or one that the workers' --reply-to-allow names. Optional.",
            },
            "channel": channel("replies"),
            "messages": [{ "$ref": "#/channels/replies/messages/event" }],
        },
    })
}

fn events_channel(prefix: &str) -> Value {
    let outcomes = Outcome::ALL.map(Outcome::as_str);
    let kinds: Vec<&str> = Kind::ALL.iter().map(|kind| kind.as_str()).chain(["unknown"]).collect();
    json!({
        "address": "{kind}.{outcome}",
        "title": "Events",
        "description": "Bind a durable queue of your own to miss nothing: with # for all events, #.failed for all failures, cdn.purge.* for one kind.",
        "parameters": {
            "kind": { "enum": kinds, "description": "The job's kind; unknown for a message whose routing key is no kind." },
            "outcome": { "enum": outcomes, "description": "The job's outcome." },
        },
        "messages": { "event": message("event") },
        "bindings": { "amqp": by_key(&topology::events(prefix), "topic") },
    })
}

fn window_channel(prefix: &str) -> Value {
    let queue = topology::events(prefix);
    json!({
        "address": queue,
        "title": "The last events",
        "description": "A window of the latest events, at most 1,000,000 or 1 GiB; older ones are dropped.",
        "messages": { "event": message("event") },
        "bindings": { "amqp": of_queue(&queue) },
    })
}

fn replies_channel() -> Value {
    json!({
        "address": null,
        "title": "Replies",
        "description": "The default exchange, with the name of the job's reply_to queue as routing key. Tried once: a reply that cannot be sent, or whose queue is gone or may not be named, is no failure of the job: the event is on the exchange of events all the same.",
        "messages": { "event": message("event") },
        "bindings": { "amqp": by_key("", "default") },
    })
}

fn dead_channel(kind: Kind, prefix: &str) -> Value {
    let queue = dead_queue(prefix, kind);
    json!({
        "address": queue,
        "title": format!("{kind} jobs that failed"),
        "description": "For operators: `genfleet dead` shows, redrives and discards them.",
        "messages": { "dead": message("dead") },
        "bindings": { "amqp": of_queue(&queue) },
    })
}

fn sends(channel: &str, name: &str, title: &str) -> Value {
    json!({
        "action": "send",
        "channel": { "$ref": format!("#/channels/{channel}") },
        "title": title,
        "messages": [{ "$ref": format!("#/channels/{channel}/messages/{name}") }],
        "bindings": { "amqp": { "deliveryMode": 2, "bindingVersion": BINDING } },
    })
}

fn by_key(exchange: &str, routing: &str) -> Value {
    let exchange = json!({ "name": exchange, "type": routing, "durable": true, "autoDelete": false });
    json!({ "is": "routingKey", "exchange": exchange, "bindingVersion": BINDING })
}

fn of_queue(queue: &str) -> Value {
    let queue = json!({ "name": queue, "durable": true, "exclusive": false, "autoDelete": false });
    json!({ "is": "queue", "queue": queue, "bindingVersion": BINDING })
}

fn message(name: &str) -> Value {
    json!({ "$ref": format!("#/components/messages/{name}") })
}

fn job_message(contract: &KindContract, schemas: &mut Map<String, Value>) -> Value {
    let examples: Vec<Value> = contract.terms.examples.iter().map(|job| json!({ "payload": job })).collect();
    let mut headers = trace_headers();
    let enqueued = json!({ "type": "integer", "description": "Milliseconds since 1970, within a second of the property timestamp: the job's queuedMs counts from here. Optional, for figures only." });
    super::merge(&mut headers, &json!({ "properties": { (ENQUEUED_MS): enqueued } }));
    json!({
        "name": format!("{}.job", contract.kind),
        "title": format!("{} job", contract.kind),
        "contentType": "application/json",
        "headers": part("Job headers", headers, schemas),
        "correlationId": correlation("Comes back with the reply. Optional."),
        "payload": embed(job::schema(contract), schemas),
        "examples": examples,
        "x-amqp-properties": {
            "content_type": { "const": "application/json" },
            "delivery_mode": { "const": 2, "description": "Persistent." },
            "message_id": { "type": "string", "maxLength": 255, "description": "The job's id, where its body names none and this is a valid one." },
            "timestamp": { "type": "integer", "description": "Seconds since 1970: the job's queuedMs counts from here where no genfleet-enqueued-ms says it to the millisecond." },
            "reply_to": { "type": "string", "maxLength": 255, "description": "A queue that also gets the final event." },
            "correlation_id": { "type": "string", "maxLength": 255, "description": "Comes back with the reply." },
        },
    })
}

fn event_message(kinds: &[KindContract], schemas: &mut Map<String, Value>) -> Value {
    json!({
        "name": "event",
        "title": "End of a job",
        "contentType": CONTENT_TYPE,
        "headers": part("Trace headers", trace_headers(), schemas),
        "correlationId": correlation("The job's correlation_id; on the exchange of events its message_id where it had none."),
        "payload": embed(event::schema(kinds), schemas),
        "x-amqp-properties": {
            "content_type": { "const": CONTENT_TYPE },
            "delivery_mode": { "const": 2, "description": "Persistent." },
            "message_id": { "type": "string", "format": "uuid", "description": "The event's id." },
            "timestamp": { "type": "integer", "description": "Seconds since 1970: when the job ended." },
            "correlation_id": { "type": "string", "description": "See correlationId." },
        },
    })
}

fn dead_message(schemas: &mut Map<String, Value>) -> Value {
    let text = |description: &str| json!({ "type": "string", "description": description });
    let number = |description: &str| json!({ "type": "integer", "description": description });
    let mut headers = trace_headers();
    let set = json!({
        (job_headers::REASON): text("The error's code. What the broker itself dead-letters has no genfleet-* header."),
        (job_headers::ERROR): text("The error's message, at most 2 KiB."),
        (job_headers::ATTEMPTS): number("Attempts that count."),
        (job_headers::FAILED_AT): { "type": "string", "format": "date-time", "description": "When." },
        (job_headers::WORKER): text("The worker that gave the job up."),
        (job_headers::FINGERPRINT): text("Equal for failures of the same sort."),
        (job_headers::GENERATION): number("Redrives before this failure."),
    });
    super::merge(&mut headers, &json!({ "properties": set }));
    json!({
        "name": "dead",
        "title": "A job that failed",
        "headers": part("Dead letter headers", headers, schemas),
        "payload": { "description": "The job's bytes as received, JSON or not." },
    })
}

fn trace_headers() -> Value {
    json!({
        "type": "object",
        "properties": {
            "traceparent": { "type": "string", "description": "W3C trace context: goes on to the API, the event and the webhooks." },
            "tracestate": { "type": "string", "maxLength": 512, "description": "The same." },
        },
    })
}

fn correlation(description: &str) -> Value {
    json!({ "location": "$message.header#/correlation_id", "description": format!("The AMQP property correlation_id. {description}") })
}

/// A schema inside this document: it has no address of its own here.
fn embed(mut schema: Value, schemas: &mut Map<String, Value>) -> Value {
    for member in ["$schema", "$id"] {
        schema.as_object_mut().map(|members| members.shift_remove(member));
    }
    named::move_parts(schema, "#/components/schemas/", schemas)
}

fn part(title: &str, mut schema: Value, schemas: &mut Map<String, Value>) -> Value {
    schema["title"] = title.into();
    embed(schema, schemas)
}
