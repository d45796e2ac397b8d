//! Tests of the harness itself, so that other failing tests are caused by the product.

use harness::{Amqp, Broker, Events, Prefix, Process, eventually, headers, json_properties, seconds};
use lapin::{
    ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};

#[tokio::test]
async fn the_shared_broker_takes_ten_thousand_jobs() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let amqp = Amqp::connect(broker.url()).await;
    let queue = declare_jobs(&amqp, &prefix).await;

    let jobs = (0..10_000).map(|n| (format!(r#"{{"payload":{n}}}"#), json_properties()));
    amqp.publish_jobs(&prefix, "cdn.purge", jobs).await;
    assert_eq!(amqp.count(&queue).await, 10_000);
    assert_eq!(amqp.try_count(&format!("{prefix}.nothing")).await, None);
}

#[tokio::test]
async fn looking_at_a_queue_leaves_everything_in_it() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let amqp = Amqp::connect(broker.url()).await;
    let queue = declare_jobs(&amqp, &prefix).await;
    let properties = json_properties().with_headers(headers([("genfleet-reason", "rejected")]));
    amqp.publish_job(&prefix, "cdn.purge", r#"{"a":1}"#, properties).await;
    amqp.publish_job(&prefix, "cdn.purge", "not json", json_properties()).await;

    for _ in 0..2 {
        let messages = amqp.get_all(&queue).await;
        assert_eq!(messages.len(), 2);
        assert_eq!(messages[0].json()["a"], 1);
        assert_eq!(messages[0].header("genfleet-reason").as_deref(), Some("rejected"));
        assert_eq!(messages[0].routing_key, "cdn.purge");
        assert_eq!(messages[1].body, b"not json");
        eventually(seconds(5), "both are back", async || amqp.count(&queue).await == 2).await;
    }
}

#[tokio::test]
async fn a_dropped_prefix_leaves_no_queue_behind() {
    let broker = Broker::shared().await;
    let amqp = Amqp::connect(broker.url()).await;
    let prefix = Prefix::on(broker);
    let queue = declare_jobs(&amqp, &prefix).await;
    drop(prefix);
    assert_eq!(amqp.try_count(&queue).await, None);
}

#[tokio::test]
async fn a_private_broker_is_killed_stopped_and_restarted_on_its_data() {
    let Some(mut broker) = Broker::private().await else {
        return;
    };
    let prefix = Prefix::on(&broker);
    let amqp = Amqp::connect(broker.url()).await;
    declare_events(&amqp, &prefix).await;
    let mut own = amqp.declare_events_queue(&prefix).await;
    let mut events = Events::reconnecting(broker.url(), &prefix).await;
    publish_event(&amqp, &prefix, 1).await;
    assert_eq!(own.next_event(seconds(5)).await["n"], 1);
    assert_eq!(events.next_event(seconds(5)).await["n"], 1);

    broker.kill().await;
    assert!(Amqp::try_connect(broker.url()).await.is_err());
    broker.start().await;
    let amqp = Amqp::connect(broker.url()).await;
    publish_event(&amqp, &prefix, 2).await;

    broker.stop().await;
    broker.start().await;
    let amqp = Amqp::connect(broker.url()).await;
    publish_event(&amqp, &prefix, 3).await;
    eventually(seconds(30), "the last event has come", async || events.next_event(seconds(30)).await["n"] == 3).await;
}

#[tokio::test]
async fn a_disk_alarm_blocks_publishers_until_it_is_lifted() {
    let Some(broker) = Broker::private().await else {
        return;
    };
    let prefix = Prefix::on(&broker);
    let amqp = Amqp::connect(broker.url()).await;
    let queue = declare_jobs(&amqp, &prefix).await;

    broker.ctl(&["set_disk_free_limit", "100000GB"]).await;
    let publishing = amqp.publish_job(&prefix, "cdn.purge", "{}", json_properties());
    tokio::pin!(publishing);
    let confirmed = tokio::time::timeout(seconds(1), &mut publishing).await;
    assert!(confirmed.is_err(), "confirmed under an alarm");
    assert_eq!(Amqp::connect(broker.url()).await.count(&queue).await, 0);

    broker.ctl(&["set_disk_free_limit", "50MB"]).await;
    publishing.await;
    assert_eq!(amqp.count(&queue).await, 1);
}

#[tokio::test]
async fn a_process_is_started_and_its_end_is_reported() {
    let tool = Process::binary("genfleet").args(["--help"]).start();
    assert_eq!(tool.wait(seconds(10)).await, 0);
    assert!(!tool.is_running());
}

async fn declare_jobs(amqp: &Amqp, prefix: &str) -> String {
    let queue = format!("{prefix}.jobs.cdn.purge");
    let exchange = format!("{prefix}.jobs");
    let (arguments, options) = (FieldTable::default(), durable_exchange());
    let channel = amqp.channel();
    channel.exchange_declare(exchange.as_str().into(), ExchangeKind::Direct, options, arguments).await.unwrap();
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let options = QueueDeclareOptions::durable();
    channel.queue_declare(queue.as_str().into(), options, arguments).await.unwrap();
    let options = QueueBindOptions::default();
    channel
        .queue_bind(queue.as_str().into(), exchange.into(), "cdn.purge".into(), options, FieldTable::default())
        .await
        .unwrap();
    queue
}

async fn declare_events(amqp: &Amqp, prefix: &str) {
    let (exchange, options) = (format!("{prefix}.events"), durable_exchange());
    let declared =
        amqp.channel().exchange_declare(exchange.into(), ExchangeKind::Topic, options, FieldTable::default());
    declared.await.unwrap();
}

async fn publish_event(amqp: &Amqp, prefix: &str, n: u32) {
    let (exchange, body) = (format!("{prefix}.events"), format!(r#"{{"n":{n}}}"#));
    amqp.publish_raw(&exchange, "cdn.purge.succeeded", body, json_properties()).await;
}

fn durable_exchange() -> ExchangeDeclareOptions {
    ExchangeDeclareOptions { durable: true, ..Default::default() }
}
