//! Receivers that are unavailable, refuse deliveries, or are gone.

use std::{collections::BTreeSet, time::Duration};

use harness::{Amqp, Broker, Prefix, Process, Receiver, eventually, json_properties, seconds};

use super::{failed_delivery, published, signing, taken, telling};
use crate::stack::{outcomes, publish_one_path_jobs, purge_job, simulator, worker};

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_to_a_receiver_that_is_down_for_long_arrive_in_the_end_and_nothing_else_waits() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    let (mut away, living) = (Receiver::start().await, Receiver::start().await);
    let purger = telling(worker("purger", broker, &prefix, &simulator), &[&away, &living]).start();
    purger.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;

    away.answer("500 Down");
    publish_one_path_jobs(&amqp, &prefix, "first", 30).await;
    let mut published = published(&mut events, 30).await;
    eventually(seconds(60), "each was tried", async || {
        let ids: BTreeSet<_> =
            away.deliveries().iter().map(|delivery| delivery.header("webhook-id").to_owned()).collect();
        ids.len() == 30
    })
    .await;
    away.down().await;
    publish_one_path_jobs(&amqp, &prefix, "second", 30).await;
    published.extend(super::published(&mut events, 30).await);
    taken(&living, 60).await;
    let retried = [("outcome", "retried")];
    let before = purger.metrics().await.count("genfleet_webhook_deliveries_total", &retried);
    eventually(seconds(60), "they were tried in vain, too", async || {
        purger.metrics().await.count("genfleet_webhook_deliveries_total", &retried) >= before + 30
    })
    .await;

    away.answer("200 OK");
    away.up().await;
    let taken = taken(&away, 60).await;
    assert!(taken.keys().eq(published.keys()));
    for delivery in away.deliveries() {
        let event = &published[delivery.header("webhook-id")];
        assert_eq!(delivery.body, event.body, "the same body at each try");
    }
    assert!(taken.values().all(|deliveries| deliveries.len() == 1), "taken once, delivered no more");
    assert_eq!(amqp.count(&format!("{prefix}.dead.webhook.deliver")).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_dead_receiver_holds_up_neither_another_nor_the_jobs() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    let (dead, living) = (Receiver::start().await, Receiver::start().await);
    dead.hang();
    // The unavailable receiver is the first in every settlement.
    let purger = telling(worker("purger", broker, &prefix, &simulator), &[&dead, &living]).start();
    purger.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    publish_one_path_jobs(&amqp, &prefix, "job", 500).await;
    let published = published(&mut events, 500).await;
    let taken = taken(&living, 500).await;
    assert!(taken.keys().eq(published.keys()));
    assert!(dead.most_at_once() <= 4);
    assert!(dead.deliveries().len() <= 12, "{} of 500 were tried meanwhile", dead.deliveries().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn after_seven_tries_a_delivery_is_a_dead_letter_with_its_event_and_the_job_is_none_the_worse() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    let receiver = Receiver::start().await;
    receiver.answer("500 Broken");
    let launch = telling(worker("purger", broker, &prefix, &simulator), &[&receiver]);
    let purger = launch.env("GENFLEET_WEBHOOK_RETRY_SCALE", "0").start();
    purger.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    amqp.publish_job(&prefix, "cdn.purge", purge_job("job", &["/a"]), json_properties()).await;
    let succeeded = events.collect_messages(1, seconds(20)).await.remove(0);
    assert_eq!(succeeded.json()["type"], "genfleet.cdn.purge.succeeded");

    let failed = failed_delivery(&mut events).await;
    let error = &failed["data"]["error"];
    assert_eq!(
        (error["code"].as_str(), error["cause"].as_str()),
        (Some("attempts_exhausted"), Some("receiver_refused"))
    );
    assert_eq!(error["status"], 500);
    assert_eq!(failed["data"]["attempts"], 7);
    assert_eq!(error["eventId"], succeeded.json()["id"]);
    assert_eq!(receiver.deliveries().len(), 7);
    assert!(!failed.to_string().contains("/hook"), "its URL is shown as scheme and host: {failed}");

    let queue = format!("{prefix}.dead.webhook.deliver");
    eventually(seconds(10), "it is kept", async || amqp.count(&queue).await == 1).await;
    let dead = amqp.get_all(&queue).await.remove(0);
    assert_eq!(dead.header("genfleet-reason").as_deref(), Some("attempts_exhausted"));
    assert_eq!(dead.json()["payload"]["event"].as_str().map(str::as_bytes), Some(&succeeded.body[..]));
    assert_eq!(dead.json()["payload"]["url"], receiver.url());
    assert_eq!(dead.json()["id"], failed["subject"]);
    assert_eq!(amqp.count(&format!("{prefix}.dead.cdn.purge")).await, 0);
    let metrics = purger.metrics().await;
    assert_eq!(metrics.count("genfleet_webhook_deliveries_total", &[("outcome", "retried")]), 6);
    assert_eq!(metrics.count("genfleet_webhook_deliveries_total", &[("outcome", "failed")]), 1);
    eventually(seconds(10), "it is counted", async || {
        purger.metrics().await.count("genfleet_dead_letters_total", &[("kind", "webhook.deliver")]) == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_gone_is_sent_that_event_no_more() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    let receiver = Receiver::start().await;
    receiver.answer("410 Gone");
    let purger = telling(worker("purger", broker, &prefix, &simulator), &[&receiver]).start();
    purger.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    amqp.publish_job(&prefix, "cdn.purge", purge_job("job", &["/a"]), json_properties()).await;
    let failed = failed_delivery(&mut events).await;
    assert_eq!(failed["data"]["error"]["code"], "gone");
    assert_eq!((failed["data"]["attempts"].as_u64(), receiver.deliveries().len()), (Some(1), 1));
    let metrics = purger.metrics().await;
    assert_eq!(metrics.count("genfleet_webhook_deliveries_total", &[("outcome", "gone")]), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_comes_no_sooner_than_its_receiver_asked_for() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    let receiver = Receiver::start().await;
    receiver.answer("429 Slow\r\nretry-after: 4");
    let purger = telling(worker("purger", broker, &prefix, &simulator), &[&receiver]).start();
    purger.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    amqp.publish_job(&prefix, "cdn.purge", purge_job("job", &["/a"]), json_properties()).await;
    eventually(seconds(20), "a first try", async || receiver.deliveries().len() == 1).await;
    receiver.answer("204 Fine");
    taken(&receiver, 1).await;
    let tries = receiver.deliveries();
    let waited = tries[1].at - tries[0].at;
    assert!(waited >= Duration::from_millis(3900), "{waited:?}");
    assert_eq!(tries[0].header("webhook-id"), tries[1].header("webhook-id"));
    assert_ne!(tries[0].header("webhook-signature"), tries[1].header("webhook-signature"), "made anew");
    assert_ne!(tries[0].header("webhook-timestamp"), tries[1].header("webhook-timestamp"));
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_are_delivered_while_genesys_cloud_lets_nobody_in() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    let mut receiver = Receiver::start().await;
    receiver.down().await;
    let purger = telling(worker("purger", broker, &prefix, &simulator), &[&receiver]).start();
    purger.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    publish_one_path_jobs(&amqp, &prefix, "job", 20).await;
    outcomes(&mut events, 20, seconds(30)).await;

    simulator.set_faults(vec!["status=401".parse().unwrap()]);
    amqp.publish_job(&prefix, "cdn.purge", purge_job("held", &["/held"]), json_properties()).await;
    eventually(seconds(20), "the brake is on", async || purger.ready().await.0 == 503).await;
    receiver.up().await;
    taken(&receiver, 20).await;
    assert_eq!(purger.ready().await.0, 503, "still");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_takes_nothing_is_reported_to_the_operator_until_it_does() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    let mut receiver = Receiver::start().await;
    let purger = telling(worker("purger", broker, &prefix, &simulator), &[&receiver]).start();
    purger.wait_ready(seconds(30)).await;
    receiver.down().await;
    let amqp = Amqp::connect(broker.url()).await;
    publish_one_path_jobs(&amqp, &prefix, "job", 3).await;
    let url = receiver.url();
    let output = |what: &'static str| {
        let tool = Process::binary("genfleet").args([what]);
        let tool = tool.env("GENFLEET_QUEUE_URL", broker.url()).env("GENFLEET_QUEUE_PREFIX", &prefix);
        signing(tool).env("GENFLEET_WEBHOOK_URL", &url).start()
    };
    let host = url.rsplit_once('/').unwrap().0.to_owned();
    eventually(seconds(30), "status tells it", async || {
        let status = output("status");
        assert_eq!(status.wait(seconds(30)).await, 0);
        let shown = status.stdout_lines().join("\n");
        let words = ["webhooks ", &host, "cannot be reached", "Connection refused", " in a row, for "];
        if words.iter().all(|word| shown.contains(word)) { Ok(()) } else { Err(shown) }
    })
    .await;
    let fleet: serde_json::Value = serde_json::from_str(&purger.get("/fleet").await.unwrap().1).unwrap();
    assert_eq!(fleet["own"]["receivers"][0]["receiver"], host, "{fleet}");
    let warned = purger.logs().into_iter().filter(|log| log["message"] == "not delivered" && log["level"] == "WARN");
    assert_eq!(warned.count(), 1, "once, however often it is tried");
    let doctor = output("doctor");
    doctor.wait(seconds(60)).await;
    let shown = doctor.stdout_lines().join("\n");
    assert!(shown.contains("warning  webhooks.receiver") && shown.contains("Connection refused"), "{shown}");

    receiver.up().await;
    taken(&receiver, 3).await;
    eventually(seconds(30), "it is no longer reported", async || {
        let fleet: serde_json::Value = serde_json::from_str(&purger.get("/fleet").await.unwrap().1).unwrap();
        fleet["own"]["receivers"].is_null()
    })
    .await;
    let doctor = output("doctor");
    doctor.wait(seconds(60)).await;
    let shown = doctor.stdout_lines().join("\n");
    assert!(shown.contains("ok       webhooks.receiver"), "{shown}");
    let looks: Vec<_> = receiver.deliveries().into_iter().filter(|asked| asked.body.is_empty()).collect();
    assert_eq!(looks.len(), 1, "it was asked once whether it is there");
    assert_eq!((looks[0].target.as_str(), looks[0].header("webhook-id")), ("/", ""), "and sent nothing of ours");
}
