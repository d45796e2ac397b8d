//! The tool's look at the queue.

use super::{
    super::{FollowedEvent, RabbitEventFollower, RabbitInspector},
    *,
};

fn numbered(numbers: std::ops::Range<u32>) -> Vec<Publication> {
    let with_body = |number: u32| {
        let mut publication = event(&number.to_string());
        publication.message.body = number.to_string().into();
        publication
    };
    numbers.map(with_body).collect()
}

#[tokio::test]
async fn the_latest_of_the_window_are_read_in_order_and_all_of_it_stays() {
    on_broker(async |rig: Rig| {
        let queue = rig.queue();
        queue.publish(numbered(0..5)).await.unwrap();
        let inspector = RabbitInspector::connect(rig.settings(&rig.url, TopologyMode::Skip)).await.unwrap();
        for _ in 0..30 {
            assert_eq!(inspector.window_events(3).await.unwrap(), ["2", "3", "4"]);
        }
        assert_eq!(inspector.window_events(100).await.unwrap(), ["0", "1", "2", "3", "4"]);
        assert!(inspector.window_events(0).await.unwrap().is_empty());
        assert_eq!(inspector.count(&format!("{}.events", rig.prefix)).await.unwrap(), 5);
        assert!(inspector.count("no such queue").await.is_err());
        assert_eq!(inspector.count(&format!("{}.dead.cdn.purge", rig.prefix)).await.unwrap(), 0, "and it goes on");
        inspector.close().await;
        queue.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_window_larger_than_any_prefetch_is_read_to_its_end() {
    on_broker(async |rig: Rig| {
        let queue = rig.queue();
        queue.publish(numbered(0..70_000)).await.unwrap();
        let inspector = RabbitInspector::connect(rig.settings(&rig.url, TopologyMode::Skip)).await.unwrap();
        let began = Instant::now();
        let latest = inspector.window_events(2).await.unwrap();
        println!("the end of 70,000 events found in {:?}", began.elapsed());
        assert_eq!(latest, ["69998", "69999"]);
        inspector.close().await;
        queue.close().await;
        while rig.ready("events").await != 70_000 {
            sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_follower_goes_on_after_the_broker_was_away() {
    on_broker(async |rig: Rig| {
        let proxy = Proxy::opened(&rig).await;
        let queue = rig.queue();
        queue.publish(numbered(0..1)).await.unwrap();
        let mut following =
            RabbitEventFollower::connect(rig.settings(&proxy.url(&rig), TopologyMode::Skip)).await.unwrap();
        queue.publish(numbered(1..2)).await.unwrap();
        assert_eq!(soon(following.next()).await, FollowedEvent::Event("1".into()));
        proxy.shut();
        let lost = soon(following.next()).await;
        assert!(matches!(lost, FollowedEvent::Lost(_)), "{lost:?}");
        queue.publish(numbered(2..3)).await.unwrap();
        proxy.open();
        while let again = soon(following.next()).await
            && again != FollowedEvent::Back
        {
            assert!(matches!(again, FollowedEvent::Lost(_)), "{again:?}");
        }
        queue.publish(numbered(3..4)).await.unwrap();
        assert_eq!(soon(following.next()).await, FollowedEvent::Event("3".into()));
        queue.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_follower_sees_every_event_from_now_on_and_leaves_nothing_behind() {
    on_broker(async |rig: Rig| {
        let queue = rig.queue();
        queue.publish(vec![event("before")]).await.unwrap();
        let inspector = RabbitInspector::connect(rig.settings(&rig.url, TopologyMode::Skip)).await.unwrap();
        let mut follower = inspector.follow_events().await.unwrap();
        queue.publish(numbered(1..4)).await.unwrap();
        for body in ["1", "2", "3"] {
            assert_eq!(soon(follower.next()).await.unwrap().unwrap(), body.as_bytes());
        }
        inspector.close().await;
        queue.close().await;
        assert_eq!(rig.ready("events").await, 4, "the window keeps them too");
    })
    .await;
}

#[tokio::test]
async fn a_broker_that_is_not_there_is_told_at_once() {
    let rig = Rig { url: "amqp://u:hunter2@127.0.0.1:1".to_owned(), prefix: "t".to_owned(), queues: Arc::default() };
    let error = RabbitInspector::connect(rig.settings(&rig.url, TopologyMode::Skip)).await.err().unwrap().to_string();
    assert!(error.contains("amqp://127.0.0.1:1/") && !error.contains("hunter2"), "{error}");
}
