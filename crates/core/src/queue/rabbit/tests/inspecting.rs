//! The tool's look at the queue.

use super::{super::inspect::Inspector, *};

#[tokio::test]
async fn the_window_of_events_is_read_and_stays() {
    on_broker(async |rig: Rig| {
        let queue = rig.queue();
        queue.publish((0..5).map(|number| event(&number.to_string())).collect()).await.unwrap();
        let inspector = Inspector::connect(rig.settings(&rig.url, TopologyMode::Skip)).await.unwrap();
        for _ in 0..30 {
            assert_eq!(inspector.window_events(3).await.unwrap().len(), 3);
        }
        assert_eq!(inspector.window_events(100).await.unwrap().len(), 5);
        assert_eq!(inspector.count(&format!("{}.events", rig.prefix)).await.unwrap(), 5);
        assert!(inspector.count("no such queue").await.is_err());
        assert_eq!(inspector.count(&format!("{}.dead.cdn.purge", rig.prefix)).await.unwrap(), 0, "and it goes on");
        inspector.close().await;
        queue.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_follower_sees_every_event_from_now_on_and_leaves_nothing_behind() {
    on_broker(async |rig: Rig| {
        let queue = rig.queue();
        queue.publish(vec![event("before")]).await.unwrap();
        let inspector = Inspector::connect(rig.settings(&rig.url, TopologyMode::Skip)).await.unwrap();
        let mut follower = inspector.follow_events().await.unwrap();
        let bodies = ["1", "2", "3"];
        for body in bodies {
            let mut publication = event(body);
            publication.message.body = body.as_bytes().into();
            queue.publish(vec![publication]).await.unwrap();
        }
        for body in bodies {
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
    let error = Inspector::connect(rig.settings(&rig.url, TopologyMode::Skip)).await.err().unwrap().to_string();
    assert!(error.contains("amqp://127.0.0.1:1/") && !error.contains("hunter2"), "{error}");
}
