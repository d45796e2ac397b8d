//! What the operator's tool is told of a broker, without anything being made or changed.

use lapin::{
    options::{QueueDeclareOptions, QueueDeleteOptions},
    types::{AMQPValue, FieldTable},
};

use super::{
    super::{BrokerExaminer, MessageAcceptance, TopologyComparison},
    censor::{broker_under, declares_nothing, sends_no_replies},
    *,
};

/// All exchanges and queues of a fleet.
const ALL: usize = 22 + 4 * genfleet_job::Kind::ALL.len() + 3 + 16;

async fn examiner(rig: &Rig, url: &str) -> BrokerExaminer {
    let dialled = BrokerExaminer::connect(&rig.settings(url, TopologyMode::Declare)).await.unwrap();
    dialled.into_iter().next().unwrap().outcome.unwrap_or_else(|why| panic!("{why}"))
}

#[tokio::test]
async fn a_broker_says_who_it_is_and_takes_the_largest_job() {
    on_broker(async |rig: Rig| {
        let examiner = examiner(&rig, &rig.url.clone()).await;
        let identity = examiner.identity().unwrap();
        assert!(!identity.product.is_empty() && identity.version.contains('.'), "{identity:?}");
        assert_eq!(soon(examiner.test_message(1024 * 1024)).await, MessageAcceptance::Yes);
        examiner.close().await;
    })
    .await;
}

#[tokio::test]
async fn all_that_is_missing_and_all_that_differs_is_told_at_once() {
    on_broker(async |rig: Rig| {
        let examiner = examiner(&rig, &rig.url.clone()).await;
        let nothing = examiner.compare().await.unwrap();
        assert_eq!((nothing.looked_for, nothing.missing.len()), (ALL, ALL));
        assert_eq!(rig.looked("events").await, None, "looking makes nothing");

        let queue = rig.queue();
        queue.publish(vec![event("a")]).await.unwrap();
        queue.close().await;
        let whole = examiner.compare().await.unwrap();
        assert_eq!(whole, TopologyComparison { looked_for: ALL, ..TopologyComparison::default() });

        let (connection, channel) = rig.channel().await;
        let name = |queue: &str| format!("{}.{queue}", rig.prefix);
        for queue in ["dead.cdn.purge", "delay.03", "unrouted"] {
            channel.queue_delete(name(queue).into(), QueueDeleteOptions::default()).await.unwrap();
        }
        let durable = QueueDeclareOptions { durable: true, ..Default::default() };
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        for queue in ["delay.03", "unrouted"] {
            channel.queue_declare(name(queue).into(), durable, arguments.clone()).await.unwrap();
        }
        let found = examiner.compare().await.unwrap();
        assert_eq!(found.missing, [format!("queue '{}'", name("dead.cdn.purge"))]);
        assert_eq!(found.different.len(), 2, "{:?}", found.different);
        connection.close(200, "".into()).await.unwrap();
        examiner.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_user_who_may_declare_nothing_sees_what_is_missing_and_not_what_differs() {
    on_broker(async |rig: Rig| {
        let few = broker_under(declares_nothing, &rig).await;
        let examiner = examiner(&rig, &few).await;
        assert_eq!(examiner.compare().await.unwrap().missing.len(), ALL);
        let queue = rig.queue();
        queue.publish(vec![event("a")]).await.unwrap();
        let found = examiner.compare().await.unwrap();
        assert!(found.missing.is_empty() && found.different.is_empty());
        assert!(found.incomparable.unwrap().contains("ACCESS_REFUSED"));
        assert_eq!(examiner.test_reply().await, MessageAcceptance::Yes);
        examiner.close().await;
        let examiner = self::examiner(&rig, &broker_under(sends_no_replies, &rig).await).await;
        let refused = examiner.test_reply().await;
        assert!(matches!(&refused, MessageAcceptance::No(reason) if reason.contains("amq.default")), "{refused:?}");
        assert_eq!(examiner.test_message(1).await, MessageAcceptance::Yes, "to the exchange of broadcasts");
        examiner.close().await;
    })
    .await;
}
