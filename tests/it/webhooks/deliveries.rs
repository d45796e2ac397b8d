//! Every event is delivered byte for byte to each URL, once.

use std::collections::BTreeSet;

use harness::{Amqp, Broker, Prefix, Receiver, eventually, headers, json_properties, seconds};
use serde_json::json;

use super::{failed_delivery, published, signing, taken, telling};
use crate::stack::{publish_one_path_jobs, simulator, worker};

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[tokio::test(flavor = "multi_thread")]
async fn each_url_gets_each_event_as_it_was_published() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    let (all, scans, own) = (Receiver::start().await, Receiver::start().await, Receiver::start().await);
    let urls = format!("{},file.scan={}", all.url(), scans.url());
    let launch = signing(worker("purger", broker, &prefix, &simulator)).env("GENFLEET_WEBHOOK_URL", &urls);
    let purger = launch.start();
    purger.wait_ready(seconds(30)).await;
    let before = purger.metrics().await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;

    publish_one_path_jobs(&amqp, &prefix, "many", 100).await;
    for (id, paths) in [("good", "/a"), ("invalid", "no-slash")] {
        let job = json!({ "id": id, "payload": { "paths": [paths] }, "webhook": { "url": own.url() } });
        let properties = json_properties().with_headers(headers([("traceparent", TRACEPARENT)]));
        amqp.publish_job(&prefix, "cdn.purge", job.to_string(), properties).await;
    }
    let expired = json!({ "id": "late", "payload": { "paths": ["/a"] }, "deadline": "2020-01-01T00:00:00Z", "webhook": { "url": all.url() } });
    amqp.publish_job(&prefix, "cdn.purge", expired.to_string(), json_properties()).await;

    let published = published(&mut events, 103).await;
    let at_all = taken(&all, 103).await;
    assert_eq!(at_all.keys().collect::<BTreeSet<_>>(), published.keys().collect::<BTreeSet<_>>());
    for (id, deliveries) in &at_all {
        assert_eq!(deliveries.len(), 1, "{id} once, also where the job names the same URL");
        assert_eq!(deliveries[0].body, published[id].body, "{id}");
        assert_eq!(deliveries[0].header("content-type"), "application/cloudevents+json");
        assert!(!deliveries[0].headers.contains_key("authorization"));
    }
    let at_own = taken(&own, 2).await;
    let types: BTreeSet<_> = at_own.values().map(|deliveries| deliveries[0].json()["type"].to_string()).collect();
    assert_eq!(types, ["failed", "succeeded"].map(|outcome| format!("\"genfleet.cdn.purge.{outcome}\"")).into());
    assert!(at_own.values().all(|deliveries| deliveries[0].header("traceparent") == TRACEPARENT));
    assert_eq!(scans.connections(), 0, "no event of that kind");

    eventually(seconds(10), "they are counted, and none of them has an event", async || {
        let metrics = purger.metrics().await;
        metrics.count("genfleet_webhook_deliveries_total", &[("outcome", "delivered")]) == 105
            && metrics.count("genfleet_jobs_total", &[("kind", "webhook.deliver"), ("outcome", "succeeded")]) == 105
            && metrics.count("genfleet_events_published_total", &[]) == 103
    })
    .await;
    assert!(events.next_message(std::time::Duration::from_millis(200)).await.is_none());
    for outcome in ["delivered", "retried", "failed", "gone", "refused"] {
        let series = format!("genfleet_webhook_deliveries_total{{outcome=\"{outcome}\"}}");
        assert_eq!(before.get(&series), Some(0.0), "{series} from the start");
    }
    let logs = purger.stderr();
    assert!(!logs.contains("/hook"), "URLs are shown as scheme and host: {logs}");
}

#[tokio::test(flavor = "multi_thread")]
async fn four_at_a_time_go_to_one_host() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    let (hanging, living) = (Receiver::start().await, Receiver::start().await);
    hanging.hang();
    let purger = telling(worker("purger", broker, &prefix, &simulator), &[&hanging, &living]).start();
    purger.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    publish_one_path_jobs(&amqp, &prefix, "held", 60).await;
    taken(&living, 60).await;
    eventually(seconds(10), "four hang", async || hanging.connections() == 4).await;
    assert!(hanging.most_at_once() <= 4 && living.most_at_once() <= 4);
    assert_eq!(hanging.connections(), 4, "the rest waits in the queue");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_cannot_be_read_is_a_dead_letter_like_any_other() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    let receiver = Receiver::start().await;
    let purger = telling(worker("purger", broker, &prefix, &simulator), &[&receiver]).start();
    purger.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    let exchange = format!("{prefix}.work");
    amqp.publish_raw(&exchange, "webhook.deliver", r#"{"payload":{"url":"hush"}}"#, json_properties()).await;
    let failed = failed_delivery(&mut events).await;
    assert_eq!(failed["data"]["error"]["code"], "invalid_job");
    assert!(!failed.to_string().contains("hush"), "{failed}");
    let dead = format!("{prefix}.dead.webhook.deliver");
    eventually(seconds(10), "it is kept", async || amqp.count(&dead).await == 1).await;
    assert_eq!(receiver.connections(), 0, "and is sent to no webhook");
}
