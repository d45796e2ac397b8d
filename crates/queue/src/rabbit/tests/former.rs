//! A topology that an earlier version declared, or somebody filled with what makes no sense.

use lapin::{
    BasicProperties, ExchangeKind,
    options::{BasicPublishOptions, ExchangeDeclareOptions, QueuePurgeOptions},
    types::{AMQPValue, FieldTable},
};

use super::{super::BrokerExaminer, *};
use crate::topology::{Exchange, Routing};

/// Every exchange that this version declares otherwise, as it was declared before.
async fn declare_former(rig: &Rig) {
    let (connection, channel) = rig.channel().await;
    let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
    for exchange in topology(&rig.prefix).exchanges.iter().filter_map(Exchange::as_before) {
        let kind = if exchange.routing == Routing::Direct { ExchangeKind::Direct } else { ExchangeKind::Topic };
        let mut arguments = FieldTable::default();
        if !exchange.arguments.is_empty() {
            let unrouted = format!("{}.unrouted", rig.prefix);
            arguments.insert("alternate-exchange".into(), AMQPValue::LongString(unrouted.into()));
        }
        channel.exchange_declare(exchange.name.as_str().into(), kind, durable, arguments).await.unwrap();
    }
    connection.close(200, "".into()).await.unwrap();
}

async fn publish(rig: &Rig, exchange: &str, key: &str) {
    let (connection, channel) = rig.channel().await;
    channel.confirm_select(lapin::options::ConfirmSelectOptions::default()).await.unwrap();
    let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default().with_delivery_mode(2));
    channel.basic_publish(exchange.into(), key.into(), options, b"{}", properties).await.unwrap().await.unwrap();
    connection.close(200, "".into()).await.unwrap();
}

#[tokio::test]
async fn what_an_earlier_version_declared_works_on_and_is_told() {
    on_broker(async |rig: Rig| {
        declare_former(&rig).await;
        for mode in [TopologyMode::Declare, TopologyMode::Verify] {
            let queue = rig.queue_by(&rig.url, mode);
            let consumer = queue.consume(Kind::CdnPurge, 1);
            soon(queue.publish(vec![lane(Lane::Resume, Duration::from_secs(1), job("later"))])).await.unwrap();
            publish(&rig, &format!("{}.jobs", rig.prefix), "cdn.purge").await;
            for _ in 0..2 {
                soon(consumer.next()).await.settler.settle(Vec::new()).await.unwrap();
            }
            assert_eq!(queue.health(), Health::default(), "{mode:?}");
            queue.close().await;
        }
        let settings = rig.settings(&rig.url, TopologyMode::Verify);
        let examiner = BrokerExaminer::connect(&settings).await.unwrap().remove(0).outcome.unwrap();
        let compared = examiner.compare().await.unwrap();
        assert_eq!((compared.different, compared.missing, compared.former.len()), (vec![], vec![], 17));
        examiner.close().await;
    })
    .await;
}

#[tokio::test]
async fn an_exchange_that_is_neither_is_named_as_what_it_should_be() {
    on_broker(async |rig: Rig| {
        let (connection, channel) = rig.channel().await;
        let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
        let name = format!("{}.jobs", rig.prefix);
        channel
            .exchange_declare(name.as_str().into(), ExchangeKind::Fanout, durable, FieldTable::default())
            .await
            .unwrap();
        connection.close(200, "".into()).await.unwrap();
        let queue = rig.queue();
        let problem = refusal::until_told(&queue, &["(publish)", &name, "inequivalent arg 'type'", "remedy"]).await;
        assert!(problem.contains("received 'topic'"), "{problem}");
        queue.close().await;
    })
    .await;
}

/// As many as a step hands on at once, and more: they went to the end of the queue and of all behind them.
#[tokio::test]
async fn what_makes_no_sense_stops_no_step_of_the_delays() {
    on_broker(async |rig: Rig| {
        let queue = rig.queue();
        let consumer = queue.consume(Kind::CdnPurge, 1);
        soon(rig.declared()).await;
        let (step, unrouted) = (format!("{}.delay.00", rig.prefix), format!("{}.unrouted", rig.prefix));
        let (connection, channel) = rig.channel().await;
        let upper = format!("{}.delay.01", rig.prefix);
        for number in 0..80 {
            // By hand into a queue, and into an exchange by a key with nothing below.
            let (exchange, key) =
                if number % 2 == 0 { ("", step.as_str()) } else { (upper.as_str(), "0.0.0.0.0.0.0.0.0.0.0.0.0.0.1") };
            let properties = BasicProperties::default().with_delivery_mode(2);
            channel
                .basic_publish(exchange.into(), key.into(), BasicPublishOptions::default(), b"?", properties)
                .await
                .unwrap();
        }
        soon(queue.publish(vec![lane(Lane::Resume, Duration::from_secs(3), job("later"))])).await.unwrap();
        let delivery = soon(consumer.next()).await;
        assert_eq!(delivery.message.message_id.as_deref(), Some("later"));
        delivery.settler.settle(Vec::new()).await.unwrap();
        while rig.ready("unrouted").await < 80 {
            sleep(Duration::from_millis(50)).await;
        }
        channel.queue_purge(unrouted.into(), QueuePurgeOptions::default()).await.unwrap();
        connection.close(200, "".into()).await.unwrap();
        queue.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_begun_job_that_comes_out_of_the_delays_is_counted_where_it_went_in() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    let _local = metrics::set_default_local_recorder(&recorder);
    on_broker(async move |rig: Rig| {
        let queue = rig.queue();
        let consumer = queue.consume(Kind::CdnPurge, 2);
        for lane_of in [Lane::Resume, Lane::Jobs] {
            queue.publish(vec![lane(lane_of, Duration::from_secs(3), job("a"))]).await.unwrap();
        }
        for _ in 0..2 {
            soon(consumer.next()).await.settler.settle(Vec::new()).await.unwrap();
        }
        let shown = metrics.render();
        let line = "genfleet_delays_ended_total{kind=\"cdn.purge\",queue=\"01\"} 1\n";
        assert!(shown.contains(line), "once, and not the new one: {shown}");
        queue.close().await;
    })
    .await;
}
