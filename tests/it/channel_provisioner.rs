//! Channels on a broker: licences are counted correctly across processes, and a crash causes no second channel.

use std::{collections::BTreeSet, time::Duration};

use genfleet_simulator::{Simulator, SimulatorOptions};
use harness::{Amqp, Broker, Launch, Prefix, eventually, json_properties, seconds};
use serde_json::{Value, json};

use crate::stack::{outcomes, random_moment, simulator_with, worker};

const KIND: &str = "channel.provision";
const QUEUE: &str = "3f2504e0-4f89-11d3-9a0c-0305e82c3301";

fn job(id: &str) -> String {
    let payload =
        json!({"queueId": QUEUE, "routingEmail": "chat@example.com", "security": {"allowedDomains": ["example.com"]}});
    json!({"id": id, "kind": KIND, "payload": payload}).to_string()
}

/// Publishes jobs `<name>-<n>`, with one channel each.
async fn publish(amqp: &Amqp, prefix: &Prefix, name: &str, count: usize) {
    let jobs = (0..count).map(|n| (job(&format!("{name}-{n}")), json_properties()));
    amqp.publish_jobs(prefix, KIND, jobs).await;
}

fn provisioner(broker: &Broker, prefix: &Prefix, simulator: &Simulator, licences: usize) -> Launch {
    worker("channel-provisioner", broker, prefix, simulator).args(["--license-limit", &licences.to_string()])
}

async fn slow_simulator() -> Simulator {
    simulator_with(SimulatorOptions { latency: Duration::from_millis(20), ..SimulatorOptions::default() }).await
}

fn channels(simulator: &Simulator) -> Vec<Value> {
    simulator.state()["webMessaging"]["channels"].as_array().unwrap().clone()
}

fn names(simulator: &Simulator) -> BTreeSet<String> {
    channels(simulator).iter().map(|channel| channel["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_jobs_on_two_processes_with_ten_licences_make_exactly_ten_channels() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = slow_simulator().await;
    let start = || provisioner(broker, &prefix, &simulator, 10).start();
    let (first, second) = (start(), start());
    first.wait_ready(seconds(30)).await;
    second.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    publish(&amqp, &prefix, "licensed", 20).await;

    let by_job = outcomes(&mut events, 20, seconds(60)).await;
    let ended: Vec<&Value> = by_job.values().map(|events| &events[0]["data"]).collect();
    let made: Vec<_> = ended.iter().filter(|data| data["outcome"] == "succeeded").collect();
    let refused = ended.iter().filter(|data| data["error"]["code"] == "license_limit_reached").count();
    assert_eq!((made.len(), refused, channels(&simulator).len()), (10, 10, 10));
    assert!(made.iter().all(|data| data["action"] == "web.messaging.channel.created"));
    assert_eq!(made[0]["report"]["securityProfile"]["domains"], json!(["https://example.com"]));
    let dead = amqp.get_all(&format!("{prefix}.dead.{KIND}")).await;
    assert_eq!(dead.len(), 10);
    assert_eq!(dead[0].header("genfleet-reason").as_deref(), Some("license_limit_reached"));
    assert!(first.is_running() && second.is_running());
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_deaths_under_load_make_no_second_channel_and_every_job_ends_once() {
    const JOBS: usize = 320;
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = slow_simulator().await;
    let start = || provisioner(broker, &prefix, &simulator, 1_000).start();
    let mut working = start();
    working.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    publish(&amqp, &prefix, "killed", JOBS).await;
    for _ in 0..20 {
        random_moment(&simulator, 30, 40).await;
        working.kill9();
        working = start();
    }
    let by_job = outcomes(&mut events, JOBS, seconds(180)).await;
    for (job, events) in &by_job {
        for event in events {
            assert_eq!(event["data"]["outcome"], "succeeded", "{job}: {event}");
            assert_eq!(event["id"], events[0]["id"], "{job}");
            assert_eq!(event["data"]["report"]["channelId"], events[0]["data"]["report"]["channelId"], "{job}");
        }
    }
    assert_eq!((channels(&simulator).len(), names(&simulator).len()), (JOBS, JOBS));
    assert_eq!(amqp.count(&format!("{prefix}.dead.{KIND}")).await, 0);
    assert!(working.is_running());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_dies_on_the_last_licence_leaves_its_channel_to_the_next() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = slow_simulator().await;
    // The channel is created, its answer is delayed, and reads lag.
    simulator.set("webMessaging", &json!({"readLagMs": 6000})).unwrap();
    let hang = "hang,effect=true,method=POST,path=/api/v2/purecloudv2/webchat,times=1";
    simulator.set_faults(vec![hang.parse().unwrap()]);
    let working = provisioner(broker, &prefix, &simulator, 1).start();
    working.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    amqp.publish_job(&prefix, KIND, job("last"), json_properties()).await;
    eventually(seconds(30), "the channel is made", async || channels(&simulator).len() == 1).await;
    working.kill9();
    let next = provisioner(broker, &prefix, &simulator, 1).start();

    let by_job = outcomes(&mut events, 1, seconds(60)).await;
    let data = &by_job["last"][0]["data"];
    assert_eq!((&data["outcome"], &data["report"]["adopted"]), (&json!("succeeded"), &json!(true)), "{data}");
    assert_eq!(channels(&simulator).len(), 1);
    let audit = std::fs::read_to_string(next.directory().join("genfleet-audit-channel-provisioner.jsonl")).unwrap();
    let facts: Vec<Value> = audit.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let output: Vec<_> = facts.iter().map(|fact| (&fact["fact"], &fact["detail"]["result"])).collect();
    assert!(
        output.contains(&(&json!("effect"), &json!("found"))),
        "what its earlier life did is written down: {output:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_takes_over_counts_again_what_reads_did_not_show() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = slow_simulator().await;
    simulator.set("webMessaging", &json!({"readLagMs": 6000})).unwrap();
    let start = || provisioner(broker, &prefix, &simulator, 1).env("GENFLEET_TAKEOVER_WAIT", "7s").start();
    let first = start();
    first.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    amqp.publish_job(&prefix, KIND, job("first"), json_properties()).await;
    assert_eq!(events.next_event(seconds(30)).await["data"]["outcome"], "succeeded");
    first.kill9();
    let _second = start();
    amqp.publish_job(&prefix, KIND, job("second"), json_properties()).await;

    // The first job's event may come again: its process may have been killed before the acknowledgement.
    let event = loop {
        let event = events.next_event(seconds(60)).await;
        if event["subject"] != "first" {
            break event;
        }
    };
    assert_eq!(
        (&event["subject"], &event["data"]["error"]["code"]),
        (&json!("second"), &json!("license_limit_reached"))
    );
    assert_eq!(channels(&simulator).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_payload_is_reported_whole_and_nothing_is_asked() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = slow_simulator().await;
    let working = provisioner(broker, &prefix, &simulator, 10).start();
    working.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    let security =
        json!({"cspHeaders": ["script-src 'self"], "xssPrevention": false, "allowedDomains": ["http://a.example"]});
    let payload = json!({"queueId": "sales", "routingEmail": "nobody", "security": security});
    amqp.publish_job(&prefix, KIND, json!({"id": "bad", "payload": payload}).to_string(), json_properties()).await;

    let event = events.next_event(seconds(30)).await;
    assert_eq!(
        (&event["type"], &event["data"]["error"]["code"]),
        (&json!("genfleet.channel.provision.failed"), &json!("invalid_job"))
    );
    let output: Vec<&str> = event["data"]["error"]["violations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["pointer"].as_str().unwrap())
        .collect();
    let expected =
        ["queueId", "routingEmail", "security/cspHeaders/0", "security/xssPrevention", "security/allowedDomains/0"];
    assert_eq!(output, expected.map(|place| format!("/payload/{place}")));
    assert_eq!(simulator.requests().iter().filter(|one| one.path != "/oauth/token").count(), 0);
}
