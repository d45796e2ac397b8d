//! A process killed between a job's end and its webhook: nothing is lost.

use std::fs;

use harness::{Amqp, Broker, Prefix, Process, Receiver, eventually, json_properties, seconds};
use serde_json::{Value, json};

use super::{taken, telling};
use crate::stack::{outcomes, publish_one_path_jobs, purge_job, simulator, worker};

#[tokio::test(flavor = "multi_thread")]
async fn on_rabbitmq_every_event_has_its_delivery_whenever_its_worker_was_killed() {
    const JOBS: usize = 3_000;
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    let receiver = Receiver::start().await;
    let start = || telling(worker("purger", broker, &prefix, &simulator), &[&receiver]).start();
    let mut purger = start();
    purger.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    publish_one_path_jobs(&amqp, &prefix, "job", JOBS).await;
    for round in 1..=3 {
        let begun = JOBS * round / 5;
        eventually(seconds(60), "a part is done", async || {
            receiver.taken().len() >= begun || simulator.purge_counts().len() >= JOBS
        })
        .await;
        purger.kill9();
        purger = start();
    }
    let by_job = outcomes(&mut events, JOBS, seconds(120)).await;
    let taken = taken(&receiver, JOBS).await;
    for (job, output) in by_job {
        let id = output[0]["id"].as_str().unwrap();
        assert!(taken.contains_key(id), "{job} has an event and no delivery");
    }
    for (id, deliveries) in taken {
        assert!(deliveries.iter().all(|delivery| delivery.json()["id"] == id.as_str()), "{id}");
    }
    assert_eq!(amqp.count(&format!("{prefix}.dead.webhook.deliver")).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn on_the_embedded_queue_too() {
    const JOBS: usize = 1_000;
    let receiver = Receiver::start().await;
    let folder = std::env::temp_dir().join(format!("genfleet-webhooks-{}", uuid::Uuid::new_v4()));
    fs::create_dir(&folder).unwrap();
    let lines: Vec<String> = (0..JOBS)
        .map(|n| json!({ "kind": "cdn.purge", "payload": { "paths": [format!("/{n}")] } }).to_string())
        .collect();
    fs::write(folder.join("jobs.jsonl"), lines.join("\n")).unwrap();
    let start = || {
        let arguments = ["run", "--simulate", "--sim-requests-per-minute", "60000", "--requests-per-minute", "60000"];
        let slow = ["--batch-linger", "0ms", "--concurrency", "16", "--events", "out.jsonl", "jobs.jsonl"];
        let launch = Process::binary("genfleet").args([&arguments[..], &slow[..]].concat());
        telling(launch.directory(&folder), &[&receiver]).start()
    };
    for round in 1..=3 {
        let run = start();
        eventually(seconds(60), "a part is delivered", async || receiver.taken().len() >= JOBS * round / 5).await;
        run.kill9();
    }
    let run = start();
    assert_eq!(run.wait(seconds(120)).await, 0, "{}", run.stderr());
    let taken = receiver.taken();
    let written = fs::read_to_string(folder.join("out.jsonl")).unwrap();
    let ids: Vec<String> = written
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .map(|event| event["id"].as_str().unwrap().to_owned())
        .collect();
    assert!(ids.len() >= JOBS);
    assert!(ids.iter().all(|id| taken.contains_key(id)), "each event has its delivery");
    fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_audit_cannot_be_written_nothing_is_delivered_and_afterwards_once() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    let receiver = Receiver::start().await;
    let launch = telling(worker("purger", broker, &prefix, &simulator), &[&receiver]);
    let Some(launch) = launch.room_for_files(0) else { return };
    let full = launch.start();
    full.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    publish_one_path_jobs(&amqp, &prefix, "held", 1).await;
    eventually(seconds(60), "the brake is on", async || full.ready().await.1.to_string().contains("audit log")).await;

    // Another process publishes webhook jobs, and the first one delivers them.
    let other = telling(worker("stream-configurator", broker, &prefix, &simulator), &[&receiver]);
    let other = other.args(["--webhook-concurrency", "0"]).start();
    other.wait_ready(seconds(30)).await;
    for number in 0..20 {
        let job = json!({ "id": format!("told-{number}"), "payload": {} }).to_string();
        amqp.publish_job(&prefix, "stream.configure", job, json_properties()).await;
    }
    outcomes(&mut events, 20, seconds(30)).await;
    let queue = format!("{prefix}.jobs.webhook.deliver");
    eventually(seconds(30), "the first one has them", async || amqp.count(&queue).await <= 4).await;
    assert!(events.next_message(std::time::Duration::from_secs(1)).await.is_none());
    assert_eq!(receiver.connections(), 0, "nothing was delivered");

    full.give_room();
    let taken = taken(&receiver, 21).await;
    assert!(taken.values().all(|deliveries| deliveries.len() == 1), "each once");
    assert_eq!(outcomes(&mut events, 1, seconds(30)).await.len(), 1);
    amqp.publish_job(&prefix, "cdn.purge", purge_job("after", &["/after"]), json_properties()).await;
    outcomes(&mut events, 1, seconds(30)).await;
}
