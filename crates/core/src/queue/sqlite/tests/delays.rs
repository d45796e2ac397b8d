//! Exact delays.

use super::*;

#[tokio::test]
async fn a_delayed_job_comes_when_it_is_due_and_never_before() {
    let folder = Folder::new();
    let queue = folder.worker();
    let mut consumer = queue.consume(KIND, 16);
    let begun = Instant::now();
    let delays = [2_000, 1, 700, 10, 100, 2];
    let publish = |ms: &u64| lane(Lane::Resume, Duration::from_millis(*ms), &ms.to_string());
    queue.publish(delays.iter().map(publish).collect()).await.unwrap();
    let mut order = Vec::new();
    for _ in delays {
        let delivery = next(&mut consumer).await;
        let due: u64 = text(&delivery).parse().unwrap();
        let took = begun.elapsed();
        println!("{due} ms came after {took:?}");
        assert!(took >= Duration::from_millis(due), "{due} ms came after {took:?}");
        assert!(took < Duration::from_millis(due + 1_000), "{due} ms came after {took:?}");
        order.push(due);
        delivery.settler.settle(Vec::new()).await.unwrap();
    }
    assert_eq!(order, [1, 2, 10, 100, 700, 2_000]);
}

#[tokio::test]
async fn a_delay_shorter_than_the_one_waited_for_is_not_overslept() {
    let folder = Folder::new();
    let queue = folder.worker();
    let mut consumer = queue.consume(KIND, 1);
    queue.publish(vec![lane(Lane::Jobs, Duration::from_hours(1), "far")]).await.unwrap();
    assert!(nothing(&mut consumer).await);
    queue.publish(vec![lane(Lane::Jobs, Duration::from_millis(20), "near")]).await.unwrap();
    assert_eq!(text(&next(&mut consumer).await), "near");
}

#[tokio::test]
async fn a_job_with_a_delay_without_end_waits_without_end() {
    let folder = Folder::new();
    let queue = folder.worker();
    queue.publish(vec![lane(Lane::Jobs, Duration::MAX, "never")]).await.unwrap();
    assert!(nothing(&mut queue.consume(KIND, 1)).await);
    assert_eq!(queue.counts().await.unwrap().lanes[&(KIND, Lane::Jobs)].delayed, 1);
}

#[tokio::test]
async fn a_delayed_settlement_comes_back_with_its_headers() {
    let folder = Folder::new();
    let queue = folder.worker();
    let mut consumer = queue.consume(KIND, 1);
    queue.publish(vec![door("job")]).await.unwrap();
    let delivery = next(&mut consumer).await;
    let mut again = lane(Lane::Resume, Duration::from_millis(30), "job");
    again.message.headers.insert("genfleet-attempts".to_owned(), 2_i64.into());
    delivery.settler.settle(vec![again]).await.unwrap();
    let delivery = next(&mut consumer).await;
    assert_eq!((delivery.lane, delivery.returns), (Lane::Resume, 0));
    assert_eq!(delivery.message.headers["genfleet-attempts"].as_i64(), Some(2));
}
