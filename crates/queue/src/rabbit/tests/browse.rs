//! Looking at a queue: nothing is lost, nothing changes its place, memory does not grow with it.

use super::{
    super::{browse::QueueReader, headers, inspect::RabbitInspector},
    raw::{Unreadable, publish_unreadable},
    *,
};
use crate::MessageDefect;

const QUEUE: &str = "dead.cdn.purge";

fn numbered(numbers: std::ops::Range<u32>) -> Vec<Publication> {
    let letter = |number: u32| {
        let message = Message { body: number.to_string().into(), ..job(&number.to_string()) };
        Publication { to: Destination::Dead { kind: "cdn.purge".to_owned() }, message }
    };
    numbers.map(letter).collect()
}

async fn inspector(rig: &Rig) -> RabbitInspector {
    RabbitInspector::connect(rig.settings(&rig.url, TopologyMode::Skip)).await.unwrap()
}

async fn reader(rig: &Rig, inspector: &RabbitInspector, portion: u16) -> QueueReader {
    QueueReader::begin(inspector.connection(), &format!("{}.{QUEUE}", rig.prefix), portion).await.unwrap()
}

/// Returns all bodies, as numbers, and leaves the messages in the queue.
async fn looked_at(rig: &Rig, inspector: &RabbitInspector, portion: u16) -> Vec<u32> {
    let mut reader = reader(rig, inspector, portion).await;
    let mut seen = Vec::new();
    while let Some(held) = reader.next().await.unwrap() {
        seen.push(String::from_utf8(held.delivery.data).unwrap().parse().unwrap());
        reader.keep(held.place);
    }
    reader.close().await.unwrap();
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_looks_leave_everything_there_and_in_its_order() {
    on_broker(async |rig: Rig| {
        let queue = rig.queue();
        queue.publish(numbered(0..1_000)).await.unwrap();
        let inspector = inspector(&rig).await;
        let all: Vec<u32> = (0..1_000).collect();
        for look in 0..100 {
            assert_eq!(looked_at(&rig, &inspector, 300).await, all, "look {look}");
        }
        assert_eq!(rig.ready(QUEUE).await, 1_000);
        queue.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_more_than_are_held_in_memory_keep_their_order_too() {
    on_broker(async |rig: Rig| {
        let queue = rig.queue();
        queue.publish(numbered(0..20_000)).await.unwrap();
        let inspector = inspector(&rig).await;
        let all: Vec<u32> = (0..20_000).collect();
        let began = Instant::now();
        for portion in [100, 2_000] {
            assert_eq!(looked_at(&rig, &inspector, portion).await, all, "portions of {portion}");
            println!("20,000 looked at in portions of {portion} after {:?}", began.elapsed());
        }
        assert_eq!(looked_at(&rig, &inspector, 2_000).await, all);
        queue.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_off_among_others_is_gone_and_they_keep_their_order() {
    on_broker(async |rig: Rig| {
        let queue = rig.queue();
        queue.publish(numbered(0..2_000)).await.unwrap();
        let inspector = inspector(&rig).await;
        let mut reader = reader(&rig, &inspector, 60).await;
        let mut number = 0;
        while let Some(held) = reader.next().await.unwrap() {
            match number % 3 {
                0 => reader.remove(&[held.place]).await.unwrap(),
                _ => reader.keep(held.place),
            }
            number += 1;
        }
        assert_eq!(number, 2_000);
        reader.close().await.unwrap();
        let rest: Vec<u32> = (0..2_000).filter(|number| number % 3 != 0).collect();
        assert_eq!(looked_at(&rig, &inspector, 300).await, rest);
        queue.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_that_stops_early_gives_all_back_in_its_order() {
    on_broker(async |rig: Rig| {
        let queue = rig.queue();
        queue.publish(numbered(0..500)).await.unwrap();
        let inspector = inspector(&rig).await;
        for stop in [1, 40, 170] {
            let mut reader = reader(&rig, &inspector, 60).await;
            for _ in 0..stop {
                let held = reader.next().await.unwrap().unwrap();
                reader.keep(held.place);
            }
            reader.close().await.unwrap();
            assert_eq!(rig.ready(QUEUE).await, 500);
        }
        assert_eq!(looked_at(&rig, &inspector, 300).await, (0..500).collect::<Vec<u32>>());
        queue.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_meanwhile_is_not_read() {
    on_broker(async |rig: Rig| {
        let queue = rig.queue();
        queue.publish(numbered(0..10)).await.unwrap();
        let inspector = inspector(&rig).await;
        let mut reader = reader(&rig, &inspector, 100).await;
        assert_eq!(reader.total(), 10);
        queue.publish(numbered(10..20)).await.unwrap();
        let mut seen = 0;
        while let Some(held) = reader.next().await.unwrap() {
            reader.keep(held.place);
            seen += 1;
        }
        assert_eq!(seen, 10);
        reader.close().await.unwrap();
        assert_eq!(looked_at(&rig, &inspector, 100).await, (0..20).collect::<Vec<u32>>());
        queue.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_at_once_neither_hangs_over_what_the_other_holds() {
    on_broker(async |rig: Rig| {
        let queue = rig.queue();
        queue.publish(numbered(0..50)).await.unwrap();
        let (one, other) = (inspector(&rig).await, inspector(&rig).await);
        let mut first = reader(&rig, &one, 20).await;
        let held = first.next().await.unwrap().unwrap();
        first.keep(held.place);
        let seen = looked_at(&rig, &other, 100).await;
        assert!(seen.len() < 50, "the first holds some: {seen:?}");
        first.close().await.unwrap();
        assert_eq!(rig.ready(QUEUE).await, 50);
        queue.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_cannot_be_handed_over_as_it_came_is_read_and_known() {
    on_broker(async |rig: Rig| {
        let queue = rig.queue();
        rig.declared().await;
        queue.publish(numbered(0..1)).await.unwrap();
        let exchange = format!("{}.dead", rig.prefix);
        let hostile = [Unreadable::Id, Unreadable::HeaderName, Unreadable::Key, Unreadable::Nested, Unreadable::Long];
        for what in hostile {
            publish_unreadable(&rig, &exchange, "cdn.purge", what).await;
        }
        queue.publish(numbered(6..7)).await.unwrap();
        let inspector = inspector(&rig).await;
        let mut reader = reader(&rig, &inspector, 100).await;
        let mut seen = Vec::new();
        while let Some(held) = reader.next().await.unwrap() {
            reader.keep(held.place);
            let properties = &held.delivery.properties;
            let id = properties.message_id().as_ref().map(ToString::to_string);
            let key = held.delivery.routing_key.to_string();
            seen.push((id.unwrap_or_default(), key, headers::defect(properties)));
        }
        reader.close().await.unwrap();
        let expected = [
            ("0", "cdn.purge", None),
            ("bad??", "cdn.purge", Some(MessageDefect::NotText)),
            ("good", "cdn.purge", Some(MessageDefect::NotText)),
            ("good", "?.cdn.purge", Some(MessageDefect::NotText)),
            ("good", "cdn.purge", Some(MessageDefect::TooDeep)),
            ("good", "cdn.purge", Some(MessageDefect::TooLong)),
            ("6", "cdn.purge", None),
        ];
        assert_eq!(seen, expected.map(|(id, key, defect)| (id.to_owned(), key.to_owned(), defect)));
        queue.close().await;
    })
    .await;
}
