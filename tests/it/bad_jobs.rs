//! Invalid jobs are reported, kept byte for byte, and delay no other job.

use std::{collections::BTreeMap, time::Duration};

use harness::{Amqp, Broker, Prefix, eventually, json_properties, seconds};
use serde_json::{Value, json};

use crate::stack::{outcomes, purge_job, simulator, worker};

fn bad_bodies() -> Vec<(&'static str, Vec<u8>)> {
    let too_many: Vec<String> = (0..10_001).map(|n| format!("/{n}")).collect();
    let padding = "x".repeat(2 * 1024 * 1024);
    vec![
        ("garbage", b"\x00\xffnot json".to_vec()),
        ("other-kind", json!({"id": "other-kind", "kind": "vni.provision", "payload": {}}).to_string().into()),
        (
            "unknown-field",
            json!({"id": "unknown-field", "payload": {"paths": ["/a"], "path": 1}, "colour": 2}).to_string().into(),
        ),
        ("too-many", json!({"id": "too-many", "payload": {"paths": too_many}}).to_string().into()),
        ("too-large", json!({"id": "too-large", "payload": {"paths": ["/a"]}, "padding": padding}).to_string().into()),
        ("wrong-paths", purge_job("wrong-paths", &["/ok", "no-slash", "/a b", "/*"]).into()),
        (
            "webhook",
            json!({"id": "webhook", "payload": {"paths": ["/a"]}, "webhook": {"url": "https://example.org"}})
                .to_string()
                .into(),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_ends_in_an_event_that_says_what_and_where_and_its_bytes_are_kept() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    let purger = worker("purger", broker, &prefix, &simulator).start();
    purger.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    for (name, body) in bad_bodies() {
        amqp.publish_job(&prefix, "cdn.purge", body, json_properties().with_message_id(name.into())).await;
    }
    amqp.publish_job(&prefix, "cdn.purge", purge_job("good", &["/good"]), json_properties()).await;

    let by_job = outcomes(&mut events, bad_bodies().len() + 1, seconds(30)).await;
    let error = |job: &str| &by_job[job][0]["data"]["error"];
    assert_eq!(by_job["good"][0]["data"]["outcome"], "succeeded");
    assert_eq!(error("garbage")["code"], "undecodable");
    assert_eq!(error("other-kind")["code"], "kind_mismatch");
    assert_eq!(pointers(error("unknown-field")), ["/colour", "/payload/path"]);
    assert_eq!(pointers(error("too-many")), ["/payload/paths"]);
    assert_eq!(error("too-large")["code"], "too_large");
    assert_eq!(pointers(error("wrong-paths")), ["/payload/paths/1", "/payload/paths/2", "/payload/paths/3"]);
    assert_eq!(pointers(error("webhook")), ["/webhook"]);

    let dead = eventually(seconds(10), "all are dead letters", async || {
        let dead = amqp.get_all(&format!("{prefix}.dead.cdn.purge")).await;
        (dead.len() == bad_bodies().len()).then_some(dead)
    })
    .await;
    let dead: BTreeMap<String, _> =
        dead.into_iter().map(|one| (one.properties.message_id().clone().unwrap().to_string(), one)).collect();
    for (name, body) in bad_bodies() {
        assert_eq!(dead[name].body, body, "{name}");
        assert_eq!(dead[name].header("genfleet-reason").as_deref(), error(name)["code"].as_str());
        for header in [
            "genfleet-error",
            "genfleet-attempts",
            "genfleet-failed-at",
            "genfleet-worker",
            "genfleet-fingerprint",
            "genfleet-generation",
        ] {
            assert!(dead[name].header(header).is_some(), "{name}: {header}");
        }
    }
    assert!(purger.is_running());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_nobody_knows_is_answered_and_the_message_kept() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    let purger = worker("purger", broker, &prefix, &simulator).start();
    purger.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    let answers = exclusive(&amqp, "").await;
    let asks = || json_properties().with_reply_to(answers.as_str().into()).with_correlation_id("question".into());
    let hostile = b"\x00\xffnot json".to_vec();
    let sent = [
        ("cdn.prune", br#"{"id":"misspelt","kind":"cdn.prune","payload":{"paths":["/a"]}}"#.to_vec(), "misspelt"),
        ("", br#"{"id":"cut off","id":"cut-off","payload":{"#.to_vec(), "cut-off"),
        ("webhook.deliver", br#"{"id":"internal"}"#.to_vec(), "internal"),
        ("cdn.prune", hostile.clone(), "from-the-message"),
    ];
    for (key, body, _) in &sent {
        amqp.publish_job(&prefix, key, body, asks().with_message_id("from-the-message".into())).await;
    }
    // Messages of workers that match no queue have no producer to inform.
    amqp.publish_raw(&format!("{prefix}.work"), "no.lane", r#"{"id":"ours"}"#, asks()).await;
    amqp.publish_job(&prefix, "cdn.purge", purge_job("good", &["/good"]), json_properties()).await;

    let by_job = outcomes(&mut events, sent.len() + 1, seconds(10)).await;
    assert_eq!(by_job["good"][0]["data"]["outcome"], "succeeded");
    for (_, _, id) in &sent {
        let event = &by_job[*id][0];
        assert_eq!((&event["type"], &event["data"]["kind"]), (&json!("genfleet.unknown.failed"), &json!("unknown")));
        assert_eq!(event["data"]["error"]["code"], "unknown_kind", "{id}");
    }
    let output = by_job["misspelt"][0]["data"]["error"]["message"].as_str().unwrap();
    assert!(output.contains("did you mean cdn.purge?"), "{output}");
    let replies = eventually(seconds(10), "each is answered", async || {
        let replies = amqp.get_all(&answers).await;
        (replies.len() == sent.len()).then_some(replies)
    })
    .await;
    for reply in replies {
        assert_eq!(reply.json()["id"], by_job[reply.json()["subject"].as_str().unwrap()][0]["id"]);
        assert_eq!(reply.properties.correlation_id().as_ref().map(ToString::to_string).as_deref(), Some("question"));
    }
    let kept: Vec<_> = amqp.get_all(&format!("{prefix}.unrouted")).await.into_iter().map(|one| one.body).collect();
    let ours = br#"{"id":"ours"}"#.to_vec();
    assert_eq!(kept, sent.iter().map(|(_, body, _)| body.clone()).chain([ours]).collect::<Vec<_>>());
    eventually(seconds(10), "all copies are settled", async || {
        amqp.count(&format!("{prefix}.jobs.unknown")).await == 0
    })
    .await;
    assert!(events.next_message(seconds(1)).await.is_none(), "ours has no event");
    purger.terminate();
    assert_eq!(purger.wait(seconds(10)).await, 0, "{}", purger.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_nobody_knows_is_answered_once_a_worker_is_there() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    let amqp = Amqp::connect(broker.url()).await;
    let first = worker("purger", broker, &prefix, &simulator).start();
    first.wait_ready(seconds(30)).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    first.terminate();
    assert_eq!(first.wait(seconds(10)).await, 0, "{}", first.stderr());
    amqp.publish_job(&prefix, "file.scna", r#"{"id":"early"}"#, json_properties()).await;
    let scanner = worker("scan-monitor", broker, &prefix, &simulator).start();
    let event = events.next_event(seconds(30)).await;
    assert_eq!((&event["subject"], &event["data"]["error"]["code"]), (&json!("early"), &json!("unknown_kind")));
    assert!(scanner.is_running());
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_of_a_producer_do_not_count() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    let purger = worker("purger", broker, &prefix, &simulator).start();
    purger.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    let forged = json_properties().with_headers(harness::headers([
        ("genfleet-generation", "7"),
        ("genfleet-attempts", "7"),
        ("genfleet-state", "?"),
    ]));
    amqp.publish_job(&prefix, "cdn.purge", purge_job("forged", &["/forged"]), forged).await;
    let event = events.next_event(seconds(10)).await;
    assert_eq!(event["data"]["generation"], 0);
    assert_eq!(event["data"]["attempts"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_without_any_id_keeps_the_derived_one_over_a_delay() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    let purger = worker("purger", broker, &prefix, &simulator).start();
    purger.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    let soon = genfleet_core::clock::Clock::now(&genfleet_core::clock::SystemClock) + Duration::from_secs(2);
    let body = json!({"notBefore": soon.to_string(), "payload": {"paths": ["/nameless"]}}).to_string();
    let expected = genfleet_core::job::JobId::derive(body.as_bytes(), None).to_string();
    amqp.publish_job(&prefix, "cdn.purge", &body, lapin::BasicProperties::default()).await;
    let event = events.next_event(seconds(20)).await;
    assert_eq!(event["data"]["jobId"], expected);
    assert_eq!(event["data"]["outcome"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_huge_tracestate_is_dropped_and_the_job_runs_once() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    let purger = worker("purger", broker, &prefix, &simulator).start();
    purger.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    let huge = "x".repeat(70_000);
    let properties = json_properties().with_headers(harness::headers([("tracestate", huge.as_str())]));
    amqp.publish_job(&prefix, "cdn.purge", purge_job("traced", &["/traced"]), properties).await;
    assert_eq!(events.next_event(seconds(20)).await["data"]["outcome"], "succeeded");
    assert!(events.next_message(seconds(2)).await.is_none(), "once");
    assert_eq!(simulator.purge_counts()["/traced"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_jobs_of_one_id_hold_up_nobody_and_each_ends() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    let purger = worker("purger", broker, &prefix, &simulator).args(["--concurrency", "4"]).start();
    purger.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    let jobs = (0..30).map(|n| (purge_job("the-same", &[&format!("/same/{n}")]), json_properties()));
    amqp.publish_jobs(&prefix, "cdn.purge", jobs).await;
    amqp.publish_job(&prefix, "cdn.purge", purge_job("another", &["/another"]), json_properties()).await;
    let all = events.collect_events(31, seconds(60)).await;
    assert!(all.iter().all(|event| event["data"]["outcome"] == "succeeded"));
    assert_eq!(simulator.purge_counts().len(), 31, "two messages with one id are two jobs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_was_redriven_while_it_runs_is_not_answered_with_that_end() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    simulator.set_faults(vec!["latency=2s,times=1".parse().unwrap()]);
    let purger = worker("purger", broker, &prefix, &simulator).start();
    purger.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    amqp.publish_job(&prefix, "cdn.purge", purge_job("again", &["/again"]), json_properties()).await;
    eventually(seconds(20), "its request is on its way", async || {
        simulator.requests().iter().any(|r| r.path.ends_with("/purge"))
    })
    .await;
    let redriven = json_properties().with_headers(harness::headers([("genfleet-generation", "1")]));
    amqp.publish_raw(&format!("{prefix}.work"), "cdn.purge", purge_job("again", &["/again"]), redriven).await;
    let all = events.collect_events(2, seconds(30)).await;
    let generations: Vec<_> = all.iter().map(|event| event["data"]["generation"].as_u64()).collect();
    assert_eq!(generations, [Some(0), Some(1)]);
    assert_ne!(all[0]["id"], all[1]["id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_final_event_also_goes_to_reply_to_where_that_may_be_named() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    let allowed = format!("{prefix}.answers,gone-{prefix}*");
    let purger = worker("purger", broker, &prefix, &simulator).env("GENFLEET_REPLY_TO_ALLOW", &allowed).start();
    purger.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    let answers = [exclusive(&amqp, &format!("{prefix}.answers")).await, exclusive(&amqp, "").await];
    let theirs = exclusive(&amqp, &format!("billing-{prefix}")).await;
    let asks = |queue: &str| json_properties().with_reply_to(queue.into()).with_correlation_id("question".into());
    let gone = format!("gone-{prefix}");
    let hostile = ["delay.03", "dead.cdn.purge", "suspect.cdn.purge"].map(|queue| format!("{prefix}.{queue}"));
    let poison = "amq.rabbitmq.reply-to.AAAA.BBBB".to_owned();
    let names: Vec<_> = answers.iter().chain([&theirs, &gone, &poison]).chain(&hostile).collect();
    for (number, name) in names.iter().enumerate() {
        let id = number.to_string();
        amqp.publish_job(&prefix, "cdn.purge", purge_job(&id, &["/asked"]), asks(name)).await;
    }

    let by_job = outcomes(&mut events, names.len(), seconds(20)).await;
    for (number, queue) in answers.iter().enumerate() {
        let answer = eventually(seconds(10), "the answer is there", async || amqp.get_all(queue).await.pop()).await;
        assert_eq!(answer.json()["id"], by_job[&number.to_string()][0]["id"]);
        assert_eq!(answer.properties.correlation_id().as_ref().map(ToString::to_string).as_deref(), Some("question"));
    }
    eventually(seconds(10), "the others are counted", async || {
        let metrics = purger.metrics().await;
        let given_up = |reason: &str| metrics.count("genfleet_replies_given_up_total", &[("reason", reason)]);
        (given_up("not_allowed"), given_up("unroutable")) == (5, 1)
    })
    .await;
    for (job, output) in &by_job {
        assert_eq!((output.len(), &output[0]["data"]["outcome"]), (1, &json!("succeeded")), "{job}");
    }
    for queue in hostile.iter().chain([&theirs, &format!("{prefix}.unrouted")]) {
        assert_eq!(amqp.count(queue).await, 0, "{queue}");
    }
    assert_eq!(purger.metrics().await.count("genfleet_broker_reconnects_total", &[]), 0, "{}", purger.stderr());
    purger.terminate();
    assert_eq!(purger.wait(seconds(5)).await, 0, "{}", purger.stderr());
}

async fn exclusive(amqp: &Amqp, name: &str) -> String {
    let options = lapin::options::QueueDeclareOptions { exclusive: true, ..Default::default() };
    let queue = amqp.channel().queue_declare(name.into(), options, lapin::types::FieldTable::default()).await;
    queue.unwrap().name().to_string()
}

fn pointers(error: &Value) -> Vec<String> {
    let violations = error["violations"].as_array().unwrap_or_else(|| panic!("no violations in {error}"));
    let mut pointers: Vec<String> = violations.iter().map(|one| one["pointer"].as_str().unwrap().to_owned()).collect();
    pointers.sort();
    pointers
}
