//! Dead letters when connections go away, and what the broker itself dead-letters.

use std::collections::BTreeMap;

use lapin::{
    BasicProperties,
    options::{BasicGetOptions, BasicNackOptions, BasicPublishOptions, QueueDeleteOptions},
    types::{AMQPValue, FieldTable},
};

use super::*;
use crate::{
    QueueInspector, QueueLocation,
    dead_letters::{DeadLetter, DeadLetterQueue, Removal},
};

const DEAD: DeadLetterQueue = DeadLetterQueue::Dead(Kind::CdnPurge);

fn letter(id: &str) -> Publication {
    Publication { to: Destination::Dead { kind: "cdn.purge".to_owned() }, message: job(id) }
}

fn dead_letters(rig: &Rig, url: &str) -> QueueInspector {
    connect(rig.settings(url, TopologyMode::Skip))
}

fn connect(settings: RabbitSettings) -> QueueInspector {
    let clock = Arc::new(genfleet_job::clock::SystemClock);
    QueueInspector::open(QueueLocation::Broker(Box::new(settings)), clock).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_published_and_not_taken_off_is_known_again_and_not_published_twice() {
    on_broker(async |rig: Rig| {
        let queue = rig.queue();
        queue.publish(vec![letter("a"), letter("a"), letter("b")]).await.unwrap();
        let proxy = Proxy::opened(&rig).await;
        let dead_letters = dead_letters(&rig, &proxy.url(&rig));
        let mut browser = dead_letters.browse(DEAD, 1).await.unwrap();
        let found = browser.next().await.unwrap().unwrap();
        let publication = Some(DeadLetter::read(found.clone()).redrive(Kind::CdnPurge, "ann@ops"));
        proxy.cut();
        let lost = browser.remove(vec![Removal { stored: found, publication }]).await;
        assert!(matches!(lost, Err(QueueError::Broker(_))), "{lost:?}");
        drop(browser);
        assert_eq!(rig.ready("jobs.cdn.purge").await, 1, "published by a connection of its own");

        while rig.ready("dead.cdn.purge").await < 3 {
            sleep(Duration::from_millis(20)).await;
        }
        let mut browser = dead_letters.browse(DEAD, 1).await.unwrap();
        let mut before = Vec::new();
        while let Some(stored) = browser.next().await.unwrap() {
            before.push(stored.published_before);
            if stored.published_before {
                browser.remove(vec![Removal { stored, publication: None }]).await.unwrap();
            } else {
                browser.keep(&stored);
            }
        }
        browser.close().await.unwrap();
        assert_eq!(before, [true, false, false], "one of two that are the same");
        assert_eq!((rig.ready("dead.cdn.purge").await, rig.ready("jobs.cdn.purge").await), (2, 1));
        let mut browser = dead_letters.browse(DEAD, 1).await.unwrap();
        while let Some(stored) = browser.next().await.unwrap() {
            assert!(!stored.published_before);
        }
        browser.close().await.unwrap();
        dead_letters.close().await;
        queue.close().await;
    })
    .await;
}

/// With `--topology verify`. Without the queue, the broker would take the message and route it to the unrouted ones.
#[tokio::test(flavor = "multi_thread")]
async fn a_redrive_needs_the_queues_of_the_kind_that_is_redriven_and_of_no_other() {
    on_broker(async |rig: Rig| {
        let queue = rig.queue();
        queue.publish(vec![letter("a"), letter("b")]).await.unwrap();
        queue.close().await;
        let (connection, channel) = rig.channel().await;
        let gone = format!("{}.jobs.file.scan", rig.prefix);
        channel.queue_delete(gone.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
        let verifying = RabbitSettings { kinds: Vec::new(), ..rig.settings(&rig.url, TopologyMode::Verify) };
        let dead_letters = connect(verifying);
        let mut browser = dead_letters.browse(DEAD, 1).await.unwrap();
        let mut redriven_as = async |kind: Kind| {
            let stored = browser.next().await.unwrap().unwrap();
            let publication = Some(DeadLetter::read(stored.clone()).redrive(kind, "ann@ops"));
            timeout(Duration::from_secs(2), browser.remove(vec![Removal { stored, publication }])).await
        };
        assert!(matches!(redriven_as(Kind::CdnPurge).await, Ok(Ok(1))));
        assert!(redriven_as(Kind::FileScan).await.is_err(), "it waits for the queue");
        let trouble = dead_letters.trouble().unwrap();
        assert!(trouble.contains(&gone), "{trouble}");
        drop(browser);
        dead_letters.close().await;
        assert_eq!((rig.ready("jobs.cdn.purge").await, rig.ready("unrouted").await), (1, 0));
        let _ = connection.close(200, "".into()).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_broker_gave_up_is_told_as_its_doing() {
    on_broker(async |rig: Rig| {
        let queue = rig.queue();
        rig.declared().await;
        let (connection, channel) = rig.channel().await;
        let forged = FieldTable::from(BTreeMap::from([
            ("genfleet-generation".into(), AMQPValue::LongInt(7)),
            ("genfleet-reason".into(), AMQPValue::LongString("none of yours".into())),
        ]));
        let properties = BasicProperties::default().with_delivery_mode(2).with_headers(forged);
        let publish = async |properties: BasicProperties| {
            let door = format!("{}.jobs", rig.prefix).into();
            let options = BasicPublishOptions::default();
            channel.basic_publish(door, "cdn.purge".into(), options, b"{}", properties).await.unwrap();
        };
        publish(properties.clone()).await;
        let work = format!("{}.jobs.cdn.purge", rig.prefix);
        for _ in 0..=20 {
            let got = loop {
                if let Some(got) = channel.basic_get(work.as_str().into(), BasicGetOptions::default()).await.unwrap() {
                    break got;
                }
            };
            let back = BasicNackOptions { requeue: true, multiple: false };
            channel.basic_nack(got.delivery.delivery_tag, back).await.unwrap();
        }
        while rig.ready("dead.cdn.purge").await < 1 {
            sleep(Duration::from_millis(20)).await;
        }
        publish(properties.with_expiration("1".into())).await;
        while rig.ready("dead.cdn.purge").await < 2 {
            sleep(Duration::from_millis(20)).await;
        }
        let dead_letters = dead_letters(&rig, &rig.url);
        let mut browser = dead_letters.browse(DEAD, 0).await.unwrap();
        let mut reasons = Vec::new();
        while let Some(stored) = browser.next().await.unwrap() {
            browser.keep(&stored);
            let letter = DeadLetter::read(stored);
            assert_eq!((letter.generation, letter.stored.is_ours), (0, false), "a producer wrote it");
            assert!(letter.failed_at.is_some() && letter.error.contains(&work), "{letter:?}");
            reasons.push(letter.reason);
        }
        browser.close().await.unwrap();
        assert_eq!(reasons, ["broker:delivery_limit", "broker:expired"]);
        dead_letters.close().await;
        let _ = connection.close(200, "".into()).await;
        queue.close().await;
    })
    .await;
}

/// The broker (3.10) takes a producer's account of a death of the same queue and reason for its own, and goes on in it.
#[tokio::test(flavor = "multi_thread")]
async fn a_forged_account_of_deaths_makes_nobody_one_of_us() {
    on_broker(async |rig: Rig| {
        let queue = rig.queue();
        rig.declared().await;
        let (connection, channel) = rig.channel().await;
        let text = |text: &str| AMQPValue::LongString(text.into());
        let (work, door) = (format!("{}.work", rig.prefix), format!("{}.jobs", rig.prefix));
        let account = FieldTable::from(BTreeMap::from([
            ("queue".into(), text(&format!("{door}.cdn.purge"))),
            ("reason".into(), text("expired")),
            ("exchange".into(), text(&work)),
            ("count".into(), AMQPValue::LongLongInt(0)),
        ]));
        let forged = FieldTable::from(BTreeMap::from([
            ("x-death".into(), AMQPValue::FieldArray(vec![AMQPValue::FieldTable(account)].into())),
            ("genfleet-generation".into(), AMQPValue::LongInt(7)),
            ("genfleet-producer".into(), text("somebody-else")),
        ]));
        let properties = BasicProperties::default().with_headers(forged).with_expiration("0".into());
        let options = BasicPublishOptions::default();
        channel.basic_publish(door.as_str().into(), "cdn.purge".into(), options, b"{}", properties).await.unwrap();
        while rig.ready("dead.cdn.purge").await < 1 {
            sleep(Duration::from_millis(20)).await;
        }
        let dead_letters = dead_letters(&rig, &rig.url);
        let mut browser = dead_letters.browse(DEAD, 0).await.unwrap();
        let found = browser.next().await.unwrap().unwrap();
        assert!(!found.is_ours && !found.is_foreign, "{found:?}");
        assert_eq!(found.message.headers, genfleet_job::message::Headers::new(), "nothing of it goes along");
        browser.close().await.unwrap();
        dead_letters.close().await;
        let _ = connection.close(200, "".into()).await;
        queue.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_matched_no_queue_tells_its_exchange_and_key() {
    on_broker(async |rig: Rig| {
        let queue = rig.queue();
        rig.declared().await;
        let (connection, channel) = rig.channel().await;
        let (door, options) = (format!("{}.jobs", rig.prefix), BasicPublishOptions::default());
        let properties = BasicProperties::default();
        channel.basic_publish(door.as_str().into(), "cdn.prune".into(), options, b"{}", properties).await.unwrap();
        while rig.ready("unrouted").await < 1 {
            sleep(Duration::from_millis(20)).await;
        }
        let dead_letters = dead_letters(&rig, &rig.url);
        let mut browser = dead_letters.browse(DeadLetterQueue::Unrouted, 0).await.unwrap();
        let found = browser.next().await.unwrap().unwrap();
        assert_eq!((found.exchange.as_str(), found.routing_key.as_str()), (door.as_str(), "cdn.prune"));
        assert!(!found.is_ours);
        browser.close().await.unwrap();
        let elsewhere = rig.settings(&rig.url, TopologyMode::Skip);
        let elsewhere = connect(RabbitSettings { prefix: "no-such-prefix".into(), ..elsewhere });
        let missing = elsewhere.browse(DEAD, 0).await.map(drop);
        assert!(matches!(missing, Err(QueueError::Missing(_))), "{missing:?}");
        dead_letters.close().await;
        let _ = connection.close(200, "".into()).await;
        queue.close().await;
    })
    .await;
}
