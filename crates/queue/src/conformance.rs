//! The promises of a queue (SPEC 5, 6), as one list of tests that runs on both backends.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout};
use uuid::Uuid;

use crate::{
    Consumer, Delivery, Destination, Publication, Queue, Settled,
    rabbit::{RabbitQueue, RabbitSettings, TopologyMode},
    sqlite::{Role, SqliteQueue},
};
use genfleet_job::message::{Headers, Lane, Message};
use genfleet_job::{Kind, clock::SystemClock};

mod dead_letters;
mod suspects;

const KIND: Kind = Kind::CdnPurge;
const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const SOON: Duration = Duration::from_secs(15);
const QUIET: Duration = Duration::from_millis(400);

/// A queue that can be opened again, as often as needed, on what it holds.
pub(super) enum Subject {
    Sqlite(std::path::PathBuf),
    Rabbit { url: String, prefix: String },
}

impl Subject {
    fn open(&self) -> Queue {
        match self {
            Self::Sqlite(path) => Queue::Sqlite(SqliteQueue::open(path, Role::Worker, Arc::new(SystemClock)).unwrap()),
            Self::Rabbit { url, prefix } => {
                Queue::Rabbit(RabbitQueue::connect(settings(url, prefix), Arc::new(SystemClock)).unwrap())
            }
        }
    }
}

fn settings(url: &str, prefix: &str) -> RabbitSettings {
    RabbitSettings {
        urls: vec![url.to_owned().into()],
        prefix: prefix.to_owned(),
        topology: TopologyMode::Declare,
        kinds: Vec::new(),
        ca_file: None,
        client_identity: None,
        name: "conformance".to_owned(),
        watchdog: Duration::from_secs(60),
    }
}

fn message(name: &str) -> Message {
    Message { body: format!("body of {name}").into(), message_id: Some(name.to_owned()), ..Message::default() }
}

fn to_lane(name: &str, lane: Lane, after: Duration) -> Publication {
    Publication { to: Destination::Lane { kind: KIND, lane, after }, message: message(name) }
}

async fn next(consumer: &mut Consumer) -> Delivery {
    timeout(SOON, consumer.next()).await.expect("a delivery")
}

async fn none_comes(consumer: &mut Consumer) {
    let came = timeout(QUIET, consumer.next()).await;
    assert!(came.is_err(), "unexpected: {:?}", came.unwrap().message.message_id);
}

fn name(delivery: &Delivery) -> &str {
    delivery.message.message_id.as_deref().unwrap()
}

async fn settle(delivery: Delivery, publications: Vec<Publication>) {
    assert_eq!(delivery.settler.settle(publications).await.unwrap(), Settled::Acknowledged);
}

async fn a_message_comes_out_as_it_went_in(subject: &Subject) {
    let queue = subject.open();
    let sent = Message {
        correlation_id: Some("question".into()),
        reply_to: Some("answers".into()),
        timestamp: Some(1_700_000_000),
        content_type: Some("application/json".into()),
        headers: Headers::from([
            ("traceparent".into(), TRACEPARENT.into()),
            ("genfleet-attempts".into(), 3_i64.into()),
            ("genfleet-state".into(), "{}".into()),
        ]),
        ..message("whole")
    };
    queue
        .publish(vec![Publication {
            to: Destination::Lane { kind: KIND, lane: Lane::Resume, after: Duration::ZERO },
            message: sent.clone(),
        }])
        .await
        .unwrap();
    let mut consumer = queue.consume(KIND, 8);
    let came = next(&mut consumer).await;
    assert_eq!((&came.message, came.lane, came.delivery_count), (&sent, Lane::Resume, 0));
    settle(came, vec![]).await;
    queue.close().await;
}

async fn headers_count_only_where_no_producer_can_set_them(subject: &Subject) {
    let queue = subject.open();
    let mut sent = message("forged");
    sent.headers =
        Headers::from([("traceparent".into(), TRACEPARENT.into()), ("genfleet-generation".into(), 9_i64.into())]);
    queue.publish(vec![Publication { to: Destination::Jobs(KIND), message: sent }]).await.unwrap();
    let mut consumer = queue.consume(KIND, 8);
    let came = next(&mut consumer).await;
    assert_eq!(came.lane, Lane::Jobs);
    assert_eq!(came.message.headers, Headers::from([("traceparent".into(), TRACEPARENT.into())]));
    settle(came, vec![]).await;
    queue.close().await;
}

async fn what_is_unsettled_comes_back_counted_and_what_is_settled_does_not(subject: &Subject) {
    let queue = subject.open();
    queue.publish(["kept", "gone"].map(|name| to_lane(name, Lane::Jobs, Duration::ZERO)).to_vec()).await.unwrap();
    let mut consumer = queue.consume(KIND, 8);
    let first = next(&mut consumer).await;
    let second = next(&mut consumer).await;
    let (kept, gone) = if name(&first) == "kept" { (first, second) } else { (second, first) };
    settle(gone, vec![]).await;
    queue.close().await;
    drop(kept);

    let queue = subject.open();
    let mut consumer = queue.consume(KIND, 8);
    let again = next(&mut consumer).await;
    assert_eq!((name(&again), again.delivery_count), ("kept", 1));
    settle(again, vec![]).await;
    none_comes(&mut consumer).await;
    queue.close().await;
}

async fn a_settlement_publishes(subject: &Subject) {
    let queue = subject.open();
    queue.publish(vec![to_lane("first round", Lane::Jobs, Duration::ZERO)]).await.unwrap();
    let mut consumer = queue.consume(KIND, 8);
    let first = next(&mut consumer).await;
    let event = Publication {
        to: Destination::Event { kind: KIND.to_string(), outcome: "succeeded" },
        message: message("event"),
    };
    settle(first, vec![to_lane("second round", Lane::Resume, Duration::ZERO), event]).await;
    let second = next(&mut consumer).await;
    assert_eq!((name(&second), second.lane), ("second round", Lane::Resume));
    settle(second, vec![]).await;
    none_comes(&mut consumer).await;
    queue.close().await;
}

async fn what_is_given_back_comes_again_counted(subject: &Subject) {
    let queue = subject.open();
    queue.publish(vec![to_lane("boomerang", Lane::Jobs, Duration::ZERO)]).await.unwrap();
    let mut consumer = queue.consume(KIND, 8);
    for delivery_count in 0..3 {
        let came = next(&mut consumer).await;
        assert_eq!(came.delivery_count, delivery_count);
        came.settler.give_back().await;
    }
    // Dropped without a word, as by a panic: the same.
    let came = next(&mut consumer).await;
    drop(came);
    let came = next(&mut consumer).await;
    assert_eq!(came.delivery_count, 4);
    settle(came, vec![]).await;
    queue.close().await;
}

async fn while_both_wait_every_second_start_is_a_begun_one(subject: &Subject) {
    let queue = subject.open();
    let lanes = [Lane::Jobs, Lane::Resume].into_iter();
    let publications =
        lanes.flat_map(|lane| (0..6).map(move |n| to_lane(&format!("{lane}-{n}"), lane, Duration::ZERO))).collect();
    queue.publish(publications).await.unwrap();
    let mut consumer = queue.consume(KIND, 16);
    // Until both lanes' messages have arrived, the order says nothing.
    tokio::time::sleep(QUIET).await;
    let mut lanes = Vec::new();
    for _ in 0..12 {
        let came = next(&mut consumer).await;
        lanes.push(came.lane);
        settle(came, vec![]).await;
    }
    let begun = lanes.iter().take(10).filter(|lane| **lane == Lane::Resume).count();
    assert!(begun >= 5, "{lanes:?}");
    queue.close().await;
}

async fn a_delayed_job_comes_in_its_time_and_not_before(subject: &Subject) {
    let queue = subject.open();
    let mut consumer = queue.consume(KIND, 8);
    let sent = Instant::now();
    queue
        .publish(vec![
            to_lane("late", Lane::Resume, Duration::from_secs(3)),
            to_lane("soon", Lane::Resume, Duration::from_secs(1)),
        ])
        .await
        .unwrap();
    for (expected, seconds) in [("soon", 1), ("late", 3)] {
        let came = next(&mut consumer).await;
        let waited = sent.elapsed();
        assert_eq!(name(&came), expected);
        assert!(
            waited > Duration::from_millis(seconds * 1000 - 50) && waited < Duration::from_secs(seconds + 4),
            "{expected}: {waited:?}"
        );
        settle(came, vec![]).await;
    }
    queue.close().await;
}

async fn probe(consumer: &mut Consumer) -> Delivery {
    let probe = async {
        loop {
            if let Some(probe) = consumer.take_one().await {
                break probe;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, probe).await.expect("one for a probe")
}

async fn a_closed_intake_takes_nothing_but_one_for_a_probe(subject: &Subject) {
    let queue = subject.open();
    let mut consumer = queue.consume(KIND, 2);
    queue.publish(vec![to_lane("taken", Lane::Jobs, Duration::ZERO)]).await.unwrap();
    let taken = next(&mut consumer).await;
    for held in consumer.pause().await {
        held.settler.give_back().await;
    }
    queue.publish(["one", "two"].map(|name| to_lane(name, Lane::Jobs, Duration::ZERO)).to_vec()).await.unwrap();
    none_comes(&mut consumer).await;
    let probe = probe(&mut consumer).await;
    settle(probe, vec![]).await;
    none_comes(&mut consumer).await;
    settle(taken, vec![]).await;
    consumer.resume();
    let rest = next(&mut consumer).await;
    settle(rest, vec![]).await;
    none_comes(&mut consumer).await;
    queue.close().await;
}

async fn no_more_than_the_concurrency_is_handed_out(subject: &Subject) {
    let queue = subject.open();
    queue.publish((0..10).map(|n| to_lane(&format!("many-{n}"), Lane::Jobs, Duration::ZERO)).collect()).await.unwrap();
    let mut consumer = queue.consume(KIND, 3);
    let mut held = Vec::new();
    while let Ok(delivery) = timeout(QUIET, consumer.next()).await {
        held.push(delivery);
    }
    assert_eq!(
        (held.len(), queue.count_unsettled(KIND), queue.count_unsettled(Kind::VniProvision)),
        (3, 3, 0),
        "and they are counted"
    );
    for delivery in held {
        settle(delivery, vec![]).await;
    }
    for _ in 0..7 {
        let delivery = next(&mut consumer).await;
        settle(delivery, vec![]).await;
    }
    assert_eq!(queue.count_unsettled(KIND), 0);
    queue.close().await;
}

/// The list. `RabbitMQ` is put to it by `rabbit::tests`, if there is a broker.
pub(super) async fn all(subject: Subject) {
    let subject = &subject;
    a_message_comes_out_as_it_went_in(subject).await;
    headers_count_only_where_no_producer_can_set_them(subject).await;
    what_is_unsettled_comes_back_counted_and_what_is_settled_does_not(subject).await;
    a_settlement_publishes(subject).await;
    what_is_given_back_comes_again_counted(subject).await;
    while_both_wait_every_second_start_is_a_begun_one(subject).await;
    a_delayed_job_comes_in_its_time_and_not_before(subject).await;
    suspects::suspects_come_apart_and_one_at_a_time(subject).await;
    a_closed_intake_takes_nothing_but_one_for_a_probe(subject).await;
    suspects::a_closed_intake_hands_out_no_suspect_but_the_last_one_for_a_probe(subject).await;
    no_more_than_the_concurrency_is_handed_out(subject).await;
    dead_letters::all(subject).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_queue_keeps_every_promise() {
    let path = std::env::temp_dir().join(format!("genfleet-conformance-{}.db", Uuid::new_v4()));
    all(Subject::Sqlite(path.clone())).await;
    SqliteQueue::remove(&path).unwrap();
}
