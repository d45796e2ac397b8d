//! A fleet on a broker with exchanges of an earlier version: it works, `doctor` reports them, and the
//! steps of the runbook replace them.

use harness::{Amqp, Broker, Process, eventually, json_properties, seconds};
use lapin::{
    ExchangeKind,
    options::ExchangeDeclareOptions,
    types::{AMQPValue, FieldTable},
};
use serde_json::Value;

use crate::{
    deploy::{deploy, text},
    stack::{purge_job, simulator, worker},
};

const PREFIX: &str = "genfleet";

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_version_declared_is_used_reported_and_brought_up_to_date() {
    let Some(broker) = Broker::private_with_management().await else { return };
    broker.ctl(&["add_vhost", "genfleet"]).await;
    broker.ctl(&["set_permissions", "-p", "genfleet", "guest", ".*", ".*", ".*"]).await;
    let url = broker.url().replace("%2f", "genfleet");
    let amqp = Amqp::connect(&url).await;
    declare_former(&amqp).await;

    let simulator = simulator().await;
    let prefix = harness::Prefix::on(&broker);
    let settings =
        |launch: harness::Launch| launch.env("GENFLEET_QUEUE_URL", &url).env("GENFLEET_QUEUE_PREFIX", PREFIX);
    let purger = settings(worker("purger", &broker, &prefix, &simulator)).start();
    purger.wait_ready(seconds(30)).await;
    assert!(purger.stderr().contains("declared by an earlier version"), "{}", purger.stderr());
    let mut events = amqp.declare_events_queue(PREFIX).await;
    amqp.publish_job(PREFIX, "cdn.purge", purge_job("before", &["/a"]), json_properties()).await;
    assert_eq!(events.collect_events(1, seconds(30)).await[0]["data"]["outcome"], "succeeded");

    let doctor = || {
        settings(Process::binary("genfleet").args(["doctor", "cdn.purge", "--json"]))
            .env("GENFLEET_MANAGEMENT_URL", broker.management_url())
            .env("GENESYS_BASE_URL", &simulator.base_url())
            .env("GENESYS_CLIENT_ID", "client")
            .env("GENESYS_CLIENT_SECRET", "hush")
            .env("GENFLEET_ADMIN_ADDR", "127.0.0.1:0")
    };
    let warned = topology_warnings(doctor()).await;
    assert!(
        warned.iter().any(|output| output.contains("exchange genfleet.jobs") && output.contains("RUNBOOK")),
        "{warned:?}"
    );
    assert!(
        warned.iter().any(|output| output.contains("exchanges genfleet.delay.*") && output.contains("set_policy")),
        "{warned:?}"
    );

    // The command of the runbook.
    let runbook = text("RUNBOOK.md");
    let command = |begin: &str| {
        let line = runbook.lines().map(str::trim).find(|line| line.starts_with(begin)).unwrap();
        words(line.strip_prefix("rabbitmqctl ").unwrap())
    };
    run(&broker, &command("rabbitmqctl set_policy")).await;
    let warned = topology_warnings(doctor()).await;
    assert!(warned.len() == 1 && warned[0].contains("exchange genfleet.jobs"), "{warned:?}");
    run(&broker, &command("rabbitmqctl eval 'rabbit_exchange:delete")).await;
    for user in ["genfleet-producer", "genfleet-worker", "genfleet-tool", "genfleet-scaler"] {
        broker.ctl(&["add_user", user, "hush"]).await;
    }
    broker.ctl(&["import_definitions", deploy("rabbitmq/definitions.json").to_str().unwrap()]).await;
    assert_eq!(topology_warnings(doctor()).await, Vec::<String>::new());

    let amqp = Amqp::connect(&url).await;
    amqp.publish_job(PREFIX, "cdn.purge", purge_job("after", &["/a"]), json_properties()).await;
    assert_eq!(events.collect_events(1, seconds(30)).await[0]["subject"], "after");
    // With the policy, no message stays in a delay queue, whatever its key.
    for _ in 0..40 {
        amqp.publish_raw("", "genfleet.delay.01", "?".to_owned(), json_properties()).await;
    }
    eventually(seconds(20), "all are unrouted", async || amqp.count("genfleet.unrouted").await == 40).await;
    purger.terminate();
    assert_eq!(purger.wait(seconds(30)).await, 0);
}

async fn declare_former(amqp: &Amqp) {
    let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
    let mut alternate = FieldTable::default();
    alternate.insert("alternate-exchange".into(), AMQPValue::LongString("genfleet.unrouted".into()));
    let declare = async |name: String, kind, arguments| {
        amqp.channel().exchange_declare(name.into(), kind, durable, arguments).await.unwrap();
    };
    declare("genfleet.jobs".to_owned(), ExchangeKind::Direct, alternate).await;
    for step in 0..16 {
        declare(format!("genfleet.delay.{step:02}"), ExchangeKind::Topic, FieldTable::default()).await;
    }
}

/// Returns the warnings about the topology with their remedies. Nothing may fail.
async fn topology_warnings(doctor: harness::Launch) -> Vec<String> {
    let doctor = doctor.start();
    let code = doctor.wait(seconds(60)).await;
    let output = doctor.stdout_lines().concat();
    assert_eq!(code, 0, "{output}");
    let report: Value = serde_json::from_str(&output).unwrap();
    let warnings = report["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| finding["check"] == "broker.topology" && finding["level"] != "ok");
    warnings.map(ToString::to_string).collect()
}

async fn run(broker: &Broker, arguments: &[String]) {
    broker.ctl(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).await;
}

/// Splits a command as a shell does.
fn words(line: &str) -> Vec<String> {
    let parts = line.split('\'').enumerate();
    let split = |(at, part): (usize, &str)| -> Vec<String> {
        if at % 2 == 1 { vec![part.to_owned()] } else { part.split_whitespace().map(str::to_owned).collect() }
    };
    parts.flat_map(split).collect()
}
