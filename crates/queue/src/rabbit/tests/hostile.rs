//! What a producer can send and lapin cannot take: handed over all the same, known, beside untouched neighbours.

use std::collections::BTreeMap;

use lapin::{BasicProperties, options::BasicPublishOptions, types::AMQPValue};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::{
    raw::{Unreadable, answer, frame, long, method, publish_unreadable},
    *,
};
use crate::MessageDefect;

const ALL: [(Unreadable, MessageDefect); 6] = [
    (Unreadable::Id, MessageDefect::NotText),
    (Unreadable::HeaderName, MessageDefect::NotText),
    (Unreadable::Key, MessageDefect::NotText),
    (Unreadable::Nested, MessageDefect::TooDeep),
    (Unreadable::Wide, MessageDefect::TooMany),
    (Unreadable::Long, MessageDefect::TooLong),
];

/// How often each flaw comes.
fn counted(flaws: impl IntoIterator<Item = MessageDefect>) -> BTreeMap<&'static str, usize> {
    flaws.into_iter().fold(BTreeMap::new(), |mut counted, defect| {
        *counted.entry(defect.as_str()).or_default() += 1;
        counted
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn no_message_ends_a_session_or_has_its_neighbours_counted() {
    on_broker(async |rig: Rig| {
        let queue = rig.queue();
        soon(rig.declared()).await;
        // By an exchange that takes any word before the key.
        let exchange = format!("{}.work", rig.prefix);
        for (what, _) in ALL {
            publish_unreadable(&rig, &exchange, "cdn.purge.resume", what).await;
            queue.publish(vec![lane(Lane::Resume, Duration::ZERO, job("good"))]).await.unwrap();
        }
        let consumer = queue.consume(Kind::CdnPurge, 32);
        let (mut defective, mut good) = (Vec::new(), 0);
        while defective.len() < ALL.len() || good < ALL.len() {
            let delivery = soon(consumer.next()).await;
            assert_eq!(delivery.delivery_count, 0, "{:?}", delivery.defect);
            if delivery.defect.is_some() {
                defective.push(delivery);
                continue;
            }
            good += 1;
            assert_eq!(delivery.message, job("good"));
            delivery.settler.settle(Vec::new()).await.unwrap();
        }
        let expected = counted(ALL.map(|(_, defect)| defect));
        assert_eq!(counted(defective.iter().filter_map(|delivery| delivery.defect)), expected);

        // With a count of the broker's own, which makes them longer.
        for delivery in defective {
            delivery.settler.give_back().await;
        }
        let mut again = Vec::new();
        for _ in ALL {
            let delivery = soon(consumer.next()).await;
            assert_eq!(delivery.delivery_count, 1, "{:?}", delivery.defect);
            again.extend(delivery.defect);
            delivery.settler.settle(Vec::new()).await.unwrap();
        }
        assert_eq!(counted(again), expected);
        queue.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gossip_goes_on_beside_whatever_is_sent_to_it() {
    on_broker(async |rig: Rig| {
        let queue = rig.queue();
        soon(rig.declared()).await;
        let mut control = soon(queue.control_channel(&["#".to_owned()])).await.unwrap();
        for (what, _) in ALL {
            publish_unreadable(&rig, &format!("{}.control", rig.prefix), "ask", what).await;
            assert_eq!(soon(control.next()).await.unwrap(), "{}", "{what:?}");
        }
        control.publish("ask", "anybody?".to_owned()).await.unwrap();
        assert_eq!(soon(control.next()).await.unwrap(), "anybody?");
        control.close().await;
        queue.close().await;
    })
    .await;
}

/// lapin would make room for 64 frames of any length.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_with_no_limit_or_a_huge_one_is_asked_for_frames_of_128_kib() {
    for limit in [0, u32::MAX] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("amqp://{}", listener.local_addr().unwrap());
        let rig = Rig { url: url.clone(), prefix: "t".to_owned(), queues: Arc::default() };
        let broker = crate::rabbit::connect::BrokerHosts::new(&rig.settings(&url, TopologyMode::Skip)).unwrap();
        let dialling = tokio::spawn(async move { broker.connect(&broker.hosts()[0], "inspect").await.map(drop) });
        let (mut there, _) = soon(listener.accept()).await.unwrap();
        there.read_exact(&mut [0; 8]).await.unwrap();
        let start = [method(10, 10), vec![0, 9], long(b""), long(b"PLAIN"), long(b"en_US")].concat();
        there.write_all(&frame(1, 0, &start)).await.unwrap();
        soon(answer(&mut there)).await;
        let tune = [method(10, 30), vec![0, 0], limit.to_be_bytes().to_vec(), vec![0, 60]].concat();
        there.write_all(&frame(1, 0, &tune)).await.unwrap();
        let tune_ok = soon(answer(&mut there)).await;
        assert_eq!(tune_ok[6..10], 131_072_u32.to_be_bytes(), "{limit}");
        drop(there);
        assert!(soon(dialling).await.unwrap().is_err());
    }
}

/// A producer's rights are to routing keys; the broker compares them with the key, not with `CC` and `BCC`.
#[tokio::test]
async fn a_job_that_came_to_another_kind_by_cc_is_known_for_it() {
    on_broker(async |rig: Rig| {
        let queue = rig.queue();
        soon(rig.declared()).await;
        let (purges, scans) = (queue.consume(Kind::CdnPurge, 4), queue.consume(Kind::FileScan, 4));
        let (connection, channel) = rig.channel().await;
        for header in ["CC", "BCC"] {
            let others = vec![AMQPValue::LongString("file.scan".into())];
            let table = BTreeMap::from([(header.into(), AMQPValue::FieldArray(others.into()))]);
            let properties = BasicProperties::default().with_message_id("a".into()).with_headers(table.into());
            let door = format!("{}.jobs", rig.prefix);
            let options = BasicPublishOptions::default();
            let sent = channel.basic_publish(door.as_str().into(), "cdn.purge".into(), options, b"{}", properties);
            sent.await.unwrap().await.unwrap();
            let (purge, scan) = (soon(purges.next()).await, soon(scans.next()).await);
            assert_eq!((purge.defect, scan.defect), (None, Some(MessageDefect::OtherKey)), "{header}");
            purge.settler.settle(Vec::new()).await.unwrap();
            scan.settler.settle(Vec::new()).await.unwrap();
        }
        connection.close(200, "".into()).await.unwrap();
        queue.close().await;
    })
    .await;
}

/// Whatever an administrator bound or sent by hand.
#[tokio::test]
async fn a_job_of_an_internal_kind_that_none_of_us_made_is_known_for_it() {
    on_broker(async |rig: Rig| {
        let queue = rig.queue();
        soon(rig.declared()).await;
        let hooks = queue.consume(Kind::WebhookDeliver, 4);
        let (connection, channel) = rig.channel().await;
        let direct = (String::new(), format!("{}.jobs.webhook.deliver", rig.prefix));
        let ours = (format!("{}.work", rig.prefix), "webhook.deliver".to_owned());
        for ((exchange, key), defect) in [(direct, Some(MessageDefect::OtherKey)), (ours, None)] {
            let properties = BasicProperties::default().with_message_id("a".into());
            let options = BasicPublishOptions::default();
            let sent = channel.basic_publish(exchange.as_str().into(), key.as_str().into(), options, b"{}", properties);
            sent.await.unwrap().await.unwrap();
            let hook = soon(hooks.next()).await;
            assert_eq!(hook.defect, defect, "{exchange:?}");
            hook.settler.settle(Vec::new()).await.unwrap();
        }
        connection.close(200, "".into()).await.unwrap();
        queue.close().await;
    })
    .await;
}
