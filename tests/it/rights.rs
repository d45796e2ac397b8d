//! The users of `deploy/rabbitmq/definitions.json` on a broker: their rights suffice, and permit nothing more.

use genfleet_simulator::SimulatorOptions;
use harness::{Amqp, Broker, Events, Launch, Prefix, Process, eventually, json_properties, seconds};
use lapin::{
    BasicProperties,
    options::{BasicGetOptions, BasicPublishOptions, QueueDeclareOptions},
    types::FieldTable,
};
use serde_json::{Value, json};

use crate::{
    deploy::deploy,
    observed::vni,
    stack::{purge_job, simulator, simulator_with, worker},
};

const USERS: [&str; 4] = ["genfleet-producer", "genfleet-worker", "genfleet-tool", "genfleet-scaler"];
/// The password in the definitions.
const PREFIX: &str = "genfleet";

#[tokio::test(flavor = "multi_thread")]
async fn each_user_may_do_what_it_needs_and_no_more() {
    let Some(broker) = defined_broker().await else {
        return;
    };
    no_answer_costs_a_job_its_event(&broker).await;
    let replies = deploy("rabbitmq/replies.json");
    broker.ctl(&["import_definitions", replies.to_str().unwrap()]).await;
    the_workers_rights_are_enough_for_every_way_a_job_can_go(&broker).await;
    broker.ctl(&["import_definitions", deploy("rabbitmq/definitions.json").to_str().unwrap()]).await;
    the_tools_rights_are_enough_for_its_commands(&broker).await;
    nobody_may_do_more_than_the_others_can_trust(&broker).await;
    a_producer_can_be_held_to_kinds(&broker).await;
}

/// Starts a broker with only the definitions; `None` if none can be started.
pub(crate) async fn defined_broker() -> Option<Broker> {
    let broker = Broker::private().await?;
    for user in USERS {
        broker.ctl(&["add_user", user, "hush"]).await;
    }
    broker.ctl(&["import_definitions", deploy("rabbitmq/definitions.json").to_str().unwrap()]).await;
    broker.ctl(&["set_permissions", "-p", "genfleet", "guest", ".*", ".*", ".*"]).await;
    Some(broker)
}

/// Returns the URL for one of its users, or for guest.
pub(crate) fn url(broker: &Broker, user: &str) -> String {
    let (_, rest) = broker.url().rsplit_once('@').unwrap();
    let (host, _) = rest.split_once('/').unwrap();
    let password = if user == "guest" { "guest" } else { "hush" };
    format!("amqp://{user}:{password}@{host}/genfleet")
}

/// Connects as one of its users.
pub(crate) fn of(launch: Launch, broker: &Broker, user: &str) -> Launch {
    launch.env("GENFLEET_QUEUE_URL", &url(broker, user)).env("GENFLEET_QUEUE_PREFIX", PREFIX)
}

async fn the_workers_rights_are_enough_for_every_way_a_job_can_go(broker: &Broker) {
    let faults = ["status=503,times=8,body-contains=/retried", "status=400,body-contains=/refused"];
    let faults = faults.iter().map(|rule| rule.parse().unwrap()).collect();
    let simulator = simulator_with(SimulatorOptions { faults, ..SimulatorOptions::default() }).await;
    let unused = Prefix::on(broker);
    let start = |binary: &str, more: &[&str]| {
        let launch = worker(binary, broker, &unused, &simulator).args(["--topology", "verify"]);
        of(launch.args(more.iter().copied()), broker, "genfleet-worker").start()
    };
    let (purger, provisioner) = (start("purger", &["--batch-linger", "0ms"]), start("vni-provisioner", &[]));
    purger.wait_ready(seconds(30)).await;
    provisioner.wait_ready(seconds(30)).await;

    let guest = Amqp::connect(&url(broker, "guest")).await;
    let mut events = guest.declare_events_queue(PREFIX).await;
    let producer = Amqp::connect(&url(broker, "genfleet-producer")).await;
    let replies = declare(&producer).await;
    let asks = json_properties().with_reply_to(replies.as_str().into());
    for path in ["/done", "/retried", "/refused"] {
        producer.publish_job(PREFIX, "cdn.purge", purge_job(path.trim_matches('/'), &[path]), asks.clone()).await;
    }
    producer.publish_job(PREFIX, "vni.provision", vni(3, "169.254.169.254", 443), json_properties()).await;
    producer.publish_job(PREFIX, "no.such.kind", r#"{"id":"misspelt"}"#, asks).await;

    let mut output = outcomes(&mut events, 5).await;
    output.sort();
    assert_eq!(output, ["done succeeded", "misspelt failed", "refused failed", "retried succeeded", "vni-3 failed"]);
    eventually(seconds(10), "every purge was answered, and what is none", async || producer.count(&replies).await == 4)
        .await;
    assert_eq!(guest.count("genfleet.dead.cdn.purge").await, 1);
    assert_eq!(guest.count("genfleet.unrouted").await, 1);
    for process in [&purger, &provisioner] {
        assert_eq!(process.ready().await.0, 200, "{}", process.stderr());
        let rebuilt = process.metrics().await.count("genfleet_broker_reconnects_total", &[]);
        assert_eq!(rebuilt, 0, "a right is missing: {}", process.stderr());
    }
}

/// With the definitions alone no replies are sent, which is logged once, and everything else works.
async fn no_answer_costs_a_job_its_event(broker: &Broker) {
    let simulator = simulator().await;
    let unused = Prefix::on(broker);
    let purger =
        of(worker("purger", broker, &unused, &simulator).args(["--topology", "verify"]), broker, "genfleet-worker");
    let purger = purger.start();
    purger.wait_ready(seconds(30)).await;
    let guest = Amqp::connect(&url(broker, "guest")).await;
    let mut events = guest.declare_events_queue(PREFIX).await;
    let producer = Amqp::connect(&url(broker, "genfleet-producer")).await;
    let replies = declare(&producer).await;
    let asks = json_properties().with_reply_to(replies.as_str().into()).with_user_id("genfleet-producer".into());
    for id in ["first", "second"] {
        producer.publish_job(PREFIX, "cdn.purge", purge_job(id, &["/a"]), asks.clone()).await;
    }
    let output = events.collect_events(2, seconds(60)).await;
    for event in &output {
        assert_eq!(
            (&event["data"]["outcome"], &event["data"]["producer"]),
            (&json!("succeeded"), &json!("genfleet-producer"))
        );
    }
    assert_eq!(producer.count(&replies).await, 0);
    let forged = json_properties().with_user_id("genfleet-worker".into());
    let refused = publish(&producer, "genfleet.jobs", "cdn.purge", forged).await;
    assert!(refused.is_err_and(|error| error.to_string().contains("PRECONDITION_FAILED")), "nobody is somebody else");
    purger.terminate();
    assert_eq!(purger.wait(seconds(30)).await, 0);
}

/// Gives the right to reply, as the runbook describes.
async fn a_producer_can_be_held_to_kinds(broker: &Broker) {
    let write = r"^(cdn\.purge|file\.scan)$";
    broker.ctl(&["set_topic_permissions", "-p", "genfleet", "genfleet-producer", "genfleet.jobs", write, "^$"]).await;
    for (kind, may) in [("cdn.purge", true), ("file.scan", true), ("vni.provision", false), ("no.such.kind", false)] {
        let producer = Amqp::connect(&url(broker, "genfleet-producer")).await;
        let sent = publish(&producer, "genfleet.jobs", kind, json_properties()).await;
        let refused = sent.is_err_and(|error| error.to_string().contains("ACCESS_REFUSED"));
        assert_eq!(refused, !may, "{kind}");
    }
}

async fn publish(amqp: &Amqp, exchange: &str, key: &str, properties: BasicProperties) -> lapin::Result<()> {
    let options = BasicPublishOptions::default();
    amqp.channel().basic_publish(exchange.into(), key.into(), options, b"{}", properties).await?.await.map(drop)
}

async fn the_tools_rights_are_enough_for_its_commands(broker: &Broker) {
    let tool = |arguments: &[&str]| {
        let launch = Process::binary("genfleet").args(arguments.iter().copied()).env("GENFLEET_TOPOLOGY", "verify");
        of(launch, broker, "genfleet-tool")
    };
    let enqueued = tool(&["enqueue", "cdn.purge", "--payload", r#"{"paths":["/a"]}"#]).start();
    assert_eq!(enqueued.wait(seconds(40)).await, 0, "{}", enqueued.stderr());
    let guest = Amqp::connect(&url(broker, "guest")).await;
    eventually(seconds(5), "it is there", async || guest.count("genfleet.jobs.cdn.purge").await == 1).await;

    let of_producer = |arguments: &[&str]| {
        of(Process::binary("genfleet").args(arguments.iter().copied()), broker, "genfleet-producer").start()
    };
    // With the default --topology declare, existing objects are not declared.
    let enqueued = of_producer(&["enqueue", "cdn.purge", "--payload", r#"{"paths":["/b"]}"#]);
    assert_eq!(enqueued.wait(seconds(40)).await, 0, "{}", enqueued.stderr());
    // If it waited, it would wait for an hour.
    let nowhere =
        ["--queue-prefix", "nowhere", "--id", "unsent", "--timeout", "1h", "--payload", r#"{"paths":["/a"]}"#];
    let refused = of_producer(&[&["enqueue", "cdn.purge"], &nowhere[..]].concat());
    assert_eq!(refused.wait(seconds(40)).await, 1, "{}", refused.stderr());
    let output = refused.stderr();
    assert!(output.contains("job unsent: nothing was sent") && output.contains("ACCESS_REFUSED"), "{output}");
    for arguments in [&["show", "a-job"] as &[&str], &["events"], &["dead", "list"]] {
        let refused = of_producer(arguments);
        assert_eq!(refused.wait(seconds(40)).await, 1, "{arguments:?}");
        let output = refused.stderr();
        assert!(output.contains("ACCESS_REFUSED") && output.contains("need the rights of genfleet-tool"), "{output}");
    }

    let following = tool(&["events", "--follow"]).start();
    let event =
        json!({"specversion": "1.0", "id": "1", "type": "genfleet.cdn.purge.succeeded", "data": {}}).to_string();
    eventually(seconds(20), "the event is shown", async || {
        guest.publish_raw("genfleet.events", "cdn.purge.succeeded", event.clone(), json_properties()).await;
        !following.stdout_lines().is_empty()
    })
    .await;
}

async fn nobody_may_do_more_than_the_others_can_trust(broker: &Broker) {
    for (user, exchange, key) in [
        // The workers trust the headers of messages from these exchanges.
        ("genfleet-producer", "genfleet.work", "cdn.purge"),
        ("genfleet-producer", "genfleet.delay.00", "cdn.purge"),
        ("genfleet-producer", "genfleet.events", "cdn.purge.succeeded"),
        ("genfleet-producer", "", "genfleet.resume.cdn.purge"),
        ("genfleet-worker", "genfleet.jobs", "cdn.purge"),
        ("genfleet-worker", "", "genfleet.dead.cdn.purge"),
        ("genfleet-tool", "genfleet.dead", "cdn.purge"),
        ("genfleet-tool", "genfleet.events", "cdn.purge.succeeded"),
        ("genfleet-scaler", "genfleet.jobs", "cdn.purge"),
    ] {
        let amqp = Amqp::connect(&url(broker, user)).await;
        let refused = publish(&amqp, exchange, key, json_properties()).await;
        assert!(refused.is_err_and(|error| error.to_string().contains("ACCESS_REFUSED")), "{user} to {exchange:?}");
    }
    for (user, queue) in [
        ("genfleet-producer", "genfleet.jobs.cdn.purge"),
        ("genfleet-producer", "genfleet.dead.cdn.purge"),
        ("genfleet-worker", "genfleet.dead.cdn.purge"),
        ("genfleet-tool", "genfleet.jobs.cdn.purge"),
        ("genfleet-scaler", "genfleet.jobs.cdn.purge"),
    ] {
        let amqp = Amqp::connect(&url(broker, user)).await;
        let read = amqp.channel().basic_get(queue.into(), BasicGetOptions::default()).await;
        assert!(read.is_err_and(|error| error.to_string().contains("ACCESS_REFUSED")), "{user} from {queue}");
    }
    for user in USERS {
        let amqp = Amqp::connect(&url(broker, user)).await;
        let options = QueueDeclareOptions::durable();
        let declared = amqp.channel().queue_declare("genfleet.jobs.own".into(), options, FieldTable::default()).await;
        assert!(declared.is_err_and(|error| error.to_string().contains("ACCESS_REFUSED")), "{user} declares");
    }
}

async fn declare(amqp: &Amqp) -> String {
    let options = QueueDeclareOptions { exclusive: true, ..Default::default() };
    let queue = amqp.channel().queue_declare("".into(), options, FieldTable::default()).await;
    queue.unwrap().name().to_string()
}

async fn outcomes(events: &mut Events, count: usize) -> Vec<String> {
    let events = events.collect_events(count, seconds(60)).await;
    let output = |event: &Value| {
        format!("{} {}", event["subject"].as_str().unwrap(), event["data"]["outcome"].as_str().unwrap())
    };
    events.iter().map(output).collect()
}
