//! A process killed between a job's end and its webhook: nothing is lost.

use std::fs;

use harness::{Amqp, Broker, Prefix, Process, Receiver, eventually, seconds};
use serde_json::{Value, json};

use super::{taken, telling};
use crate::stack::{outcomes, publish_one_path_jobs, simulator, worker};

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
            receiver.taken().len() >= begun || simulator.purged().len() >= JOBS
        })
        .await;
        purger.kill9();
        purger = start();
    }
    let by_job = outcomes(&mut events, JOBS, seconds(120)).await;
    let taken = taken(&receiver, JOBS).await;
    for (job, told) in by_job {
        let id = told[0]["id"].as_str().unwrap();
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
