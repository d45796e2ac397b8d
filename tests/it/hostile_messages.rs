//! Hostile messages of producers: each ends alone, as one dead letter, and does not affect other jobs or the tool.

use harness::{Amqp, Broker, Prefix, Process, eventually, hostile_properties, publish_with, seconds};
use serde_json::Value;

use crate::stack::{assert_all_succeeded, outcomes, publish_one_path_jobs, purge_job, simulator, worker};

const GOOD: usize = 20;

/// Runs a command of the tool, and returns its output.
async fn printed(broker: &Broker, prefix: &Prefix, arguments: &[&str]) -> String {
    let tool = Process::binary("genfleet")
        .args(arguments.iter().copied())
        .env("GENFLEET_QUEUE_URL", broker.url())
        .env("GENFLEET_QUEUE_PREFIX", prefix)
        .start();
    assert_eq!(tool.wait(seconds(60)).await, 0, "{arguments:?}: {}", tool.stderr());
    tool.stdout_lines().join("\n")
}

async fn every_command_works(broker: &Broker, prefix: &Prefix, dead: usize) {
    let listed: Value = serde_json::from_str(&printed(broker, prefix, &["dead", "list", "--json"]).await).unwrap();
    assert_eq!(listed["total"], dead);
    for arguments in [
        &["dead", "list"] as &[&str],
        &["dead", "redrive", "--dry-run"],
        &["dead", "discard", "--dry-run"],
        &["status"],
        &["events"],
    ] {
        printed(broker, prefix, arguments).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_is_refused_alone_and_all_jobs_beside_it_succeed() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    let purger = worker("purger", broker, &prefix, &simulator).start();
    purger.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    let hostile = hostile_properties();
    for (number, (_, properties)) in hostile.iter().enumerate() {
        publish_one_path_jobs(&amqp, &prefix, &format!("good-{number}"), GOOD / 2).await;
        let job = purge_job(&format!("hostile-{number}"), &["/never"]);
        publish_with(broker.url(), &format!("{prefix}.jobs"), "cdn.purge", properties, job.as_bytes()).await;
        publish_one_path_jobs(&amqp, &prefix, &format!("late-{number}"), GOOD / 2).await;
    }
    let mut by_job = outcomes(&mut events, hostile.len() * (GOOD + 1), seconds(30)).await;
    for (number, (what, _)) in hostile.iter().enumerate() {
        let refused = by_job.remove(&format!("hostile-{number}")).unwrap();
        assert_eq!(refused.len(), 1, "{what}");
        assert_eq!(refused[0]["data"]["error"]["code"], "undecodable", "{what}");
    }
    assert_all_succeeded(&by_job);
    assert!(!simulator.purge_counts().contains_key("/never"));
    eventually(seconds(10), "each is one dead letter", async || {
        amqp.count(&format!("{prefix}.dead.cdn.purge")).await as usize == hostile.len()
    })
    .await;
    let metrics = purger.metrics().await;
    assert_eq!(metrics.count("genfleet_broker_reconnects_total", &[]), 0);
    every_command_works(broker, &prefix, hostile.len()).await;
    let shown = printed(broker, &prefix, &["dead", "show", "hostile-0"]).await;
    assert!(shown.contains("undecodable") && shown.contains("nested deeper than 16"), "{shown}");
    purger.terminate();
    assert_eq!(purger.wait(seconds(30)).await, 0);
}

/// Publishes dead letters as the broker does, with all headers of the message.
#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_that_came_with_all_of_it_are_listed_shown_and_redriven() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    printed(broker, &prefix, &["enqueue", "cdn.purge", "--payload", r#"{"paths":["/declared"]}"#]).await;
    let amqp = Amqp::connect(broker.url()).await;
    let hostile = hostile_properties();
    for (number, (_, properties)) in hostile.iter().enumerate() {
        let job = purge_job(&format!("hostile-{number}"), &["/again"]);
        publish_with(broker.url(), &format!("{prefix}.dead"), "cdn.purge", properties, job.as_bytes()).await;
    }
    every_command_works(broker, &prefix, hostile.len()).await;
    for (id, flaw) in [("hostile-0", "too_deep"), ("hostile-1", "too_long"), ("hostile-3", "not_text")] {
        let shown: Value =
            serde_json::from_str(&printed(broker, &prefix, &["dead", "show", id, "--json"]).await).unwrap();
        assert_eq!(shown["flaw"], flaw, "{shown}");
    }
    printed(broker, &prefix, &["dead", "redrive", "--yes"]).await;
    assert_eq!(amqp.count(&format!("{prefix}.dead.cdn.purge")).await, 0);
    assert_eq!(amqp.count(&format!("{prefix}.jobs.cdn.purge")).await as usize, hostile.len() + 1);
}
