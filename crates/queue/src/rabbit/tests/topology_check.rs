//! What is taken away while processes run is noticed, and made again if that is wanted.

use lapin::{
    Channel,
    options::{BasicPublishOptions, ExchangeDeclareOptions, QueueDeleteOptions},
    types::FieldTable,
};

use super::*;

const NOTHING: fn() -> FieldTable = FieldTable::default;

async fn delete_exchange(channel: &Channel, name: &str) {
    channel.exchange_delete(name.into(), ExchangeDeleteOptions::default()).await.unwrap();
}

/// Returns true if a job sent through the door reaches its queue.
async fn sent_through(rig: &Rig, channel: &Channel, id: &str) {
    let (door, key) = (format!("{}.jobs", rig.prefix), "cdn.purge");
    let properties = lapin::BasicProperties::default().with_message_id(id.into());
    channel
        .basic_publish(door.as_str().into(), key.into(), BasicPublishOptions::default(), b"{}", properties)
        .await
        .unwrap();
}

async fn until_told(queue: &RabbitQueue, words: &[&str]) {
    soon(async {
        loop {
            let problems = queue.health().problems.join("\n");
            if words.iter().all(|word| problems.contains(word)) && words.is_empty() == problems.is_empty() {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_gone_is_declared_again_and_no_session_is_lost_over_it() {
    on_broker(async |rig: Rig| {
        let queue = rig.watchful(TopologyMode::Declare);
        let consumer = queue.consume(Kind::CdnPurge, 4);
        rig.declared().await;
        let (connection, channel) = rig.channel().await;
        let (door, jobs) = (format!("{}.jobs", rig.prefix), format!("{}.jobs.cdn.purge", rig.prefix));
        let gone = format!("{}.events", rig.prefix);
        channel.queue_delete(gone.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
        for name in ["delay.03", "dead", "events", "control"] {
            delete_exchange(&channel, &format!("{}.{name}", rig.prefix)).await;
        }
        channel.queue_unbind(jobs.into(), door.as_str().into(), "cdn.purge".into(), NOTHING()).await.unwrap();
        soon(async {
            while rig.looked("events").await.is_none() {
                sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
        until_told(&queue, &[]).await;
        // Bound again as well, if it was asked for nothing.
        let mut sent = 0;
        let delivery = soon(async {
            loop {
                sent += 1;
                sent_through(&rig, &channel, &sent.to_string()).await;
                if let Ok(delivery) = timeout(Duration::from_millis(200), consumer.next()).await {
                    return delivery;
                }
            }
        })
        .await;
        let late = lane(Lane::Resume, Duration::from_secs(8), job("delayed"));
        delivery.settler.settle(vec![late, event("1")]).await.unwrap();
        assert_eq!(rig.ready("events").await, 1);
        assert!(
            !queue.lost_session_within(Duration::from_secs(60)),
            "the deliveries of this process are its own still"
        );
        let _ = connection.close(200, "".into()).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_may_be_declared_what_is_gone_is_a_problem_until_it_is_back() {
    on_broker(async |rig: Rig| {
        let (declaring, verifying) = (rig.queue(), rig.watchful(TopologyMode::Verify));
        let _consumer = verifying.consume(Kind::CdnPurge, 4);
        rig.declared().await;
        until_told(&verifying, &[]).await;
        declaring.close().await;
        let (connection, channel) = rig.channel().await;
        let control = format!("{}.control", rig.prefix);
        delete_exchange(&channel, &control).await;
        until_told(&verifying, &["no exchange", &control, "--topology declare"]).await;
        assert_eq!(verifying.health().problems.len(), 1, "both connections are there");
        let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
        channel.exchange_declare(control.into(), lapin::ExchangeKind::Topic, durable, NOTHING()).await.unwrap();
        until_told(&verifying, &[]).await;
        assert!(!verifying.lost_session_within(Duration::from_secs(60)));
        let _ = connection.close(200, "".into()).await;
    })
    .await;
}

async fn delete_queue(channel: &Channel, name: &str) {
    channel.queue_delete(name.into(), QueueDeleteOptions::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_queues_of_own_kinds_are_needed_and_all_missing_ones_are_told_at_once() {
    on_broker(async |rig: Rig| {
        let declaring = rig.queue();
        rig.declared().await;
        declaring.close().await;
        let (connection, channel) = rig.channel().await;
        let name = |queue: &str| format!("{}.{queue}", rig.prefix);
        let of_another = [name("jobs.file.scan"), name("dead.file.scan")];
        for queue in &of_another {
            delete_queue(&channel, queue).await;
        }
        let of_kinds = |kinds: &[Kind]| {
            let settings = rig.settings(&rig.url, TopologyMode::Verify);
            RabbitSettings { kinds: kinds.to_vec(), watchdog: Duration::from_secs(1), ..settings }
        };
        let queue = rig.queue_with(of_kinds(&[Kind::CdnPurge]));
        let consumer = queue.consume(Kind::CdnPurge, 4);
        queue.publish(vec![lane(Lane::Jobs, Duration::ZERO, job("a"))]).await.unwrap();
        soon(consumer.next()).await.settler.settle(Vec::new()).await.unwrap();
        assert_eq!(queue.health(), Health::default());

        let both = rig.queue_with(of_kinds(&[Kind::CdnPurge, Kind::FileScan]));
        until_told(&both, &["NOT_FOUND", &of_another[0], &of_another[1], "--topology declare"]).await;
        // None that is consumed or counted, which would end the session.
        let own = [name("events"), name("jobs.unknown"), name("resume.webhook.deliver")];
        for queue in &own {
            delete_queue(&channel, queue).await;
        }
        until_told(&queue, &["NOT_FOUND", &own[0], &own[1], &own[2]]).await;
        let problems = queue.health().problems;
        assert!(problems.len() == 1 && !problems[0].contains("file.scan"), "{problems:?}");
        assert!(!queue.lost_session_within(Duration::from_secs(60)));
        let _ = connection.close(200, "".into()).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binding_that_is_gone_is_noticed_by_the_first_message_it_should_have_routed() {
    on_broker(async |rig: Rig| {
        let (declaring, verifying) = (rig.queue(), rig.queue_by(&rig.url, TopologyMode::Verify));
        let mut unknown_kinds = verifying.unknown_kinds();
        let _consumer = verifying.consume(Kind::CdnPurge, 4);
        rig.declared().await;
        until_told(&verifying, &[]).await;
        let (connection, channel) = rig.channel().await;
        let work = format!("{}.work", rig.prefix);
        let resume = format!("{}.resume.cdn.purge", rig.prefix);
        let key = "#.cdn.purge.resume".into();
        channel.queue_unbind(resume.into(), work.as_str().into(), key, NOTHING()).await.unwrap();
        declaring.publish(vec![lane(Lane::Resume, Duration::ZERO, job("lost"))]).await.unwrap();
        until_told(&verifying, &["a binding was gone at", "ready again at", &work, "cdn.purge.resume"]).await;
        // What is of no kind proves nothing; it is answered.
        let door = format!("{}.jobs", rig.prefix);
        let options = BasicPublishOptions::default();
        channel
            .basic_publish(door.into(), "no.kind".into(), options, b"{}", lapin::BasicProperties::default())
            .await
            .unwrap();
        let unrouted = soon(unknown_kinds.recv()).await.unwrap();
        assert_eq!(unrouted.key, "no.kind");
        assert_eq!(verifying.health().problems.len(), 1);
        let _ = connection.close(200, "".into()).await;
    })
    .await;
}
