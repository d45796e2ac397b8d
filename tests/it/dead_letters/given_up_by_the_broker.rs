//! Messages that the broker itself dead-letters have no headers of workers, and are shown with the broker's reason.

use lapin::options::{BasicGetOptions, BasicNackOptions};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn its_delivery_limit_and_a_producers_expiration_are_reasons_like_others() {
    let (broker, prefix, amqp) = grounds().await;
    let work = format!("{prefix}.jobs.cdn.purge");
    amqp.publish_job(&prefix, "cdn.purge", purge_job("poison", &["/a"]), json_properties()).await;
    for _ in 0..=20 {
        let got = eventually(seconds(10), "it is handed out", async || {
            amqp.channel().basic_get(work.as_str().into(), BasicGetOptions::default()).await.unwrap()
        })
        .await;
        let back = BasicNackOptions { requeue: true, multiple: false };
        amqp.channel().basic_nack(got.delivery.delivery_tag, back).await.unwrap();
    }
    let dead = format!("{prefix}.dead.cdn.purge");
    eventually(seconds(20), "it is given up", async || amqp.count(&dead).await == 1).await;
    let short_lived = json_properties().with_expiration("1".into());
    amqp.publish_job(&prefix, "cdn.purge", purge_job("late", &["/a"]), short_lived).await;
    eventually(seconds(20), "it has expired", async || amqp.count(&dead).await == 2).await;

    let listed = json_of(broker.url(), &prefix, &["dead", "list"]).await;
    let mut reasons: Vec<_> =
        listed["groups"].as_array().unwrap().iter().map(|group| group["reason"].clone()).collect();
    reasons.sort_by_key(Value::to_string);
    assert_eq!(reasons, ["broker:delivery_limit", "broker:expired"]);
    assert!(listed["groups"][0]["firstSeen"].is_string(), "{listed}");
    let one = json_of(broker.url(), &prefix, &["dead", "list", "--reason", "broker:expired"]).await;
    assert_eq!((&one["total"], &one["groups"][0]["example"]["id"]), (&json!(1), &json!("late")));
    let shown = printed(broker.url(), &prefix, &["dead", "show", "poison"], 0).await;
    assert!(shown.contains("x-death") && shown.contains(&work), "{shown}");

    let print = one["groups"][0]["fingerprint"].as_str().unwrap();
    assert_eq!(json_of(broker.url(), &prefix, &["dead", "redrive", "--fingerprint", print, "--yes"]).await["done"], 1);
    let jobs = amqp.get_all(&work).await;
    assert_eq!(jobs.len(), 1);
    assert_eq!(
        sent_along(&jobs[0]),
        ["genfleet-generation", "genfleet-redriven-by"],
        "nothing of the broker's goes along"
    );
    assert_eq!(*jobs[0].properties.expiration(), None, "or it would expire again");
    assert_eq!(json_of(broker.url(), &prefix, &["dead", "discard", "--reason", "broker", "--yes"]).await["done"], 1);
}

/// The broker also dead-letters by the keys of `CC` and `BCC`.
#[tokio::test(flavor = "multi_thread")]
async fn no_producer_has_a_job_redriven_of_a_kind_that_it_never_was_of() {
    let (broker, prefix, amqp) = grounds().await;
    let forged = |header: &str, keys: &[&str]| {
        let keys: Vec<_> = keys.iter().map(|key| AMQPValue::LongString((*key).into())).collect();
        let mut headers = FieldTable::default();
        headers.insert(header.into(), AMQPValue::FieldArray(keys.into()));
        json_properties().with_expiration("0".into()).with_headers(headers)
    };
    let copies = forged("CC", &["x.webhook.deliver", "file.scan.x"]);
    amqp.publish_job(&prefix, "cdn.purge", purge_job("copied", &["/a"]), copies).await;
    amqp.publish_job(&prefix, "cdn.purge", purge_job("blind", &["/a"]), forged("BCC", &["x.webhook.deliver"])).await;
    // This one is in the queue of an existing kind, and its body names an internal kind.
    amqp.publish_job(&prefix, "webhook.deliver", purge_job("named", &["/a"]), forged("CC", &["cdn.purge"])).await;
    let count = async |queue: &str| amqp.count(&format!("{prefix}.{queue}")).await;
    eventually(seconds(20), "all copies are on their shelves", async || {
        (count("dead.webhook.deliver").await, count("dead.file.scan").await, count("dead.cdn.purge").await) == (3, 1, 3)
    })
    .await;

    let listed = json_of(broker.url(), &prefix, &["dead", "list", "--reason", "foreign"]).await;
    assert_eq!(listed["total"], 5, "{listed}");
    let dry = json_of(broker.url(), &prefix, &["dead", "redrive", "--dry-run"]).await;
    assert_eq!((&dry["would"], &dry["foreign"]), (&json!(2), &json!(5)), "{dry}");
    for arguments in [&["--kind", "webhook.deliver"][..], &["--reason", "foreign", "--as", "cdn.purge"], &[]] {
        let redriven = json_of(broker.url(), &prefix, &[&["dead", "redrive", "--yes"], arguments].concat()).await;
        let expected = if arguments.is_empty() { 2 } else { 0 };
        assert_eq!(redriven["done"], expected, "{arguments:?}: {redriven}");
    }
    assert_eq!(
        (count("jobs.cdn.purge").await, count("jobs.webhook.deliver").await, count("jobs.file.scan").await),
        (2, 0, 0)
    );
    let shown = printed(broker.url(), &prefix, &["dead", "show", "--kind", "file.scan"], 0).await;
    assert!(shown.contains("foreign") && shown.contains("CC or BCC"), "{shown}");
    let discarded = json_of(broker.url(), &prefix, &["dead", "discard", "--reason", "foreign", "--yes"]).await;
    assert_eq!(discarded["done"], 5, "{discarded}");
}
