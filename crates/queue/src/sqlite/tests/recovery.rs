//! What is left when a process ends, as asked or not.

use super::*;

#[tokio::test]
async fn after_a_crash_what_was_held_comes_back_with_a_return_and_nothing_settled_does() {
    let folder = Folder::new();
    let queue = folder.worker();
    let mut consumer = queue.consume(KIND, 2);
    queue.publish(vec![new_job("settled"), new_job("held"), new_job("never taken")]).await.unwrap();
    let (settled, _held) = (next(&mut consumer).await, next(&mut consumer).await);
    settled.settler.settle(vec![event("of settled")]).await.unwrap();

    let left = folder.after_a_crash();
    let queue = left.worker();
    let mut consumer = queue.consume(KIND, 10);
    let came = [next(&mut consumer).await, next(&mut consumer).await];
    let came: Vec<_> = came.iter().map(|delivery| (text(delivery), delivery.delivery_count)).collect();
    assert_eq!(came, [("held".to_owned(), 1), ("never taken".to_owned(), 0)]);
    assert!(nothing(&mut consumer).await);
    assert_eq!(queue.events_after(0, 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn deaths_of_processes_add_up() {
    let mut folder = Folder::new();
    let queue = folder.worker();
    queue.publish(vec![new_job("killer")]).await.unwrap();
    queue.close().await;
    for delivery_count in 0..4 {
        let queue = folder.worker();
        let delivery = next(&mut queue.consume(KIND, 1)).await;
        assert_eq!(delivery.delivery_count, delivery_count);
        folder = folder.after_a_crash();
    }
}

#[tokio::test]
async fn a_tool_that_opens_the_store_takes_nothing_from_its_worker() {
    let folder = Folder::new();
    let queue = folder.worker();
    queue.publish(vec![new_job("job")]).await.unwrap();
    let delivery = next(&mut queue.consume(KIND, 1)).await;
    let tool = folder.tool();
    assert_eq!(tool.counts().await.unwrap().lanes[&(KIND, Lane::Jobs)].claimed, 1);
    tool.close().await;
    delivery.settler.settle(Vec::new()).await.unwrap();
    assert_eq!(queue.count_unfinished().await.unwrap(), 0);
}

#[tokio::test]
async fn closing_gives_back_what_is_unsettled_and_keeps_what_was_asked_before() {
    let folder = Folder::new();
    let queue = folder.worker();
    let mut consumer = queue.consume(KIND, 2);
    queue.publish(vec![new_job("settled"), new_job("held")]).await.unwrap();
    let (settled, held) = (next(&mut consumer).await, next(&mut consumer).await);
    let (settled, ()) = tokio::join!(settled.settler.settle(vec![event("event")]), queue.close());
    settled.unwrap();
    assert!(held.settler.settle(vec![event("late")]).await.is_err());

    let queue = folder.worker();
    let delivery = next(&mut queue.consume(KIND, 1)).await;
    assert_eq!((text(&delivery).as_str(), delivery.delivery_count), ("held", 1));
    assert_eq!(queue.events_after(0, 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn handles_that_are_all_dropped_close_the_store() {
    let folder = Folder::new();
    drop(folder.worker());
    let opened = comes_true(|| async { SqliteQueue::open(&folder.store(), Role::Worker, clock()).is_ok() }).await;
    assert!(opened);
}

#[tokio::test]
async fn only_a_store_from_which_jobs_were_worked_before_is_taken_over() {
    let folder = Folder::new();
    let queue = folder.worker();
    queue.publish(vec![new_job("first"), new_job("second")]).await.unwrap();
    let first = next(&mut queue.consume(KIND, 1)).await;
    assert_eq!(first.settler.lease().unwrap().takeover_time(), None);
    queue.close().await;
    let queue = folder.worker();
    let first = next(&mut queue.consume(KIND, 1)).await;
    assert!(first.settler.lease().unwrap().takeover_time().is_some(), "it was handed out once");
    first.settler.settle(vec![event("of first")]).await.unwrap();
    queue.close().await;
    let queue = folder.worker();
    let second = next(&mut queue.consume(KIND, 1)).await;
    assert!(second.settler.lease().unwrap().takeover_time().is_some(), "a job has ended");
}
