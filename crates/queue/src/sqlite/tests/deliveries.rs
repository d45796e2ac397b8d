//! Handing out, settling and giving back.

use std::{collections::BTreeSet, task::Poll};

use tokio::{sync::Semaphore, task::JoinSet};

use super::*;
use crate::Settled;
use genfleet_job::message::HeaderValue;

#[tokio::test]
async fn a_settled_job_is_gone_and_what_it_published_is_there() {
    let folder = Folder::new();
    let queue = folder.worker();
    let mut consumer = queue.consume(KIND, 4);
    queue.publish(vec![new_job("job")]).await.unwrap();
    let delivery = next(&mut consumer).await;
    assert_eq!((text(&delivery).as_str(), delivery.lane, delivery.delivery_count), ("job", Lane::Jobs, 0));
    let reply = Publication { to: Destination::Reply { queue: "gone".to_owned() }, message: message("reply") };
    let settled = delivery.settler.settle(vec![event("event"), dead("unknown", "job"), reply]).await.unwrap();
    assert_eq!(settled, Settled::Acknowledged);
    assert_eq!(queue.count_unfinished().await.unwrap(), 0);
    assert_eq!(queue.events_after(0, 10).await.unwrap()[0].key, "file.scan.succeeded");
    assert_eq!(queue.dead_letters(Some("unknown"), 0, 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_message_comes_out_as_it_went_in() {
    let folder = Folder::new();
    let queue = folder.worker();
    let mut publication = lane(Lane::Jobs, Duration::ZERO, "");
    let headers = [
        ("genfleet-attempts", HeaderValue::Number(-3)),
        ("genfleet-state", HeaderValue::from("{\"a\":\"ü\"}")),
        ("genfleet-number-as-text", HeaderValue::from("7")),
        ("traceparent", HeaderValue::from("00-1-2-01")),
    ];
    publication.message = Message {
        body: Bytes::from_static(b"\xff\x00 no text"),
        message_id: Some("m".to_owned()),
        correlation_id: Some("c".to_owned()),
        reply_to: Some("r".to_owned()),
        timestamp: Some(u64::MAX),
        content_type: Some("application/json".to_owned()),
        headers: headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
    };
    queue.publish(vec![publication.clone()]).await.unwrap();
    assert_eq!(next(&mut queue.consume(KIND, 1)).await.message, publication.message);
}

#[tokio::test]
async fn a_producers_genfleet_headers_do_not_count() {
    let folder = Folder::new();
    let queue = folder.worker();
    let mut publication = new_job("job");
    for name in ["genfleet-attempts", "genfleet-state", "traceparent", "tracestate", "x-death"] {
        publication.message.headers.insert(name.to_owned(), "1".into());
    }
    queue.publish(vec![publication]).await.unwrap();
    let delivery = next(&mut queue.consume(KIND, 1)).await;
    assert_eq!(delivery.message.headers.into_keys().collect::<Vec<_>>(), ["traceparent", "tracestate"]);
}

#[tokio::test]
async fn no_more_are_handed_out_than_may_be_unsettled() {
    let folder = Folder::new();
    let queue = folder.worker();
    let mut consumer = queue.consume(KIND, 3);
    queue.publish((0..10).map(|number| new_job(&number.to_string())).collect()).await.unwrap();
    let mut held = vec![next(&mut consumer).await, next(&mut consumer).await, next(&mut consumer).await];
    assert!(nothing(&mut consumer).await);
    assert_eq!(queue.counts().await.unwrap().lanes[&(KIND, Lane::Jobs)].claimed, 3);
    held.remove(1).settler.settle(Vec::new()).await.unwrap();
    held.push(next(&mut consumer).await);
    assert_eq!(held.iter().map(text).collect::<Vec<_>>(), ["0", "2", "3"]);
    assert!(nothing(&mut consumer).await);
}

#[tokio::test]
async fn what_one_consumer_holds_no_other_gets() {
    let folder = Folder::new();
    let queue = folder.worker();
    queue.publish(vec![new_job("job")]).await.unwrap();
    let _held = next(&mut queue.consume(KIND, 1)).await;
    assert!(nothing(&mut queue.consume(KIND, 1)).await);
    assert!(nothing(&mut queue.consume(Kind::CdnPurge, 1)).await, "nor does one of another kind");
}

#[tokio::test]
async fn a_job_given_back_returns_to_the_head_and_counts_a_return() {
    let folder = Folder::new();
    let queue = folder.worker();
    let mut consumer = queue.consume(KIND, 1);
    queue.publish(vec![new_job("first"), new_job("second")]).await.unwrap();
    for delivery_count in 0..3 {
        let delivery = next(&mut consumer).await;
        assert_eq!((text(&delivery).as_str(), delivery.delivery_count), ("first", delivery_count));
        delivery.settler.give_back().await;
    }
}

#[tokio::test]
async fn a_delivery_that_is_dropped_comes_back() {
    let folder = Folder::new();
    let queue = folder.worker();
    let mut consumer = queue.consume(KIND, 1);
    queue.publish(vec![new_job("job")]).await.unwrap();
    drop(next(&mut consumer).await);
    assert_eq!(next(&mut consumer).await.delivery_count, 1);
}

#[tokio::test]
async fn begun_and_new_jobs_take_turns_at_any_concurrency() {
    for concurrency in [1, 3, 64] {
        let folder = Folder::new();
        let queue = folder.worker();
        let mut consumer = queue.consume(KIND, concurrency);
        let publications = |of: Lane| (0..20).map(move |number| lane(of, Duration::ZERO, &number.to_string()));
        queue.publish(publications(Lane::Jobs).chain(publications(Lane::Resume)).collect()).await.unwrap();
        let mut lanes = Vec::new();
        for _ in 0..40 {
            let delivery = next(&mut consumer).await;
            lanes.push(delivery.lane);
            delivery.settler.settle(Vec::new()).await.unwrap();
        }
        for pair in lanes.windows(2) {
            assert_ne!(pair[0], pair[1], "{lanes:?}");
        }
    }
}

#[tokio::test]
async fn suspects_are_worked_one_at_a_time_beside_the_rest() {
    let folder = Folder::new();
    let queue = folder.worker();
    let mut consumer = queue.consume(KIND, 4);
    let mut suspects = consumer.suspects();
    let suspect = |text| lane(Lane::Suspect, Duration::ZERO, text);
    queue.publish(vec![suspect("one"), suspect("two"), new_job("job")]).await.unwrap();
    let first = next_suspect(&mut suspects).await;
    assert_eq!((text(&first).as_str(), first.lane), ("one", Lane::Suspect));
    assert!(time::timeout(Duration::from_millis(60), suspects.next()).await.is_err());
    assert_eq!(text(&next(&mut consumer).await), "job");
    first.settler.settle(Vec::new()).await.unwrap();
    assert_eq!(text(&next_suspect(&mut suspects).await), "two");
}

#[tokio::test]
async fn waiting_for_a_job_can_be_broken_off_anywhere() {
    let folder = Folder::new();
    let queue = folder.worker();
    let mut consumer = queue.consume(KIND, 8);
    let mut seen = BTreeSet::new();
    for number in 0..100 {
        queue.publish(vec![new_job(&number.to_string())]).await.unwrap();
        // Polled once, then dropped.
        let mut polled = Box::pin(consumer.next());
        let ready = std::future::poll_fn(|context| match polled.as_mut().poll(context) {
            Poll::Ready(delivery) => Poll::Ready(Some(delivery)),
            Poll::Pending => Poll::Ready(None),
        });
        let taken = ready.await;
        drop(polled);
        if let Some(delivery) = taken {
            assert_eq!(delivery.delivery_count, 0);
            seen.insert(text(&delivery));
            delivery.settler.settle(Vec::new()).await.unwrap();
        }
    }
    while seen.len() < 100 {
        let delivery = next(&mut consumer).await;
        assert_eq!(delivery.delivery_count, 0);
        assert!(seen.insert(text(&delivery)), "handed out twice");
        delivery.settler.settle(Vec::new()).await.unwrap();
    }
}

#[tokio::test]
async fn a_closed_intake_gives_out_what_it_had_and_takes_one_when_asked() {
    let folder = Folder::new();
    let queue = folder.worker();
    let mut consumer = queue.consume(KIND, 4);
    queue.publish((0..6).map(|number| new_job(&number.to_string())).collect()).await.unwrap();
    let first = next(&mut consumer).await;
    let prefetched = consumer.pause().await;
    assert_eq!(prefetched.iter().map(text).collect::<Vec<_>>(), ["1", "2", "3"]);
    for delivery in prefetched {
        delivery.settler.settle(Vec::new()).await.unwrap();
    }
    assert!(nothing(&mut consumer).await);
    let probe = consumer.take_one().await.unwrap();
    assert_eq!(text(&probe), "4");
    let last = consumer.take_one().await.unwrap();
    assert!(consumer.take_one().await.is_none(), "none is left");
    last.settler.give_back().await;
    consumer.resume();
    assert_eq!(text(&next(&mut consumer).await), "5");
    drop((first, probe));
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_jobs_go_through_each_of_them_once() {
    const JOBS: usize = 10_000;
    let folder = Folder::new();
    let queue = folder.worker();
    let begun = Instant::now();
    queue.publish((0..JOBS).map(|number| new_job(&number.to_string())).collect()).await.unwrap();
    println!("{JOBS} published in {:?}", begun.elapsed());
    let begun = Instant::now();
    let permits = Arc::new(Semaphore::new(256));
    let mut consumer = queue.consume(KIND, 256);
    let mut running = JoinSet::new();
    for _ in 0..JOBS {
        let permit = Arc::clone(&permits).acquire_owned().await.unwrap();
        let delivery = next(&mut consumer).await;
        running.spawn(async move {
            let (number, delivery_count) = (text(&delivery), delivery.delivery_count);
            assert_eq!(delivery_count, 0);
            delivery.settler.settle(vec![event(&number)]).await.unwrap();
            drop(permit);
        });
    }
    running.join_all().await;
    let took = begun.elapsed();
    println!("{JOBS} claimed and settled in {took:?}: {:.0} a second", 10_000.0 / took.as_secs_f64());
    let events = queue.events_after(0, JOBS + 1).await.unwrap();
    let different: BTreeSet<_> = events.iter().map(|event| event.body.clone()).collect();
    assert_eq!((events.len(), different.len(), queue.count_unfinished().await.unwrap()), (JOBS, JOBS, 0));
}
