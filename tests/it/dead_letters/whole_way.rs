//! A failed job and its redrive, with a worker.

use genfleet_simulator::Simulator;
use harness::Launch;

use super::*;
use crate::stack::{outcomes, worker};

fn refuse_all(simulator: &Simulator) {
    simulator.set_faults(vec!["status=400".parse().unwrap()]);
}

fn purger(broker: &Broker, prefix: &Prefix, simulator: &Simulator) -> Launch {
    worker("purger", broker, prefix, simulator)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redriven_job_that_dies_again_is_seen_to_and_one_that_succeeds_has_its_generation() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    refuse_all(&simulator);
    let purger = purger(broker, &prefix, &simulator).start();
    purger.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    amqp.publish_job(&prefix, "cdn.purge", purge_job("unlucky", &["/a"]), json_properties()).await;
    let first = outcomes(&mut events, 1, seconds(30)).await.remove("unlucky").unwrap().remove(0);
    assert_eq!((&first["data"]["outcome"], &first["data"]["generation"]), (&json!("failed"), &json!(0)));
    let dead = format!("{prefix}.dead.cdn.purge");
    eventually(seconds(10), "it is a dead letter", async || amqp.count(&dead).await == 1).await;

    let redriven = json_of(broker.url(), &prefix, &["dead", "redrive", "--id", "unlucky", "--yes"]).await;
    assert_eq!(redriven["done"], 1);
    let second = outcomes(&mut events, 1, seconds(30)).await.remove("unlucky").unwrap().remove(0);
    assert_eq!((&second["data"]["outcome"], &second["data"]["generation"]), (&json!("failed"), &json!(1)));
    assert_ne!(first["id"], second["id"]);
    eventually(seconds(10), "it died again", async || amqp.count(&dead).await == 1).await;
    let shown = json_of(broker.url(), &prefix, &["dead", "show", "unlucky"]).await;
    assert_eq!((&shown["generation"], &shown["reason"]), (&json!(1), &first["data"]["error"]["code"]));
    let table = printed(broker.url(), &prefix, &["dead", "list"], 0).await;
    assert!(table.contains("(redriven once)"), "{table}");

    simulator.set_faults(vec![]);
    assert_eq!(json_of(broker.url(), &prefix, &["dead", "redrive", "--yes"]).await["done"], 1);
    let third = outcomes(&mut events, 1, seconds(30)).await.remove("unlucky").unwrap().remove(0);
    assert_eq!((&third["data"]["outcome"], &third["data"]["generation"]), (&json!("succeeded"), &json!(2)));
    let name = "genfleet:cdn.purge:unlucky:2:succeeded";
    assert_eq!(third["id"], uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_URL, name.as_bytes()).to_string());
    assert_eq!(amqp.count(&dead).await, 0);

    let known = json_of(broker.url(), &prefix, &["show", "unlucky"]).await;
    assert_eq!((&known["eventsTotal"], &known["waiting"]), (&json!(3), &Value::Null));
    let outcomes: Vec<_> = known["events"].as_array().unwrap().iter().map(|event| &event["data"]["outcome"]).collect();
    assert_eq!(outcomes, ["failed", "failed", "succeeded"]);
    let text = printed(broker.url(), &prefix, &["show", "unlucky"], 0).await;
    assert!(text.contains("generation 2") && text.contains("succeeded"), "{text}");
    let nobody = tool(broker.url(), &prefix, &["show", "nobody"]);
    assert_eq!(nobody.wait(seconds(30)).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_fails_again_at_once_goes_round_once_a_run() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    refuse_all(&simulator);
    let purger = purger(broker, &prefix, &simulator).start();
    purger.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let dead = format!("{prefix}.dead.cdn.purge");
    bury(&amqp, &prefix, "round", 60).await;
    // Slow enough that the first fails again before the last is redriven.
    let arguments = ["dead", "redrive", "--yes", "--rate", "40", "--timeout", "60s"];
    let redriven = json_of(broker.url(), &prefix, &arguments).await;
    assert_eq!(redriven["done"], 60);
    eventually(seconds(30), "all are dead again", async || amqp.count(&dead).await == 60).await;
    let letters = amqp.get_all(&dead).await;
    assert!(letters.iter().all(|letter| letter.header("genfleet-generation").as_deref() == Some("1")));
}
