//! A delayed job returns on time, on both queues, without a running worker.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use genfleet_core::{
    clock::{SharedClock, SystemClock},
    job::Kind,
    message::{Lane, Message},
    queue::{
        Destination, Publication, Queue,
        rabbit::{RabbitQueue, RabbitSettings, TopologyMode},
        sqlite::{Role, SqliteQueue},
    },
};
use harness::{Amqp, Broker, Prefix, eventually, seconds};
use tokio::time::Instant;

const DELAYS: [u64; 6] = [1, 2, 3, 5, 64, 90];

fn delayed(delay: u64) -> Publication {
    let to = Destination::Lane { kind: Kind::CdnPurge, lane: Lane::Resume, after: Duration::from_secs(delay) };
    let message =
        Message { body: delay.to_string().into(), message_id: Some(format!("delay-{delay}")), ..Message::default() };
    Publication { to, message }
}

fn settings(broker: &Broker, prefix: &Prefix) -> RabbitSettings {
    RabbitSettings {
        urls: vec![broker.url().to_owned().into()],
        prefix: prefix.to_string(),
        topology: TopologyMode::Declare,
        kinds: Vec::new(),
        ca_file: None,
        client_identity: None,
        name: "delays".to_owned(),
        watchdog: seconds(60),
    }
}

/// A later return depends on the machine. The computation of delays is tested in its module.
fn assert_on_time(delay: u64, waited: Duration) {
    let early = Duration::from_secs(delay).saturating_sub(waited);
    let late = waited.saturating_sub(Duration::from_secs(delay));
    assert!(early < Duration::from_millis(50) && late < seconds(4), "{delay} s came after {waited:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_rabbitmq() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let clock: SharedClock = Arc::new(SystemClock);
    let queue = Queue::Rabbit(RabbitQueue::connect(settings(broker, &prefix), clock).unwrap());
    queue.publish(DELAYS.map(delayed).to_vec()).await.unwrap();
    let sent = Instant::now();
    queue.close().await;

    // No worker is connected; the test's client sees that the message is ready.
    let amqp = Amqp::connect(broker.url()).await;
    let resume = format!("{prefix}.resume.cdn.purge");
    for (before, delay) in DELAYS.into_iter().enumerate() {
        eventually(seconds(delay + 5), format!("{delay} s"), async || amqp.count(&resume).await as usize > before)
            .await;
        assert_on_time(delay, sent.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_the_embedded_queue() {
    let file = std::env::temp_dir().join(format!("genfleet-delays-{}.db", uuid::Uuid::new_v4()));
    let clock: SharedClock = Arc::new(SystemClock);
    let store = SqliteQueue::open(&file, Role::Tool, clock.clone()).unwrap();
    store.publish(DELAYS.map(delayed).to_vec()).await.unwrap();
    let sent = Instant::now();
    store.close().await;

    let queue = Queue::Sqlite(SqliteQueue::open(&file, Role::Worker, clock).unwrap());
    let mut consumer = queue.consume(Kind::CdnPurge, 10);
    for delay in DELAYS {
        let delivery = tokio::time::timeout(seconds(delay + 5), consumer.next()).await.unwrap();
        assert_eq!(delivery.message.body, delay.to_string());
        assert_on_time(delay, sent.elapsed());
        delivery.settler.settle(vec![]).await.unwrap();
    }
    queue.close().await;
    SqliteQueue::remove(&file).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_delays_at_once_come_each_in_its_time() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let clock: SharedClock = Arc::new(SystemClock);
    let queue = Queue::Rabbit(RabbitQueue::connect(settings(broker, &prefix), clock).unwrap());
    let sending = (0..200).map(|n| {
        let mut publication = delayed(1 + n % 5);
        publication.message.message_id = Some(format!("many-{n}"));
        queue.publish(vec![publication])
    });
    join_all(sending).await.into_iter().for_each(|sent| sent.unwrap());
    let sent = Instant::now();
    let amqp = Amqp::connect(broker.url()).await;
    let resume = format!("{prefix}.resume.cdn.purge");
    for delay in 1..=5_u32 {
        eventually(seconds(10), format!("those of {delay} s"), async || amqp.count(&resume).await >= delay * 40).await;
        let late = sent.elapsed().saturating_sub(Duration::from_secs(delay.into()));
        assert!(late < seconds(2), "{delay} s: {late:?} late");
    }
    queue.close().await;
}
