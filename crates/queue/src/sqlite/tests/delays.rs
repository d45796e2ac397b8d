//! Exact delays.

use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};

use super::*;
use genfleet_job::clock::Clock;

/// The machine's clock, set forward or back by so many seconds.
#[derive(Debug, Default)]
struct Set(AtomicI64);

impl Set {
    fn by_hours(&self, hours: i64) {
        self.0.store(hours * 3600, Ordering::SeqCst);
    }
}

impl Clock for Set {
    fn now(&self) -> Timestamp {
        SystemClock.now() + SignedDuration::from_secs(self.0.load(Ordering::SeqCst))
    }
}

fn opened(folder: &Folder, clock: &Arc<Set>) -> SqliteQueue {
    SqliteQueue::open(&folder.store(), Role::Worker, clock.clone()).unwrap()
}

/// The next job, settled.
async fn taken(consumer: &mut Consumer) -> String {
    let delivery = next(consumer).await;
    let told = text(&delivery);
    delivery.settler.settle(Vec::new()).await.unwrap();
    told
}

#[tokio::test]
async fn a_clock_that_is_set_back_strands_no_job_and_shortens_no_delay() {
    let (folder, clock) = (Folder::new(), Arc::new(Set::default()));
    let queue = opened(&folder, &clock);
    let mut consumer = queue.consume(KIND, 1);
    let (second, least) = (Duration::from_secs(2), Duration::from_millis(1800));
    let waiting = [lane(Lane::Jobs, second, "soon"), lane(Lane::Resume, Duration::from_hours(1), "late")];
    queue.publish(waiting.into()).await.unwrap();
    let begun = Instant::now();
    clock.by_hours(-5);
    assert_eq!(taken(&mut consumer).await, "soon");
    assert!(begun.elapsed() >= least, "it came after {:?}", begun.elapsed());
    assert!(nothing(&mut consumer).await, "an hour is an hour still");
    let late: i64 =
        folder.raw().query_row("SELECT visible_at FROM message WHERE lane = 'resume'", [], |row| row.get(0)).unwrap();
    let left = late - clock.now().as_millisecond();
    assert!((3_590_000..=3_600_000).contains(&left), "{left} ms are left");
}

#[tokio::test]
async fn jobs_that_came_before_the_clock_was_set_back_come_before_those_after_it() {
    let (folder, clock) = (Folder::new(), Arc::new(Set::default()));
    let queue = opened(&folder, &clock);
    queue.publish(vec![new_job("first")]).await.unwrap();
    clock.by_hours(-1);
    queue.publish(vec![new_job("second")]).await.unwrap();
    let mut consumer = queue.consume(KIND, 2);
    assert_eq!(taken(&mut consumer).await, "first");
    assert_eq!(taken(&mut consumer).await, "second");
}

#[tokio::test]
async fn a_clock_that_was_set_back_while_nobody_worked_the_store_strands_no_job() {
    let (folder, clock) = (Folder::new(), Arc::new(Set::default()));
    let queue = opened(&folder, &clock);
    queue.publish(vec![new_job("ready"), lane(Lane::Jobs, Duration::from_secs(1), "delayed")]).await.unwrap();
    queue.close().await;
    clock.by_hours(-24 * 365);
    let queue = opened(&folder, &clock);
    let mut consumer = queue.consume(KIND, 2);
    assert_eq!(taken(&mut consumer).await, "ready");
    assert_eq!(taken(&mut consumer).await, "delayed");
}

#[tokio::test]
async fn a_clock_that_was_ahead_and_is_put_right_strands_nothing() {
    let (folder, clock) = (Folder::new(), Arc::new(Set::default()));
    let queue = opened(&folder, &clock);
    let mut consumer = queue.consume(KIND, 1);
    clock.by_hours(3);
    queue.publish(vec![lane(Lane::Jobs, Duration::from_millis(500), "while wrong")]).await.unwrap();
    assert!(nothing(&mut consumer).await);
    clock.by_hours(0);
    assert_eq!(taken(&mut consumer).await, "while wrong");
}

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
    queue.publish(vec![new_job("job")]).await.unwrap();
    let delivery = next(&mut consumer).await;
    let mut again = lane(Lane::Resume, Duration::from_millis(30), "job");
    again.message.headers.insert("genfleet-attempts".to_owned(), 2_i64.into());
    delivery.settler.settle(vec![again]).await.unwrap();
    let delivery = next(&mut consumer).await;
    assert_eq!((delivery.lane, delivery.delivery_count), (Lane::Resume, 0));
    assert_eq!(delivery.message.headers["genfleet-attempts"].as_i64(), Some(2));
}
