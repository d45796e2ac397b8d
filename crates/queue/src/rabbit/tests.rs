//! On a real broker: the one that `GENFLEET_TEST_AMQP_URL` names, under a fresh prefix each; skipped without.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use lapin::options::ExchangeDeleteOptions;
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::time::{sleep, timeout};

use self::{
    proxy::Proxy,
    rig::{Rig, event, job, lane, on_broker, reply, soon},
};
use super::{RabbitQueue, RabbitSettings, TopologyMode};
use crate::{Delivery, Destination, Health, Publication, QueueError, Settled, conformance, topology::topology};
use genfleet_job::{
    Kind,
    message::{HeaderValue, Lane, MAX_HEADER_BYTES, Message},
};

mod alone;
mod browse;
mod censor;
mod control;
mod dead_letters;
mod encrypted;
mod examining;
mod former;
mod hostile;
mod inspecting;
mod loss;
mod missing;
mod pausing;
mod proxy;
mod raw;
mod refusal;
mod replies;
mod rig;
mod rights;
mod topology_check;

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[tokio::test(flavor = "multi_thread")]
async fn every_promise_of_a_queue_is_kept() {
    on_broker(async |rig: Rig| {
        conformance::all(conformance::Subject::Rabbit { url: rig.url.clone(), prefix: rig.prefix.clone() }).await;
    })
    .await;
}

#[tokio::test]
async fn headers_at_their_limit_fit_into_a_publishing_frame() {
    on_broker(async |rig: Rig| {
        let queue = rig.queue();
        let consumer = queue.consume(Kind::CdnPurge, 1);
        let mut sent = job(&"i".repeat(255));
        sent.correlation_id = Some("c".repeat(255));
        sent.reply_to = Some("r".repeat(255));
        let room = MAX_HEADER_BYTES - "genfleet-state".len() - 6;
        sent.headers = [("genfleet-state".to_owned(), "s".repeat(room).into())].into();
        queue.publish(vec![lane(Lane::Resume, Duration::ZERO, sent.clone())]).await.unwrap();
        let delivery = soon(consumer.next()).await;
        assert_eq!(delivery.message, sent);
        delivery.settler.settle(vec![]).await.unwrap();
        queue.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_job_is_published_consumed_and_settled_with_what_follows_from_it() {
    on_broker(async |rig: Rig| {
        let queue = rig.queue();
        let consumer = queue.consume(Kind::CdnPurge, 4);
        let mut sent = job("a");
        sent.headers =
            [("genfleet-attempts".to_owned(), 3_i64.into()), ("traceparent".to_owned(), TRACEPARENT.into())].into();
        sent.reply_to = Some("someone".to_owned());
        sent.timestamp = Some(1_700_000_000);
        queue.publish(vec![lane(Lane::Resume, Duration::ZERO, sent.clone())]).await.unwrap();

        let delivery = soon(consumer.next()).await;
        assert_eq!((&delivery.message, delivery.lane, delivery.delivery_count), (&sent, Lane::Resume, 0));
        let settled = delivery.settler.settle(vec![event("a"), lane(Lane::Jobs, Duration::ZERO, job("b"))]).await;
        assert_eq!(settled.unwrap(), Settled::Acknowledged);

        let next = soon(consumer.next()).await;
        assert_eq!((next.message.message_id.as_deref(), next.lane), (Some("b"), Lane::Jobs));
        next.settler.settle(Vec::new()).await.unwrap();
        assert_eq!(rig.ready("events").await, 1);
        queue.close().await;
        assert_eq!((rig.ready("jobs.cdn.purge").await, rig.ready("resume.cdn.purge").await), (0, 0));
    })
    .await;
}

#[tokio::test]
async fn what_a_producer_forges_at_the_door_does_not_count() {
    on_broker(async |rig: Rig| {
        let queue = rig.queue();
        let consumer = queue.consume(Kind::CdnPurge, 4);
        let mut forged = job("a");
        forged.headers =
            [("genfleet-attempts".to_owned(), HeaderValue::Number(3)), ("x-delivery-count".to_owned(), 9_i64.into())]
                .into();
        queue.publish(vec![Publication { to: Destination::Jobs(Kind::CdnPurge), message: forged }]).await.unwrap();
        let delivery = soon(consumer.next()).await;
        assert_eq!((delivery.message, delivery.delivery_count), (job("a"), 0));
        queue.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_that_are_settled_together_are_acknowledged_and_no_others() {
    on_broker(async |rig: Rig| {
        let queue = rig.queue();
        let consumer = queue.consume(Kind::CdnPurge, 64);
        let lane_of = |number| if number % 3 == 0 { Lane::Resume } else { Lane::Jobs };
        let sent = (0..60).map(|number| lane(lane_of(number), Duration::ZERO, job(&number.to_string())));
        queue.publish(sent.collect()).await.unwrap();
        let mut groups = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
        for number in 0..60 {
            groups[number % 4].push(soon(consumer.next()).await);
        }
        let [first, second, unsettled, given_back] = groups;
        given_back.into_iter().for_each(drop);
        for group in [first, second] {
            let settling = group.into_iter().rev().map(|delivery| delivery.settler.settle(vec![event("e")]));
            for settled in join_all(settling).await {
                assert_eq!(settled.unwrap(), Settled::Acknowledged);
            }
        }
        queue.close().await;
        drop(unsettled);
        assert_eq!(rig.ready("jobs.cdn.purge").await + rig.ready("resume.cdn.purge").await, 30);
        assert_eq!(rig.ready("events").await, 30);
    })
    .await;
}

#[tokio::test]
async fn a_delay_is_kept_to_the_second() {
    on_broker(async |rig: Rig| {
        let queue = rig.queue();
        let consumer = queue.consume(Kind::FileScan, 8);
        soon(rig.declared()).await;
        let delayed = [5, 1, 3, 2].map(|seconds| {
            let to =
                Destination::Lane { kind: Kind::FileScan, lane: Lane::Resume, after: Duration::from_secs(seconds) };
            Publication { to, message: job(&seconds.to_string()) }
        });
        queue.publish(delayed.into()).await.unwrap();
        let began = Instant::now();
        for expected in [1, 2, 3, 5] {
            let delivery = timeout(Duration::from_secs(8), consumer.next()).await.unwrap();
            let took = began.elapsed();
            println!("a delay of {expected} s took {took:?}");
            assert_eq!(delivery.message.message_id, Some(expected.to_string()));
            assert!(
                took + Duration::from_millis(100) >= Duration::from_secs(expected)
                    && took < Duration::from_secs(expected + 1),
                "{took:?}"
            );
            assert!(delivery.message.headers.is_empty(), "no x-death: {:?}", delivery.message.headers);
            delivery.settler.settle(Vec::new()).await.unwrap();
        }
        queue.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_publications_are_confirmed_and_consumed() {
    on_broker(async |rig: Rig| {
        let queue = rig.queue();
        let body = bytes::Bytes::from(vec![b'x'; 300]);
        let message = |number: u32| Message { body: body.clone(), ..job(&number.to_string()) };
        let many: Vec<_> = (0..10_000).map(|number| lane(Lane::Jobs, Duration::ZERO, message(number))).collect();
        soon(rig.declared()).await;
        let began = Instant::now();
        queue.publish(many).await.unwrap();
        println!("10,000 publications confirmed in {:?}", began.elapsed());
        let consumer = queue.consume(Kind::CdnPurge, 256);
        let began = Instant::now();
        let settling = tokio_util::task::TaskTracker::new();
        for _ in 0..10_000 {
            let delivery = soon(consumer.next()).await;
            settling.spawn(async move {
                assert_eq!(delivery.settler.settle(Vec::new()).await.unwrap(), Settled::Acknowledged);
            });
        }
        settling.close();
        settling.wait().await;
        println!("10,000 deliveries acknowledged in {:?}", began.elapsed());
        queue.close().await;
        assert_eq!(rig.ready("jobs.cdn.purge").await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_broker_that_is_away_is_waited_for() {
    on_broker(async |rig: Rig| {
        let proxy = Proxy::closed(&rig).await;
        let queue = rig.queue_by(&proxy.url(&rig), TopologyMode::Declare);
        let publishing = tokio::spawn({
            let queue = queue.clone();
            async move { queue.publish(vec![event("a")]).await }
        });
        while !queue
            .health()
            .problems
            .iter()
            .any(|problem| problem.contains("(publish) since") && problem.contains("IO error"))
        {
            sleep(Duration::from_millis(20)).await;
        }
        proxy.open();
        timeout(Duration::from_secs(20), publishing).await.unwrap().unwrap().unwrap();
        assert_eq!(queue.health(), Health::default());
        queue.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_process_is_not_ready_before_what_it_uses_is_connected() {
    on_broker(async |rig: Rig| {
        let proxy = Proxy::closed(&rig).await;
        let queue = rig.queue_by(&proxy.url(&rig), TopologyMode::Declare);
        let down = |role: &str| queue.health().problems.iter().any(|problem| problem.contains(&format!("({role})")));
        assert!(down("publish") && !down("consume"), "at once, and only what is used: {:?}", queue.health());
        let _consumer = queue.consume(Kind::CdnPurge, 1);
        assert!(down("publish") && down("consume"), "at once: {:?}", queue.health());
        proxy.open();
        let up = async {
            while queue.health() != Health::default() {
                assert!(rig.looked("delay.15").await.is_some() || down("publish") || down("consume"));
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(20), up).await.unwrap();
        assert!(rig.looked("delay.15").await.is_some(), "the topology is there");
        queue.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_closed_queue_takes_nothing_and_did_not_fail() {
    on_broker(async |rig: Rig| {
        let queue = rig.queue();
        queue.publish(vec![event("a")]).await.unwrap();
        let began = Instant::now();
        queue.close().await;
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        assert!(matches!(queue.publish(vec![event("b")]).await, Err(QueueError::Closed)));
        assert!(timeout(Duration::from_millis(100), queue.wait_until_failed()).await.is_err());
    })
    .await;
}
