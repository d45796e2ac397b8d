//! `genfleet dead` and `genfleet show`: reading removes nothing, and a redrive loses nothing and duplicates at most a
//! window of dead letters. Guarantees of both queues are tested on both.

use harness::{Amqp, Broker, Message, Prefix, Process, eventually, json_properties, seconds};
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};
use serde_json::{Value, json};

use crate::stack::{purge_job, simulator};

mod embedded;
mod filters;
mod given_up_by_the_broker;
mod killed;
mod lowered;
mod whole_way;

/// Launches the tool with a queue, and with the environment of a worker.
fn tool(url: &str, prefix: &str, arguments: &[&str]) -> Process {
    Process::binary("genfleet")
        .args(arguments.iter().copied())
        .env("GENFLEET_QUEUE_URL", url)
        .env("GENFLEET_QUEUE_PREFIX", prefix)
        .start()
}

/// Waits for the expected end of the tool, and returns its output.
async fn printed(url: &str, prefix: &str, arguments: &[&str], code: i32) -> String {
    let process = tool(url, prefix, arguments);
    assert_eq!(process.wait(seconds(120)).await, code, "{arguments:?}: {}", process.stderr());
    process.stdout_lines().join("\n")
}

async fn json_of(url: &str, prefix: &str, arguments: &[&str]) -> Value {
    let all = [arguments, &["--json"]].concat();
    let printed = printed(url, prefix, &all, 0).await;
    serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {printed}"))
}

/// The headers that a worker adds to a dead letter.
fn given_up(id: &str, reason: &str, error: &str, failed_at: &str, fingerprint: &str) -> BasicProperties {
    let text = |text: &str| AMQPValue::LongString(text.into());
    let mut headers = FieldTable::default();
    headers.insert("genfleet-reason".into(), text(reason));
    headers.insert("genfleet-error".into(), text(error));
    headers.insert("genfleet-failed-at".into(), text(failed_at));
    headers.insert("genfleet-fingerprint".into(), text(fingerprint));
    headers.insert("genfleet-worker".into(), text("purger"));
    headers.insert("genfleet-attempts".into(), AMQPValue::LongLongInt(8));
    headers.insert("genfleet-generation".into(), AMQPValue::LongLongInt(0));
    json_properties().with_message_id(id.into()).with_headers(headers)
}

/// Publishes `count` dead letters as a worker would: `<name>-<n>`, the oldest first.
async fn bury(amqp: &Amqp, prefix: &str, name: &str, count: usize) {
    let letter = |n: usize| {
        let id = format!("{name}-{n}");
        let job = purge_job(&id, &[&format!("/{name}/{n}")]);
        (job, given_up(&id, "rejected", "the API answered 400", "2026-11-20T10:00:00Z", "00112233aabbccdd"))
    };
    amqp.publish_many(&format!("{prefix}.dead"), "cdn.purge", (0..count).map(letter)).await;
}

/// The headers with which a message was published, without the delivery count of the broker.
fn sent_along(message: &Message) -> Vec<String> {
    message
        .headers()
        .into_keys()
        .filter(|name| !["x-delivery-count", "genfleet-copy"].contains(&name.as_str()))
        .collect()
}

/// Returns a broker, a prefix with all queues, and a client.
async fn grounds() -> (&'static Broker, Prefix, Amqp) {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    declare(broker, &prefix).await;
    (broker, prefix, Amqp::connect(broker.url()).await)
}

/// Declares the topology, as every publishing command does.
async fn declare(broker: &Broker, prefix: &str) {
    let first = ["enqueue", "cdn.purge", "--payload", r#"{"paths":["/declared"]}"#];
    printed(broker.url(), prefix, &first, 0).await;
    let amqp = Amqp::connect(broker.url()).await;
    amqp.purge(&format!("{prefix}.jobs.cdn.purge")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_lists_leave_everything_there_and_in_its_order() {
    let (broker, prefix, amqp) = grounds().await;
    bury(&amqp, &prefix, "seen", 700).await;
    for _ in 0..100 {
        let listed = json_of(broker.url(), &prefix, &["dead", "list"]).await;
        assert_eq!(listed["total"], 700);
    }
    let dead = amqp.get_all(&format!("{prefix}.dead.cdn.purge")).await;
    let ids: Vec<_> = dead.iter().map(|letter| letter.properties.message_id().as_ref().unwrap().to_string()).collect();
    assert_eq!(ids, (0..700).map(|n| format!("seen-{n}")).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_text_is_listed_shown_and_redriven_among_the_others() {
    let (broker, prefix, amqp) = grounds().await;
    bury(&amqp, &prefix, "before", 2).await;
    harness::publish_unreadable(broker.url(), &format!("{prefix}.dead"), "cdn.purge").await;
    bury(&amqp, &prefix, "after", 2).await;
    let process = tool(broker.url(), &prefix, &["dead", "list", "--json"]);
    assert_eq!(process.wait(seconds(60)).await, 0, "{}", process.stderr());
    let listed: Value = serde_json::from_str(&process.stdout_lines()[0]).unwrap();
    assert_eq!(listed["total"], 5);
    let shown = printed(broker.url(), &prefix, &["dead", "show", "bad??"], 0).await;
    assert!(shown.contains("number 3") && shown.contains("not UTF-8") && shown.contains("caf?"), "{shown}");
    let result = printed(broker.url(), &prefix, &["dead", "list"], 0).await;
    assert!(result.contains("5 dead letters"), "{result}");
    let redriven = json_of(broker.url(), &prefix, &["dead", "redrive", "--yes"]).await;
    assert_eq!((&redriven["done"], &redriven["complete"]), (&json!(5), &json!(true)));
    assert_eq!(amqp.count(&format!("{prefix}.dead.cdn.purge")).await, 0);
    assert_eq!(amqp.count(&format!("{prefix}.jobs.cdn.purge")).await, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_without_our_queues_is_reported_with_what_to_do() {
    let broker = Broker::shared().await;
    for arguments in [&["dead", "list"] as &[&str], &["dead", "redrive", "--yes"], &["show", "a-job"]] {
        let process = tool(broker.url(), "nobodys-prefix", arguments);
        assert_eq!(process.wait(seconds(30)).await, 1, "{arguments:?}");
        let result = process.stderr();
        assert!(result.contains("nobodys-prefix.") && result.contains("--queue-prefix"), "{result}");
    }
    let away = tool("amqp://127.0.0.1:1", "any", &["dead", "list"]);
    assert_eq!(away.wait(seconds(30)).await, 1);
    assert!(away.stderr().contains("amqp://127.0.0.1:1/") && away.stderr().contains("hint:"), "{}", away.stderr());
    let nowhere = tool("sqlite:no-such-store.db", "any", &["dead", "list"]);
    assert_eq!(nowhere.wait(seconds(30)).await, 64);
    assert!(!nowhere.directory().join("no-such-store.db").exists(), "looking makes no store");
}

/// Asserts that each of `count` jobs is in the queue; returns how many are there more than once.
async fn doubled(amqp: &Amqp, queue: &str, name: &str, count: usize) -> usize {
    let mut seen = std::collections::BTreeMap::<(String, Option<String>), usize>::new();
    for job in amqp.consume_all(queue).await {
        let id = job.properties.message_id().as_ref().unwrap().to_string();
        *seen.entry((id, job.header("genfleet-generation"))).or_default() += 1;
    }
    for n in 0..count {
        assert!(seen.contains_key(&(format!("{name}-{n}"), Some("1".to_owned()))), "{name}-{n} is lost");
    }
    assert_eq!(seen.len(), count, "nothing else came");
    seen.values().map(|times| times - 1).sum()
}
