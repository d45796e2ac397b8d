//! What is handed out, in which order, and when not.

use super::*;

fn ids(deliveries: &[Delivery]) -> Vec<&str> {
    deliveries.iter().filter_map(|delivery| delivery.message.message_id.as_deref()).collect()
}

#[tokio::test]
async fn while_begun_and_new_jobs_wait_every_second_one_is_begun() {
    on_broker(async |rig: Rig| {
        let queue = rig.queue();
        let new = (0..6).map(|number| lane(Lane::Jobs, Duration::ZERO, job(&format!("n{number}"))));
        let begun = (0..3).map(|number| lane(Lane::Resume, Duration::ZERO, job(&format!("b{number}"))));
        queue.publish(new.chain(begun).collect()).await.unwrap();
        let consumer = queue.consume(Kind::CdnPurge, 16);
        while rig.ready("jobs.cdn.purge").await + rig.ready("resume.cdn.purge").await > 0 {
            sleep(Duration::from_millis(20)).await;
        }
        sleep(Duration::from_millis(100)).await;
        let mut taken = Vec::new();
        for _ in 0..9 {
            taken.push(soon(consumer.next()).await);
        }
        assert_eq!(ids(&taken), ["n0", "b0", "n1", "b1", "n2", "b2", "n3", "n4", "n5"]);
        queue.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_closed_intake_returns_what_was_not_taken_and_what_was_taken_can_still_be_settled() {
    on_broker(async |rig: Rig| {
        let queue = rig.queue();
        let consumer = queue.consume(Kind::CdnPurge, 3);
        queue
            .publish((0..6).map(|number| lane(Lane::Jobs, Duration::ZERO, job(&number.to_string()))).collect())
            .await
            .unwrap();
        let taken = soon(consumer.next()).await;
        let mut returned = soon(consumer.pause()).await;
        // As many as came before the broker stopped: never more than the prefetch.
        assert!(returned.len() <= 2, "{:?}", ids(&returned));
        assert_eq!(taken.settler.settle(vec![event("0")]).await.unwrap(), Settled::Acknowledged);
        if let Some(delayed) = returned.pop() {
            let copy = lane(Lane::Jobs, Duration::from_secs(1), delayed.message.clone());
            assert_eq!(delayed.settler.settle(vec![copy]).await.unwrap(), Settled::Acknowledged);
        }
        for delivery in returned {
            delivery.settler.give_back().await;
        }

        let probe = soon(consumer.take_one()).await.unwrap();
        assert_eq!(probe.lane, Lane::Jobs);
        assert_eq!(probe.settler.settle(Vec::new()).await.unwrap(), Settled::Acknowledged);
        assert!(timeout(Duration::from_millis(300), consumer.next()).await.is_err(), "nothing is handed out");

        consumer.resume();
        for _ in 0..4 {
            let delivery = soon(consumer.next()).await;
            assert_eq!(delivery.settler.settle(Vec::new()).await.unwrap(), Settled::Acknowledged);
        }
        assert!(soon(consumer.pause()).await.is_empty());
        assert!(soon(consumer.take_one()).await.is_none(), "none waits");
        queue.close().await;
        assert_eq!(rig.ready("jobs.cdn.purge").await, 0);
    })
    .await;
}

#[tokio::test]
async fn an_intake_opens_and_closes_many_times_without_losing_a_job() {
    on_broker(async |rig: Rig| {
        let queue = rig.queue();
        let consumer = queue.consume(Kind::CdnPurge, 8);
        queue
            .publish((0..300).map(|number| lane(Lane::Jobs, Duration::ZERO, job(&number.to_string()))).collect())
            .await
            .unwrap();
        let mut seen = 0;
        for round in 0..30 {
            for _ in 0..round % 4 {
                soon(consumer.next()).await.settler.settle(Vec::new()).await.unwrap();
                seen += 1;
            }
            for delivery in soon(consumer.pause()).await {
                delivery.settler.settle(Vec::new()).await.unwrap();
                seen += 1;
            }
            consumer.resume();
        }
        while seen < 300 {
            soon(consumer.next()).await.settler.settle(Vec::new()).await.unwrap();
            seen += 1;
        }
        queue.close().await;
        assert_eq!(rig.ready("jobs.cdn.purge").await, 0);
    })
    .await;
}

#[tokio::test]
async fn suspects_come_one_at_a_time_beside_other_work() {
    on_broker(async |rig: Rig| {
        let queue = rig.queue();
        let consumer = queue.consume(Kind::CdnPurge, 4);
        let both = (0..2).map(|number| lane(Lane::Suspect, Duration::ZERO, job(&format!("s{number}"))));
        queue.publish(both.chain([lane(Lane::Jobs, Duration::ZERO, job("n"))]).collect()).await.unwrap();
        let first = soon(consumer.next_suspect()).await;
        assert_eq!((first.message.message_id.as_deref(), first.lane), (Some("s0"), Lane::Suspect));
        assert!(
            timeout(Duration::from_millis(300), consumer.next_suspect()).await.is_err(),
            "the first is not settled"
        );
        assert_eq!(soon(consumer.next()).await.message.message_id.as_deref(), Some("n"));
        first.settler.settle(Vec::new()).await.unwrap();
        assert_eq!(soon(consumer.next_suspect()).await.message.message_id.as_deref(), Some("s1"));
        queue.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_delivery_dropped_or_given_back_comes_again_and_is_counted() {
    on_broker(async |rig: Rig| {
        let queue = rig.queue();
        let consumer = queue.consume(Kind::CdnPurge, 1);
        queue.publish(vec![lane(Lane::Jobs, Duration::ZERO, job("a"))]).await.unwrap();
        drop(soon(consumer.next()).await);
        let again = soon(consumer.next()).await;
        assert_eq!(again.delivery_count, 1);
        again.settler.give_back().await;
        assert_eq!(soon(consumer.next()).await.delivery_count, 2);
        queue.close().await;
        assert_eq!(rig.ready("jobs.cdn.purge").await, 1, "what is unsettled at the end goes back");
    })
    .await;
}

#[tokio::test]
async fn several_kinds_are_consumed_by_one_process() {
    on_broker(async |rig: Rig| {
        let queue = rig.queue();
        let purges = queue.consume(Kind::CdnPurge, 2);
        queue.publish(vec![lane(Lane::Jobs, Duration::ZERO, job("p"))]).await.unwrap();
        assert_eq!(soon(purges.next()).await.message.message_id.as_deref(), Some("p"));
        let webhooks = queue.consume(Kind::WebhookDeliver, 2);
        let to = Destination::Lane { kind: Kind::WebhookDeliver, lane: Lane::Jobs, after: Duration::ZERO };
        queue.publish(vec![Publication { to, message: job("w") }]).await.unwrap();
        assert_eq!(soon(webhooks.next()).await.message.message_id.as_deref(), Some("w"));
        queue.close().await;
    })
    .await;
}
