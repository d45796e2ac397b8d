//! A user with fewer rights than ours usually has.

use super::{
    censor::{broker_under, declares_nothing},
    *,
};

#[tokio::test]
async fn a_user_who_may_declare_nothing_verifies_what_it_can() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    let _local = metrics::set_default_local_recorder(&recorder);
    on_broker(async move |rig: Rig| {
        let few = broker_under(declares_nothing, &rig).await;
        let queue = rig.queue_by(&few, TopologyMode::Verify);
        refusal::until_told(&queue, &["NOT_FOUND"]).await;
        rig.queue().publish(vec![event("a")]).await.unwrap();
        timeout(Duration::from_secs(20), queue.publish(vec![event("b")])).await.unwrap().unwrap();
        let before = metrics.render();
        let consumer = queue.consume(Kind::CdnPurge, 1);
        queue.publish(vec![lane(Lane::Jobs, Duration::ZERO, job("c"))]).await.unwrap();
        soon(consumer.next()).await.settler.settle(Vec::new()).await.unwrap();
        sleep(Duration::from_millis(300)).await;
        assert_eq!(queue.health(), Health::default(), "the channel that was closed was one for questions");
        let losses = |shown: &str| shown.lines().filter(|line| line.contains("broker_reconnects")).count();
        assert_eq!(losses(&metrics.render()), losses(&before));
        assert!(metrics.render().contains("genfleet_broker_reconnects_total{role=\"consume\"} 0\n"));
        queue.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_user_who_may_declare_nothing_is_told_what_to_do() {
    on_broker(async |rig: Rig| {
        let few = broker_under(declares_nothing, &rig).await;
        let queue = rig.queue_by(&few, TopologyMode::Declare);
        let problem = refusal::until_told(&queue, &["ACCESS_REFUSED", "remedy: give this user that right"]).await;
        assert!(problem.contains("--topology verify") && !problem.contains("delete it"), "{problem}");
        queue.close().await;
    })
    .await;
}
