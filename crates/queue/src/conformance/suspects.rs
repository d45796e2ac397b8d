//! Suspects: apart from the rest, one unsettled at a time whatever way it came, and none while the intake is closed
//! but the one a probe is made with.

use super::*;
use crate::Suspects;

pub(super) async fn suspects_come_apart_and_one_at_a_time(subject: &Subject) {
    let queue = subject.open();
    queue
        .publish(vec![
            to_lane("suspect-1", Lane::Suspect, Duration::ZERO),
            to_lane("suspect-2", Lane::Suspect, Duration::ZERO),
            to_lane("good", Lane::Jobs, Duration::ZERO),
        ])
        .await
        .unwrap();
    let mut consumer = queue.consume(KIND, 8);
    let mut suspects = consumer.suspects();
    let good = next(&mut consumer).await;
    assert_eq!(name(&good), "good");
    let first = timeout(SOON, suspects.next()).await.unwrap();
    assert_eq!((name(&first), first.lane), ("suspect-1", Lane::Suspect));
    assert!(timeout(QUIET, suspects.next()).await.is_err(), "one at a time");
    settle(first, vec![]).await;
    let second = timeout(SOON, suspects.next()).await.unwrap();
    assert_eq!(name(&second), "suspect-2");
    settle(second, vec![]).await;
    settle(good, vec![]).await;
    queue.close().await;
}

async fn no_suspect_comes(suspects: &mut Suspects, why: &str) {
    let came = timeout(QUIET, suspects.next()).await;
    assert!(came.is_err(), "{why}: {:?}", came.unwrap().message.message_id);
}

/// What was handed over and not taken goes back by republishing: a suspect's returns are the deaths it caused.
pub(super) async fn a_closed_intake_hands_out_no_suspect_but_the_last_one_for_a_probe(subject: &Subject) {
    let queue = subject.open();
    let mut consumer = queue.consume(KIND, 8);
    let mut suspects = consumer.suspects();
    no_suspect_comes(&mut suspects, "none waits").await;
    queue.publish(vec![to_lane("suspect-1", Lane::Suspect, Duration::ZERO)]).await.unwrap();
    tokio::time::sleep(QUIET).await;
    for held in consumer.pause().await {
        assert_eq!(held.lane, Lane::Suspect);
        settle(held, vec![to_lane("suspect-1", Lane::Suspect, Duration::ZERO)]).await;
    }
    let more = [("suspect-2", Lane::Suspect), ("good", Lane::Jobs)];
    queue.publish(more.map(|(name, lane)| to_lane(name, lane, Duration::ZERO)).to_vec()).await.unwrap();
    no_suspect_comes(&mut suspects, "the intake is closed").await;

    let good = probe(&mut consumer).await;
    assert_eq!(name(&good), "good", "a suspect is the last that is probed with");
    settle(good, vec![]).await;
    let first = probe(&mut consumer).await;
    assert_eq!((name(&first), first.lane, first.delivery_count), ("suspect-1", Lane::Suspect, 0));
    assert!(consumer.take_one().await.is_none(), "one suspect at a time");

    consumer.resume();
    no_suspect_comes(&mut suspects, "one at a time, whatever way it came").await;
    settle(first, vec![]).await;
    let second = timeout(SOON, suspects.next()).await.unwrap();
    assert_eq!(name(&second), "suspect-2");
    assert!(consumer.pause().await.is_empty());
    queue.publish(vec![to_lane("suspect-3", Lane::Suspect, Duration::ZERO)]).await.unwrap();
    tokio::time::sleep(QUIET).await;
    assert!(consumer.take_one().await.is_none(), "the second is not settled");
    consumer.resume();
    no_suspect_comes(&mut suspects, "the second is not settled").await;
    settle(second, vec![]).await;
    settle(timeout(SOON, suspects.next()).await.unwrap(), vec![]).await;
    queue.close().await;
}
