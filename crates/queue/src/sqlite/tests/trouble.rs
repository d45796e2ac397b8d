//! When the store cannot be written.

use super::*;
use crate::{Health, QueueError, Settled};

#[tokio::test]
async fn a_settlement_is_whole_or_not_at_all() {
    let folder = Folder::new();
    let queue = folder.worker();
    let mut consumer = queue.consume(KIND, 1);
    queue.publish(vec![new_job("job")]).await.unwrap();
    let delivery = next(&mut consumer).await;
    let trap = "CREATE TRIGGER trap BEFORE INSERT ON dead BEGIN SELECT raise(ABORT, 'no more dead'); END";
    folder.raw().execute_batch(trap).unwrap();
    let settled = delivery.settler.settle(vec![event("event"), dead("file.scan", "job")]).await;
    let Err(QueueError::Store { path, source }) = settled else { panic!("should have failed: {settled:?}") };
    assert!(path.ends_with("store.db") && source.to_string().contains("no more dead"), "{path}: {source}");
    let why = time::timeout(Duration::from_secs(10), queue.wait_until_failed()).await.unwrap();
    assert!(why.contains("store.db") && why.contains("no more dead"), "{why}");
    assert_eq!(queue.health().problems, [why]);
    assert!(matches!(queue.publish(vec![new_job("late")]).await, Err(QueueError::Closed)));

    queue.close().await;
    let queue = folder.worker();
    assert_eq!(next(&mut queue.consume(KIND, 1)).await.delivery_count, 1);
    assert!(queue.events_after(0, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_passes_is_ridden_out_and_told_meanwhile() {
    let folder = Folder::new();
    let queue = folder.worker();
    let mut consumer = queue.consume(KIND, 2);
    queue.publish(vec![new_job("one"), new_job("two")]).await.unwrap();
    let (delivery, _other) = (next(&mut consumer).await, next(&mut consumer).await);
    assert_eq!(queue.health(), Health::default());

    let hog = folder.raw();
    hog.execute_batch("BEGIN IMMEDIATE").unwrap();
    let settling = tokio::spawn(delivery.settler.settle(vec![event("event")]));
    let told = comes_true(|| async { !queue.health().problems.is_empty() }).await;
    assert!(told && !settling.is_finished());
    assert!(queue.health().problems[0].contains("locked"), "{:?}", queue.health());
    assert!(nothing(&mut consumer).await);
    let stopped = time::timeout(Duration::from_secs(10), consumer.pause()).await;
    assert!(stopped.unwrap().is_empty(), "the intake can be closed all the same");

    hog.execute_batch("COMMIT").unwrap();
    assert_eq!(settling.await.unwrap().unwrap(), Settled::Acknowledged);
    assert!(comes_true(|| async { queue.health() == Health::default() }).await);
    assert_eq!(queue.events_after(0, 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_store_in_trouble_can_be_closed_and_loses_nothing() {
    let folder = Folder::new();
    let queue = folder.worker();
    queue.publish(vec![new_job("job")]).await.unwrap();
    let delivery = next(&mut queue.consume(KIND, 1)).await;
    let hog = folder.raw();
    hog.execute_batch("BEGIN IMMEDIATE").unwrap();
    let settling = tokio::spawn(delivery.settler.settle(vec![event("event")]));
    assert!(comes_true(|| async { !queue.health().problems.is_empty() }).await);
    time::timeout(Duration::from_secs(10), queue.close()).await.unwrap();
    assert!(matches!(settling.await.unwrap(), Err(QueueError::Closed)));
    hog.execute_batch("COMMIT").unwrap();
    assert_eq!(next(&mut folder.worker().consume(KIND, 1)).await.delivery_count, 1);
}

#[tokio::test]
async fn a_tool_is_told_at_once() {
    let folder = Folder::new();
    let tool = folder.tool();
    let hog = folder.raw();
    hog.execute_batch("BEGIN IMMEDIATE").unwrap();
    let published = time::timeout(Duration::from_secs(10), tool.publish(vec![new_job("job")])).await.unwrap();
    assert!(matches!(published, Err(QueueError::Store { .. })), "{published:?}");
    hog.execute_batch("COMMIT").unwrap();
    tool.publish(vec![new_job("job")]).await.unwrap();
}

#[tokio::test]
async fn a_settlement_of_a_row_that_is_gone_is_stale_and_still_publishes() {
    let folder = Folder::new();
    let queue = folder.worker();
    queue.publish(vec![new_job("job")]).await.unwrap();
    let delivery = next(&mut queue.consume(KIND, 1)).await;
    folder.raw().execute_batch("DELETE FROM message").unwrap();
    assert_eq!(delivery.settler.settle(vec![event("event")]).await.unwrap(), Settled::Stale);
    assert_eq!(queue.events_after(0, 10).await.unwrap().len(), 1);
}
