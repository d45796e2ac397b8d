//! What is published to is taken away while jobs end.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use lapin::options::BasicGetOptions;

use super::*;

/// Takes away the exchange of events.
async fn delete_events(rig: &Rig) {
    let (connection, channel) = rig.channel().await;
    let exchange = format!("{}.events", rig.prefix);
    let _ = channel.exchange_delete(exchange.as_str().into(), ExchangeDeleteOptions::default()).await;
    let _ = connection.close(200, "".into()).await;
}

/// The ids of all events that wait.
async fn told(rig: &Rig) -> BTreeSet<String> {
    let (connection, channel) = rig.channel().await;
    let mut ids = BTreeSet::new();
    let queue = format!("{}.events", rig.prefix);
    let unacknowledged = BasicGetOptions { no_ack: true };
    while let Some(event) = channel.basic_get(queue.as_str().into(), unacknowledged).await.unwrap() {
        ids.extend(event.properties.message_id().as_ref().map(ToString::to_string));
    }
    let _ = connection.close(200, "".into()).await;
    ids
}

/// Jobs that were acknowledged; some twice, since what was not confirmed is published again.
type Ended = Arc<Mutex<BTreeSet<String>>>;

async fn until_ended(ended: &Ended, count: usize) {
    let all = async {
        while ended.lock().unwrap().len() < count {
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(Duration::from_secs(60), all).await.unwrap();
}

/// Settles a job with its event, after a moment.
async fn end(delivery: Delivery, ended: Ended) {
    let id = delivery.message.message_id.clone().unwrap();
    sleep(Duration::from_millis(fastrand::u64(..20))).await;
    if let Ok(Settled::Acknowledged) = delivery.settler.settle(vec![event(&id)]).await {
        ended.lock().unwrap().insert(id);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_job_has_an_event_though_their_exchange_is_deleted_under_load() {
    const ROUNDS: usize = 5;
    const IN_ONE: usize = 100;
    on_broker(async |rig: Rig| {
        let processes = [rig.queue(), rig.queue()];
        let ended = Ended::default();
        for queue in &processes {
            let (consumer, ended) = (queue.consume(Kind::CdnPurge, 32), ended.clone());
            tokio::spawn(async move {
                loop {
                    tokio::spawn(end(consumer.next().await, ended.clone()));
                }
            });
        }
        for round in 0..ROUNDS {
            let first = round * IN_ONE;
            let jobs = (first..first + IN_ONE).map(|number| lane(Lane::Jobs, Duration::ZERO, job(&number.to_string())));
            processes[0].publish(jobs.collect()).await.unwrap();
            until_ended(&ended, first + IN_ONE / 5).await;
            delete_events(&rig).await;
        }
        until_ended(&ended, ROUNDS * IN_ONE).await;
        let told = told(&rig).await;
        let ended = ended.lock().unwrap();
        assert!(ended.is_subset(&told), "no event of {:?}", ended.difference(&told));
        drop(ended);
    })
    .await;
}
