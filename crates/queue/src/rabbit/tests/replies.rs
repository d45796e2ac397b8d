//! What producers write into `reply_to`, and what they get.

use std::sync::atomic::Ordering;

use futures_util::StreamExt;
use lapin::{
    BasicProperties, Channel, Consumer,
    options::{BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, QueueDeclareOptions},
    types::{FieldTable, ShortString},
};
use metrics_exporter_prometheus::PrometheusHandle;

use super::{
    censor::{MAY_REPLY, broker_under, sends_no_replies, sends_replies_once_permitted},
    *,
};

/// A sound name for direct reply-to, of a node that no broker has: `RabbitMQ` 3 ends the connection over it.
const POISON: &str = "amq.rabbitmq.reply-to.g1h3B3JlcGx5QDEAAAOjAAAAAGsNS08=.jADKApNg76ob0C02zVWjUA==";

async fn own_queue(channel: &Channel, name: &str, arguments: FieldTable) -> String {
    let own = QueueDeclareOptions { exclusive: true, ..Default::default() };
    channel.queue_declare(name.into(), own, arguments).await.unwrap().name().to_string()
}

fn given_up(metrics: &PrometheusHandle, reason: &str) -> u64 {
    let line = format!("genfleet_replies_given_up_total{{reason=\"{reason}\"}} ");
    metrics.render().lines().find_map(|each| each.strip_prefix(&line)?.parse().ok()).unwrap_or_default()
}

async fn until_given_up(metrics: &PrometheusHandle, reason: &str, count: u64) {
    let counted = async {
        while given_up(metrics, reason) < count {
            sleep(Duration::from_millis(20)).await;
        }
    };
    soon(counted).await;
    assert_eq!(given_up(metrics, reason), count, "{}", metrics.render());
}

/// A direct reply-to, by the name that reaches whoever answers.
async fn direct(channel: &Channel) -> (Consumer, String) {
    let reply_to = "amq.rabbitmq.reply-to";
    let unacknowledged = BasicConsumeOptions { no_ack: true, ..Default::default() };
    let consumer = channel.basic_consume(reply_to.into(), "".into(), unacknowledged, FieldTable::default()).await;
    let asked = own_queue(channel, "", FieldTable::default()).await;
    let properties = BasicProperties::default().with_reply_to(reply_to.into());
    channel
        .basic_publish("".into(), asked.as_str().into(), BasicPublishOptions::default(), b"", properties)
        .await
        .unwrap();
    let got = async {
        loop {
            let got = channel.basic_get(asked.as_str().into(), BasicGetOptions { no_ack: true }).await.unwrap();
            if let Some(got) = got {
                break got.properties.reply_to().as_ref().unwrap().to_string();
            }
        }
    };
    (consumer.unwrap(), soon(got).await)
}

#[tokio::test]
async fn hostile_names_cost_nothing_but_their_own_reply() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    let _local = metrics::set_default_local_recorder(&recorder);
    on_broker(async move |rig: Rig| {
        let queue = rig.queue();
        let (connection, channel) = rig.channel().await;
        let theirs = own_queue(&channel, &format!("{}x.theirs", rig.prefix), FieldTable::default()).await;
        queue.publish(vec![event("first")]).await.unwrap();
        let ours = ["delay.03", "dead.cdn.purge", "suspect.cdn.purge", "jobs.cdn.purge", "unrouted", "events", "own"];
        let ours = ours.map(|name| format!("{}.{name}", rig.prefix));
        let hostile = ["amq.rabbitmq.reply-to.AAAA.BBBB", "amq.rabbitmq.reply-to", "nowhere", &theirs];
        let hostile: Vec<_> = hostile.into_iter().chain(ours.iter().map(String::as_str)).collect();
        for (number, name) in hostile.iter().enumerate() {
            let id = number.to_string();
            soon(queue.publish(vec![event(&id), reply(name, &id)])).await.unwrap();
        }
        let refused = u64::try_from(hostile.len()).unwrap();
        assert_eq!(given_up(&metrics, "not_allowed"), refused, "{}", metrics.render());
        for kept in ["delay.03", "dead.cdn.purge", "suspect.cdn.purge", "jobs.cdn.purge", "unrouted"] {
            assert_eq!(rig.ready(kept).await, 0, "{kept}");
        }
        assert_eq!(rig.ready("events").await as usize, 1 + hostile.len());
        assert!(channel.basic_get(theirs.as_str().into(), BasicGetOptions::default()).await.unwrap().is_none());
        let began = Instant::now();
        queue.close().await;
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        connection.close(200, "".into()).await.unwrap();
        assert!(metrics.render().contains("genfleet_broker_reconnects_total{role=\"publish\"} 0\n"));
    })
    .await;
}

#[tokio::test]
async fn a_name_that_ends_the_connection_costs_its_own_reply_and_no_other() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    let _local = metrics::set_default_local_recorder(&recorder);
    on_broker(async move |rig: Rig| {
        let queue = rig.queue();
        let (connection, channel) = rig.channel().await;
        let answers = own_queue(&channel, "", FieldTable::default()).await;
        let (mut directly, name) = direct(&channel).await;
        for _ in 0..3 {
            let mixed = [reply(&answers, "a"), reply(&name, "b"), reply(POISON, "c"), reply(&answers, "d"), event("e")];
            soon(queue.publish(mixed.into())).await.unwrap();
        }
        let mut got = Vec::new();
        let all = async {
            while got.len() < 6 {
                let answer =
                    channel.basic_get(answers.as_str().into(), BasicGetOptions { no_ack: true }).await.unwrap();
                match answer {
                    Some(answer) => got.extend(answer.properties.message_id().as_ref().map(ToString::to_string)),
                    None => sleep(Duration::from_millis(20)).await,
                }
            }
        };
        timeout(Duration::from_secs(30), all).await.unwrap();
        assert_eq!(got, ["a", "d", "a", "d", "a", "d"]);
        for _ in 0..3 {
            let answer = soon(directly.next()).await.unwrap().unwrap();
            assert_eq!(answer.properties.message_id().as_ref().map(ShortString::as_str), Some("b"));
        }
        // RabbitMQ 4 drops it in silence.
        assert!([0, 3].contains(&given_up(&metrics, "failed")), "{}", metrics.render());
        assert_eq!(rig.ready("events").await, 3);
        assert!(metrics.render().contains("genfleet_broker_reconnects_total{role=\"publish\"} 0\n"));
        assert_eq!(queue.health(), Health::default());
        connection.close(200, "".into()).await.unwrap();
        queue.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_reply_is_sent_to_allowed_names_and_counted_where_nobody_is() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    let _local = metrics::set_default_local_recorder(&recorder);
    on_broker(async move |rig: Rig| {
        let queue = rig.queue();
        let (connection, channel) = rig.channel().await;
        let answers = own_queue(&channel, &format!("answers.{}", rig.prefix), FieldTable::default()).await;
        queue.publish(vec![event("declared"), reply(&answers, "a")]).await.unwrap();
        assert_eq!(given_up(&metrics, "not_allowed"), 1);
        queue.allow_replies(vec!["answers.*".parse().unwrap()]);
        let mut asked = reply(&answers, "b");
        asked.message.correlation_id = Some("question".to_owned());
        let gone = (0..40).map(|number| reply("answers.gone", &number.to_string()));
        queue.publish(gone.chain([asked]).collect()).await.unwrap();
        let answer = async {
            loop {
                let got = channel.basic_get(answers.as_str().into(), BasicGetOptions { no_ack: true }).await.unwrap();
                match got {
                    Some(got) => break got.delivery.properties,
                    None => sleep(Duration::from_millis(20)).await,
                }
            }
        };
        let properties = soon(answer).await;
        assert_eq!(properties.message_id().as_ref().map(ShortString::as_str), Some("b"));
        assert_eq!(properties.correlation_id().as_ref().map(ShortString::as_str), Some("question"));
        until_given_up(&metrics, "unroutable", 40).await;
        assert!(metrics.render().contains("genfleet_replies_unroutable_total 40\n"));
        assert_eq!(rig.ready("unrouted").await, 0);
        connection.close(200, "".into()).await.unwrap();
        queue.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_full_reply_queue_loses_its_reply_and_holds_up_nobody() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    let _local = metrics::set_default_local_recorder(&recorder);
    on_broker(async move |rig: Rig| {
        let queue = rig.queue();
        let (connection, channel) = rig.channel().await;
        let mut arguments = FieldTable::default();
        arguments.insert("x-max-length".into(), lapin::types::AMQPValue::LongInt(1));
        arguments.insert("x-overflow".into(), lapin::types::AMQPValue::LongString("reject-publish".into()));
        let full = own_queue(&channel, "", arguments).await;
        let three = ["a", "b", "c"].map(|id| reply(&full, id));
        soon(queue.publish(three.into())).await.unwrap();
        until_given_up(&metrics, "failed", 2).await;
        connection.close(200, "".into()).await.unwrap();
        queue.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_user_who_may_send_no_replies_is_told_once_and_loses_nothing_else() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    let _local = metrics::set_default_local_recorder(&recorder);
    on_broker(async move |rig: Rig| {
        let few = broker_under(sends_no_replies, &rig).await;
        let queue = rig.queue_by(&few, TopologyMode::Declare);
        for number in 0..20 {
            let id = number.to_string();
            soon(queue.publish(vec![reply("amq.gen-answers", &id), event(&id)])).await.unwrap();
        }
        until_given_up(&metrics, "failed", 20).await;
        assert!(metrics.render().contains("genfleet_broker_reconnects_total{role=\"publish\"} 0\n"));
        let Health { problems, notes, .. } = queue.health();
        assert_eq!((problems, rig.ready("events").await), (vec![], 20));
        assert!(notes.len() == 1 && notes[0].contains("(amq.default)"), "{notes:?}");
        queue.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_user_who_is_given_the_right_to_send_replies_sends_them_without_a_restart() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    let _local = metrics::set_default_local_recorder(&recorder);
    on_broker(async move |rig: Rig| {
        MAY_REPLY.store(false, Ordering::Release);
        let few = broker_under(sends_replies_once_permitted, &rig).await;
        let queue = rig.queue_by(&few, TopologyMode::Declare);
        let (connection, channel) = rig.channel().await;
        let answers = own_queue(&channel, "", FieldTable::default()).await;
        soon(queue.publish(vec![reply(&answers, "refused")])).await.unwrap();
        until_given_up(&metrics, "failed", 1).await;
        MAY_REPLY.store(true, Ordering::Release);
        soon(queue.publish(vec![reply(&answers, "too early")])).await.unwrap();
        until_given_up(&metrics, "failed", 2).await;
        queue.shared.settlements.publisher.replies.retry_forbidden();
        soon(queue.publish(vec![reply(&answers, "sent")])).await.unwrap();
        let sent = async {
            while !queue.health().notes.is_empty() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        soon(sent).await;
        let answer = channel.basic_get(answers.as_str().into(), BasicGetOptions { no_ack: true }).await.unwrap();
        let properties = answer.unwrap().delivery.properties;
        assert_eq!(properties.message_id().as_ref().map(ShortString::as_str), Some("sent"));
        connection.close(200, "".into()).await.unwrap();
        queue.close().await;
    })
    .await;
}

#[tokio::test]
async fn replies_that_cannot_be_sent_wait_in_bounded_memory_and_never_for_the_end_of_the_process() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    let _local = metrics::set_default_local_recorder(&recorder);
    on_broker(async move |rig: Rig| {
        let proxy = Proxy::opened(&rig).await;
        let queue = rig.queue_by(&proxy.url(&rig), TopologyMode::Declare);
        queue.publish(vec![event("first")]).await.unwrap();
        // The connection for replies is not there yet, and its dialling is never answered.
        proxy.mute();
        let large = |number: u32| {
            let mut large = reply("amq.gen-answers", &number.to_string());
            large.message.body = vec![b'x'; 1024 * 1024].into();
            large
        };
        soon(queue.publish((0..40).map(large).collect())).await.unwrap();
        let kept = 40 - given_up(&metrics, "dropped");
        assert!((10..=16).contains(&kept), "{kept} of 1 MiB are kept");
        let began = Instant::now();
        queue.close().await;
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        assert_eq!(given_up(&metrics, "dropped") + given_up(&metrics, "failed"), 40, "{}", metrics.render());
    })
    .await;
}
