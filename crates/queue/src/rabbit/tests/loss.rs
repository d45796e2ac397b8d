//! Sessions that end in the middle of things.

use super::*;

#[tokio::test]
async fn after_a_loss_unsettled_jobs_come_again_and_the_late_acknowledgement_is_stale() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    let _local = metrics::set_default_local_recorder(&recorder);
    on_broker(async move |rig: Rig| {
        let proxy = Proxy::opened(&rig).await;
        let queue = rig.queue_by(&proxy.url(&rig), TopologyMode::Declare);
        let consumer = queue.consume(Kind::CdnPurge, 4);
        queue
            .publish(vec![lane(Lane::Jobs, Duration::ZERO, job("a")), lane(Lane::Jobs, Duration::ZERO, job("b"))])
            .await
            .unwrap();
        let first = soon(consumer.next()).await;
        assert!(!first.settler.is_stale());

        proxy.cut();
        while !first.settler.is_stale() {
            sleep(Duration::from_millis(5)).await;
        }
        let mut again = vec![soon(consumer.next()).await, soon(consumer.next()).await];
        again.sort_by_key(|delivery| delivery.message.message_id.clone());
        assert_eq!(
            again.iter().map(|delivery| delivery.message.message_id.as_deref()).collect::<Vec<_>>(),
            [Some("a"), Some("b")]
        );
        assert_eq!(again.iter().map(|delivery| delivery.delivery_count).collect::<Vec<_>>(), [1, 1]);

        assert_eq!(queue.count_unsettled(Kind::CdnPurge), 2, "the stale one is in the queue, not here");
        assert_eq!(first.settler.settle(vec![event("a")]).await.unwrap(), Settled::Stale);
        assert_eq!(queue.count_unsettled(Kind::CdnPurge), 2);
        for delivery in again {
            assert_eq!(delivery.settler.settle(Vec::new()).await.unwrap(), Settled::Acknowledged);
        }
        assert_eq!(queue.count_unsettled(Kind::CdnPurge), 0);
        assert_eq!(rig.ready("events").await, 1, "what followed from the stale one is durable");
        let shown = metrics.render();
        assert!(shown.contains("genfleet_stale_acks_total 1\n"), "{shown}");
        assert!(shown.contains("genfleet_broker_reconnects_total{role=\"consume\"} 1\n"), "{shown}");
        queue.close().await;
        assert_eq!(rig.ready("jobs.cdn.purge").await, 0);
    })
    .await;
}

#[tokio::test]
async fn what_was_not_confirmed_is_sent_again_under_its_id_and_in_order() {
    on_broker(async |rig: Rig| {
        let proxy = Proxy::opened(&rig).await;
        let queue = rig.queue_by(&proxy.url(&rig), TopologyMode::Declare);
        queue.publish(vec![event("first")]).await.unwrap();
        proxy.mute();
        let publishing = tokio::spawn({
            let queue = queue.clone();
            let five = (0..5).map(|number| lane(Lane::Jobs, Duration::ZERO, job(&number.to_string()))).collect();
            async move { queue.publish(five).await }
        });
        while rig.ready("jobs.cdn.purge").await < 5 {
            sleep(Duration::from_millis(20)).await;
        }
        assert!(!publishing.is_finished(), "no confirm has come");
        proxy.cut();
        soon(publishing).await.unwrap().unwrap();

        assert_eq!(rig.ready("jobs.cdn.purge").await, 10, "sent again");
        let consumer = rig.queue().consume(Kind::CdnPurge, 16);
        let mut ids = Vec::new();
        for _ in 0..5 {
            let delivery = soon(consumer.next()).await;
            ids.extend(delivery.message.message_id.clone());
            delivery.settler.settle(Vec::new()).await.unwrap();
        }
        assert_eq!(ids, ["0", "1", "2", "3", "4"]);
        assert!(timeout(Duration::from_millis(500), consumer.next()).await.is_err(), "copies of what was settled");
        queue.close().await;
    })
    .await;
}

#[tokio::test]
async fn many_publications_survive_many_cuts() {
    on_broker(async |rig: Rig| {
        let proxy = Proxy::opened(&rig).await;
        let queue = rig.queue_by(&proxy.url(&rig), TopologyMode::Declare);
        let publishing = tokio::spawn({
            let queue = queue.clone();
            let many = (0..20_000).map(|number| lane(Lane::Jobs, Duration::ZERO, job(&number.to_string()))).collect();
            async move { queue.publish(many).await }
        });
        soon(rig.declared()).await;
        for _ in 0..4 {
            sleep(Duration::from_millis(150)).await;
            proxy.cut();
        }
        timeout(Duration::from_secs(60), publishing).await.unwrap().unwrap().unwrap();
        let consumer = rig.queue().consume(Kind::CdnPurge, 256);
        let mut missing: std::collections::BTreeSet<_> = (0..20_000).map(|number| number.to_string()).collect();
        while !missing.is_empty() {
            let delivery = soon(consumer.next()).await;
            missing.remove(&delivery.message.message_id.clone().unwrap());
            tokio::spawn(delivery.settler.settle(Vec::new()));
        }
        queue.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_broker_that_accepts_and_says_nothing_is_given_up() {
    on_broker(async |rig: Rig| {
        let proxy = Proxy::opened(&rig).await;
        proxy.mute();
        let queue = rig.queue_by(&proxy.url(&rig), TopologyMode::Declare);
        let said = |problem: &String| problem.contains("no connection within 10s");
        let waited = async {
            while !queue.health().problems.iter().any(said) {
                sleep(Duration::from_millis(100)).await;
            }
        };
        timeout(Duration::from_secs(15), waited).await.unwrap();
        proxy.cut();
        timeout(Duration::from_secs(20), queue.publish(vec![event("a")])).await.unwrap().unwrap();
        queue.close().await;
    })
    .await;
}

#[tokio::test]
async fn an_intake_that_was_closed_stays_closed_after_a_loss() {
    on_broker(async |rig: Rig| {
        let proxy = Proxy::opened(&rig).await;
        let queue = rig.queue_by(&proxy.url(&rig), TopologyMode::Declare);
        let consumer = queue.consume(Kind::CdnPurge, 4);
        queue.publish(vec![event("connected")]).await.unwrap();
        assert!(soon(consumer.pause()).await.is_empty());
        proxy.cut();
        queue.publish(vec![lane(Lane::Jobs, Duration::ZERO, job("a"))]).await.unwrap();
        let probed = async {
            loop {
                match consumer.take_one().await {
                    Some(delivery) => break delivery,
                    None => sleep(Duration::from_millis(20)).await,
                }
            }
        };
        let probed = soon(probed).await;
        assert_eq!(probed.message.message_id.as_deref(), Some("a"));
        assert_eq!(probed.settler.settle(Vec::new()).await.unwrap(), Settled::Acknowledged);
        queue.publish(vec![lane(Lane::Jobs, Duration::ZERO, job("b"))]).await.unwrap();
        assert!(timeout(Duration::from_millis(500), consumer.next()).await.is_err(), "the buffer is closed");
        consumer.resume();
        assert_eq!(soon(consumer.next()).await.message.message_id.as_deref(), Some("b"));
        queue.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_consumer_that_the_broker_ends_is_made_anew() {
    on_broker(async |rig: Rig| {
        let queue = rig.queue();
        let consumer = queue.consume(Kind::CdnPurge, 4);
        queue.publish(vec![lane(Lane::Jobs, Duration::ZERO, job("a"))]).await.unwrap();
        soon(consumer.next()).await.settler.settle(Vec::new()).await.unwrap();
        let (connection, channel) = rig.channel().await;
        let gone = format!("{}.jobs.cdn.purge", rig.prefix);
        channel.queue_delete(gone.as_str().into(), lapin::options::QueueDeleteOptions::default()).await.unwrap();
        connection.close(200, "".into()).await.unwrap();
        for lost in [true, false] {
            while queue.health().problems.is_empty() == lost {
                sleep(Duration::from_millis(5)).await;
            }
        }
        queue.publish(vec![lane(Lane::Jobs, Duration::ZERO, job("b"))]).await.unwrap();
        assert_eq!(soon(consumer.next()).await.message.message_id.as_deref(), Some("b"));
        queue.close().await;
    })
    .await;
}

#[tokio::test]
async fn what_was_settled_and_comes_again_after_a_loss_is_acknowledged_and_not_handed_over() {
    on_broker(async |rig: Rig| {
        let proxy = Proxy::opened(&rig).await;
        let queue = rig.queue_by(&proxy.url(&rig), TopologyMode::Declare);
        let consumer = queue.consume(Kind::CdnPurge, 4);
        let new_job = |id: &str| Publication { to: Destination::Jobs(Kind::CdnPurge), message: job(id) };
        queue.publish(vec![new_job("a"), new_job("b"), lane(Lane::Resume, Duration::ZERO, job("c"))]).await.unwrap();
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(soon(consumer.next()).await);
        }
        // What the process says reaches nobody any more: acknowledgements are written and lost.
        proxy.deafen();
        let unsettled = held.iter().position(|delivery| delivery.message == job("b")).unwrap();
        let unsettled = held.remove(unsettled);
        for delivery in held {
            assert_eq!(delivery.settler.settle(Vec::new()).await.unwrap(), Settled::Acknowledged);
        }
        proxy.cut();
        let again = soon(consumer.next()).await;
        assert_eq!((&again.message, again.delivery_count, again.redelivered), (&job("b"), 1, true));
        assert!(queue.lost_session_within(Duration::from_secs(60)));
        assert!(timeout(Duration::from_millis(500), consumer.next()).await.is_err(), "the others are settled");
        again.settler.settle(Vec::new()).await.unwrap();
        drop(unsettled);
        queue.close().await;
        assert_eq!((rig.ready("jobs.cdn.purge").await, rig.ready("resume.cdn.purge").await), (0, 0));
    })
    .await;
}
