//! The broker's maximum message size is lowered while larger messages are queued.

use genfleet_simulator::SimulatorOptions;

use super::*;
use crate::stack::{outcomes, simulator_with, worker};

const LIMIT: usize = 20_000;

/// A job larger than the limit, with more members than its id and payload.
fn large(id: &str, more: &Value) -> String {
    let paths: Vec<String> = (0..100).map(|n| format!("/{id}/{n}/{}", "x".repeat(500))).collect();
    let mut job = json!({ "id": id, "payload": { "paths": paths } });
    for (member, value) in more.as_object().unwrap() {
        job[member] = value.clone();
    }
    job.to_string()
}

async fn limit(broker: &Broker, bytes: usize) {
    broker.ctl(&["eval", &format!("application:set_env(rabbit, max_message_size, {bytes}).")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_larger_than_the_broker_takes_by_now_ends_and_holds_nobody_up() {
    let Some(broker) = Broker::private().await else { return };
    let prefix = Prefix::on(&broker);
    declare(&broker, &prefix).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    amqp.publish_job(&prefix, "cdn.purge", large("retried", &json!({})), json_properties()).await;
    amqp.publish_job(&prefix, "cdn.purge", large("invalid", &json!({"surplus": 1})), json_properties()).await;
    limit(&broker, LIMIT).await;

    let faults = vec!["status=503,body-contains=/retried".parse().unwrap()];
    let simulator = simulator_with(SimulatorOptions { faults, ..SimulatorOptions::default() }).await;
    let purger = worker("purger", &broker, &prefix, &simulator).args(["--batch-linger", "0ms"]).start();
    amqp.publish_job(&prefix, "cdn.purge", purge_job("small", &["/a"]), json_properties()).await;
    // An event may arrive twice, because the session in which it was published ended.
    let by_job = outcomes(&mut events, 3, seconds(60)).await;
    for (job, outcome, code) in [
        ("invalid", "failed", json!("invalid_job")),
        ("retried", "failed", json!("too_large")),
        ("small", "succeeded", json!(null)),
    ] {
        let output = &by_job[job];
        assert!(output.iter().all(|event| event["id"] == output[0]["id"]), "{output:?}");
        assert_eq!(
            (&output[0]["data"]["outcome"], &output[0]["data"]["error"]["code"]),
            (&json!(outcome), &code),
            "{job}"
        );
    }
    let count = async |queue: &str| amqp.count(&format!("{prefix}.{queue}")).await;
    eventually(seconds(20), "the broker keeps both", async || count("dead.cdn.purge").await == 2).await;
    eventually(seconds(20), "it is ready", async || purger.ready().await.0 == 200).await;
    purger.terminate();
    assert_eq!(purger.wait(seconds(30)).await, 0);
    for queue in ["jobs", "resume", "suspect"] {
        assert_eq!(count(&format!("{queue}.cdn.purge")).await, 0, "{queue}");
    }

    let listed = json_of(broker.url(), &prefix, &["dead", "list", "--reason", "broker:rejected"]).await;
    assert_eq!(listed["total"], 2, "{listed}");
    let refused = tool(broker.url(), &prefix, &["dead", "redrive", "--yes"]);
    assert_eq!(refused.wait(seconds(40)).await, 1);
    assert!(refused.stderr().contains("max_message_size"), "{}", refused.stderr());
    // The broker returns them to the queue when it notices that the tool has ended.
    eventually(seconds(20), "nothing is lost", async || count("dead.cdn.purge").await == 2).await;
    limit(&broker, 1 << 20).await;
    assert_eq!(json_of(broker.url(), &prefix, &["dead", "redrive", "--yes"]).await["done"], 2);
}
