//! Addresses to which nothing is delivered, whatever a job names.

use std::collections::BTreeSet;

use harness::{Amqp, Broker, Prefix, Receiver, eventually, json_properties, seconds};
use serde_json::json;

use super::{SECRET, failed_delivery, signing, taken};
use crate::stack::{simulator, worker};

/// Hosts that a job may name. The receiver listens on 127.0.0.1, which many of them mean.
const HOSTS: [&str; 33] = [
    "127.0.0.1",
    "127.1",
    "127.255.255.254",
    "2130706433",
    "0x7f000001",
    "017700000001",
    "0x7f.0.0.1",
    "0177.0.0.1",
    "127.0.0.1.",
    "0.0.0.0",
    "0",
    "localhost",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "169.254.169.254",
    "169.254.0.1",
    "192.0.2.1",
    "198.18.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b:1::7f00:1]",
    "[2002:7f00:1::]",
    "[fc00::1]",
    "[fd00:ec2::254]",
    "[fe80::1]",
];

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_not_public_is_refused_at_once_and_for_good() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    let receiver = Receiver::start().await;
    let port = receiver.url().rsplit(':').next().unwrap().to_owned();
    let launch = worker("purger", broker, &prefix, &simulator).env("GENFLEET_WEBHOOK_SECRET", SECRET);
    let purger = launch.start();
    purger.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    let jobs = HOSTS.iter().enumerate().map(|(n, host)| {
        let url = format!("https://{host}:{port}");
        let job = json!({ "id": format!("job-{n}"), "payload": { "paths": ["/a"] }, "webhook": { "url": url } });
        (job.to_string(), json_properties())
    });
    amqp.publish_jobs(&prefix, "cdn.purge", jobs).await;

    let (mut succeeded, mut refused) = (BTreeSet::new(), BTreeSet::new());
    while succeeded.len() < HOSTS.len() || refused.len() < HOSTS.len() {
        let event = events.next_event(seconds(60)).await;
        if event["type"] == "genfleet.cdn.purge.succeeded" {
            succeeded.insert(event["id"].to_string());
            continue;
        }
        assert_eq!(event["data"]["error"]["code"], "address_refused", "{event}");
        assert_eq!(event["data"]["attempts"], 1, "{event}");
        refused.insert(event["data"]["error"]["eventId"].to_string());
    }
    assert_eq!(succeeded, refused, "each job succeeded, and its delivery was refused");
    assert_eq!(receiver.connections(), 0);
    let dead = format!("{prefix}.dead.webhook.deliver");
    eventually(seconds(10), "each is kept", async || amqp.count(&dead).await as usize == HOSTS.len()).await;
    let metrics = purger.metrics().await;
    assert_eq!(metrics.count("genfleet_webhook_deliveries_total", &[("outcome", "refused")]), HOSTS.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_a_failure_wherever_it_leads() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    let (inside, receiver) = (Receiver::start().await, Receiver::start().await);
    receiver.answer(&format!("302 Elsewhere\r\nlocation: {}", inside.url()));
    let launch = signing(worker("purger", broker, &prefix, &simulator)).env("GENFLEET_WEBHOOK_RETRY_SCALE", "0");
    let purger = launch.env("GENFLEET_WEBHOOK_URL", &receiver.url()).start();
    purger.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    let job = json!({ "payload": { "paths": ["/a"] } }).to_string();
    amqp.publish_job(&prefix, "cdn.purge", job, json_properties()).await;
    let failed = failed_delivery(&mut events).await;
    assert_eq!((&failed["data"]["error"]["status"], receiver.deliveries().len()), (&302.into(), 7));
    assert_eq!(inside.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jobs_url_is_https_unless_it_is_allowed() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    let receiver = Receiver::start().await;
    let purger = signing(worker("purger", broker, &prefix, &simulator)).start();
    purger.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    for (url, pointers) in [
        ("http://hooks.example/hush".to_owned(), vec!["/webhook/url"]),
        ("https://user:hush@hooks.example/".to_owned(), vec!["/webhook/url"]),
        ("hush".to_owned(), vec!["/webhook/url"]),
        (receiver.url(), vec![]),
    ] {
        let job = json!({ "payload": { "paths": ["/a"] }, "webhook": { "url": url } }).to_string();
        amqp.publish_job(&prefix, "cdn.purge", job, json_properties()).await;
        let event = events.next_event(seconds(20)).await;
        let violations = event["data"]["error"]["violations"].as_array().cloned().unwrap_or_default();
        let output: Vec<_> = violations.iter().map(|one| one["pointer"].as_str().unwrap()).collect();
        assert_eq!(output, pointers, "{url}: {event}");
        assert!(!event.to_string().contains("hush"), "{event}");
    }
    taken(&receiver, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_proxy_gets_between_a_delivery_and_its_receiver() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    let (proxy, receiver) = (Receiver::start().await, Receiver::start().await);
    let launch = signing(worker("purger", broker, &prefix, &simulator))
        .env("GENFLEET_WEBHOOK_URL", &receiver.url())
        // The API has another name of this machine, for which the proxy is not used.
        .env("GENESYS_BASE_URL", &simulator.base_url().replace("127.0.0.1", "localhost"))
        .env("NO_PROXY", "localhost")
        .env("HTTP_PROXY", &proxy.url())
        .env("http_proxy", &proxy.url());
    let purger = launch.start();
    purger.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let job = json!({ "payload": { "paths": ["/a"] } }).to_string();
    amqp.publish_job(&prefix, "cdn.purge", job, json_properties()).await;
    taken(&receiver, 1).await;
    assert_eq!(proxy.connections(), 0);
    eventually(seconds(5), "the purge went out", async || simulator.purge_counts().contains_key("/a")).await;
}
