//! A broker that says no.

use super::{censor::broker_refusing_at_first, *};
use lapin::{
    ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions, QueuePurgeOptions},
    types::{AMQPValue, FieldTable},
};

pub(super) async fn until_told(queue: &RabbitQueue, all: &[&str]) -> String {
    let told = async {
        loop {
            let problems = queue.health().problems;
            if let Some(problem) = problems.iter().find(|problem| all.iter().all(|each| problem.contains(each))) {
                return problem.clone();
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(15), told).await.unwrap_or_else(|_| panic!("{all:?} not told: {:?}", queue.health()))
}

#[tokio::test]
async fn an_event_that_nothing_is_bound_for_mends_the_topology() {
    on_broker(async |rig: Rig| {
        let queue = rig.queue();
        queue.publish(vec![event("a")]).await.unwrap();
        let (connection, channel) = rig.channel().await;
        let events: lapin::types::ShortString = format!("{}.events", rig.prefix).into();
        channel.queue_unbind(events.clone(), events, "#".into(), FieldTable::default()).await.unwrap();
        connection.close(200, "".into()).await.unwrap();
        // Returns ride on the confirms of others, which are not sent again for that.
        let mixed = (0..100).map(|number| match number % 2 {
            0 => event(&number.to_string()),
            _ => lane(Lane::Jobs, Duration::ZERO, job(&number.to_string())),
        });
        soon(queue.publish(mixed.collect())).await.unwrap();
        assert_eq!((rig.ready("events").await, rig.ready("jobs.cdn.purge").await), (51, 50));
        queue.close().await;
    })
    .await;
}

#[tokio::test]
async fn an_argument_that_differs_is_named_with_the_remedy_and_waited_for() {
    on_broker(async |rig: Rig| {
        let (connection, channel) = rig.channel().await;
        let name = format!("{}.jobs.cdn.purge", rig.prefix);
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(7));
        let durable = QueueDeclareOptions { durable: true, ..Default::default() };
        channel.queue_declare(name.as_str().into(), durable, arguments).await.unwrap();

        let queue = rig.queue();
        let problem = until_told(&queue, &["(publish)", &name, "remedy"]).await;
        println!("{problem}");
        assert!(problem.contains("inequivalent arg") && problem.contains("--topology skip"), "{problem}");
        channel.queue_delete(name.as_str().into(), lapin::options::QueueDeleteOptions::default()).await.unwrap();
        timeout(Duration::from_secs(20), queue.publish(vec![event("a")])).await.unwrap().unwrap();
        connection.close(200, "".into()).await.unwrap();
        queue.close().await;
    })
    .await;
}

#[tokio::test]
async fn verifying_names_what_is_missing_and_makes_nothing() {
    on_broker(async |rig: Rig| {
        let queue = rig.queue_by(&rig.url, TopologyMode::Verify);
        let problem = until_told(&queue, &["NOT_FOUND", "remedy: run once with --topology declare"]).await;
        println!("{problem}");
        assert_eq!(rig.looked("events").await, None);
        let declaring = rig.queue();
        declaring.publish(vec![event("a")]).await.unwrap();
        timeout(Duration::from_secs(20), queue.publish(vec![event("b")])).await.unwrap().unwrap();
        queue.close().await;
        declaring.close().await;
    })
    .await;
}

#[tokio::test]
async fn verifying_names_an_argument_that_differs_with_the_remedy() {
    on_broker(async |rig: Rig| {
        let declaring = rig.queue();
        declaring.publish(vec![event("a")]).await.unwrap();
        let (connection, channel) = rig.channel().await;
        let name = format!("{}.resume.cdn.purge", rig.prefix);
        channel.queue_delete(name.as_str().into(), lapin::options::QueueDeleteOptions::default()).await.unwrap();
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(7));
        channel.queue_declare(name.as_str().into(), QueueDeclareOptions::durable(), arguments).await.unwrap();
        let queue = rig.queue_by(&rig.url, TopologyMode::Verify);
        let problem = until_told(&queue, &["(publish)", &name, "inequivalent arg", "remedy"]).await;
        assert!(problem.contains("--topology skip"), "{problem}");
        connection.close(200, "".into()).await.unwrap();
        queue.close().await;
        declaring.close().await;
    })
    .await;
}

#[tokio::test]
async fn what_a_full_queue_refuses_is_held_told_and_sent_again() {
    on_broker(async |rig: Rig| {
        let (connection, channel) = rig.channel().await;
        let (work, jobs) = (format!("{}.work", rig.prefix), format!("{}.jobs.cdn.purge", rig.prefix));
        let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
        channel
            .exchange_declare(work.as_str().into(), ExchangeKind::Topic, durable, FieldTable::default())
            .await
            .unwrap();
        let mut arguments = FieldTable::default();
        arguments.insert("x-max-length".into(), AMQPValue::LongInt(1));
        arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
        channel.queue_declare(jobs.as_str().into(), QueueDeclareOptions::durable(), arguments).await.unwrap();
        let bind = QueueBindOptions::default();
        channel
            .queue_bind(jobs.as_str().into(), work.as_str().into(), "#.cdn.purge".into(), bind, FieldTable::default())
            .await
            .unwrap();

        let queue = rig.queue_by(&rig.url, TopologyMode::Skip);
        soon(queue.publish(vec![lane(Lane::Jobs, Duration::ZERO, job("a"))])).await.unwrap();
        let publishing = tokio::spawn({
            let queue = queue.clone();
            async move { queue.publish(vec![lane(Lane::Jobs, Duration::ZERO, job("b"))]).await }
        });
        println!("{}", until_told(&queue, &["the queue is full or has no leader", &work]).await);
        assert!(!publishing.is_finished());
        channel.queue_purge(jobs.as_str().into(), QueuePurgeOptions::default()).await.unwrap();
        timeout(Duration::from_secs(15), publishing).await.unwrap().unwrap().unwrap();
        sleep(Duration::from_millis(1500)).await;
        assert_eq!(queue.health(), Health::default());
        connection.close(200, "".into()).await.unwrap();
        queue.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_session_whose_publications_are_refused_is_rebuilt() {
    on_broker(async |rig: Rig| {
        let queue = rig.queue_by(&broker_refusing_at_first(&rig).await, TopologyMode::Declare);
        let publishing = tokio::spawn({
            let queue = queue.clone();
            async move { queue.publish(vec![event("a")]).await }
        });
        until_told(&queue, &["refuses (nack)", "the queue is full or has no leader"]).await;
        soon(publishing).await.unwrap().unwrap();
        queue.close().await;
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_routed_is_told_and_makes_no_more_of_its_neighbours() {
    on_broker(async |rig: Rig| {
        rig.queue().publish(vec![event("declared")]).await.unwrap();
        let (connection, channel) = rig.channel().await;
        let events: lapin::types::ShortString = format!("{}.events", rig.prefix).into();
        channel.queue_unbind(events.clone(), events.clone(), "#".into(), FieldTable::default()).await.unwrap();
        // It cannot mend a binding, and tries again and again.
        let queue = rig.queue_by(&rig.url, TopologyMode::Skip);
        let publishing = tokio::spawn({
            let queue = queue.clone();
            let jobs = (0..20).map(|number| lane(Lane::Jobs, Duration::ZERO, job(&number.to_string())));
            let all = [event("a")].into_iter().chain(jobs).collect();
            async move { queue.publish(all).await }
        });
        until_told(&queue, &["nothing is bound for exchange"]).await;
        let again = async {
            while rig.ready("jobs.cdn.purge").await < 20 || queue.health() == Health::default() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        soon(again).await;
        channel
            .queue_bind(events.clone(), events, "#".into(), QueueBindOptions::default(), FieldTable::default())
            .await
            .unwrap();
        timeout(Duration::from_secs(40), publishing).await.unwrap().unwrap().unwrap();
        assert_eq!((rig.ready("events").await, rig.ready("jobs.cdn.purge").await), (2, 20));
        connection.close(200, "".into()).await.unwrap();
        queue.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_wrong_password_is_told_as_such_and_never_shown() {
    on_broker(async |rig: Rig| {
        let mut url = url::Url::parse(&rig.url).unwrap();
        url.set_password(Some("hunter2")).unwrap();
        let queue = rig.queue_by(url.as_str(), TopologyMode::Declare);
        let problem = until_told(&queue, &["access is refused", "password"]).await;
        assert!(!problem.contains("hunter2"), "{problem}");
        queue.close().await;
    })
    .await;
}

#[tokio::test]
async fn what_would_end_the_connection_is_refused_before() {
    on_broker(async |rig: Rig| {
        let queue = rig.queue();
        let heavy = Message { headers: [("genfleet-state".to_owned(), "x".repeat(140_000).into())].into(), ..job("a") };
        assert!(matches!(
            queue.publish(vec![lane(Lane::Jobs, Duration::ZERO, heavy)]).await,
            Err(QueueError::Broker(_))
        ));
        queue.close().await;
    })
    .await;
}
