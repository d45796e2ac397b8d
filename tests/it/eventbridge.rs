//! `eventbridge.configure` on a real broker: done, refused with pointers, killed under load, and as the vendor and AWS
//! see it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use genfleet_simulator::{Simulator, SimulatorOptions};
use harness::{Amqp, Broker, Prefix, assert_keeps_contract, json_properties, seconds, skip};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, sync::OnceCell};

use crate::stack::{assert_all_succeeded, outcomes, random_moment, simulator, simulator_with, worker};

const KIND: &str = "eventbridge.configure";

fn job(id: &str, suffix: &str) -> Value {
    json!({"id": id, "payload": {
        "awsAccountId": "123456789012",
        "awsAccountRegion": "us-east-1",
        "eventSourceSuffix": suffix,
        "topics": ["v2.detail.events.conversation.{id}.user.end"],
        "rules": [{
            "name": "long-calls",
            "conditions": [
                {"field": "mediaType", "operator": "in", "value": ["VOICE", "CALLBACK"]},
                {"field": "metrics.duration", "operator": "gte", "value": 600},
                {"field": "metrics.duration", "operator": "lte", "value": 7200},
                {"field": "queue.name", "operator": "neq", "value": "test"},
            ],
            "transformations": [
                {"sourceField": "conversationId", "targetField": "conversation.id", "type": "direct"},
                {"sourceField": "participants", "targetField": "agents", "type": "extract", "path": "[].userId"},
            ],
            "attributeMappings": [{"source": "queue.name", "target": "queue"}],
        }],
        "sampleEvent": sample(),
    }})
}

fn sample() -> Value {
    json!({
        "conversationId": "c-1", "mediaType": "VOICE", "metrics": {"duration": 900}, "queue": {"name": "sales \"A\""},
        "participants": [{"userId": "u-1"}, {"userId": "u-2"}],
    })
}

fn integrations(simulator: &Simulator) -> Vec<Value> {
    simulator.state()["integrations"]["integrations"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_integration_is_configured_and_its_event_says_so() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    let configurator = worker("stream-configurator", broker, &prefix, &simulator).start();
    configurator.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    amqp.publish_job(&prefix, KIND, job("good", "crm").to_string(), json_properties()).await;
    let event = events.next_event(seconds(30)).await;
    assert_eq!(event["type"], "genfleet.eventbridge.configure.succeeded", "{event}");
    assert_eq!(event["source"], "/genfleet/stream-configurator");
    assert_keeps_contract(&event);
    let (data, there) = (&event["data"], &integrations(&simulator)[0]);
    assert_eq!((&data["action"], &data["requests"]), (&json!("eventbridge.integration.configured"), &json!(8)));
    let report = &data["report"];
    assert_eq!((&report["integrationId"], &report["name"]), (&there["id"], &json!("genfleet-crm")));
    assert_eq!((&report["created"], &there["reportedState"]["code"]), (&json!(true), &json!("ACTIVE")));
    configurator.terminate();
    assert_eq!(configurator.wait(seconds(30)).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_job_is_told_all_that_is_wrong_and_nothing_is_called() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    let configurator = worker("stream-configurator", broker, &prefix, &simulator).args(["--kinds", KIND]).start();
    configurator.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    let mut wrong = job("wrong", "crm");
    wrong["payload"]["topics"][0] = "V2.a".into();
    wrong["payload"]["rules"][0]["conditions"][1]["value"] = "2026-11-20T12:00:00Z".into();
    wrong["payload"]["rules"][0]["conditions"][3]["field"] = "mediaType".into();
    wrong["payload"]["rules"][0]["transformations"][0]["type"] = "transform".into();
    wrong["payload"]["rules"][0]["attributeMappings"][0]["target"] = "agents.queue".into();
    wrong["payload"].as_object_mut().unwrap().remove("awsAccountId");
    amqp.publish_job(&prefix, KIND, wrong.to_string(), json_properties()).await;
    let event = events.next_event(seconds(30)).await;
    let violations = event["data"]["error"]["violations"].as_array().unwrap();
    let pointers: BTreeSet<&str> = violations.iter().map(|one| one["pointer"].as_str().unwrap()).collect();
    let expected = [
        "/payload/awsAccountId",
        "/payload/rules/0/attributeMappings/0/target",
        "/payload/rules/0/conditions/1/value",
        "/payload/rules/0/conditions/3",
        "/payload/rules/0/transformations/0/type",
        "/payload/topics/0",
    ];
    assert_eq!(pointers, BTreeSet::from(expected));
    assert!(simulator.requests().iter().all(|request| !request.path.contains("integrations")));
}

/// Four jobs for each name, at once.
#[tokio::test(flavor = "multi_thread")]
async fn killed_under_load_every_job_has_one_event_and_every_name_one_integration() {
    const NAMES: usize = 30;
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let latency = Duration::from_millis(50);
    let simulator = simulator_with(SimulatorOptions { latency, ..SimulatorOptions::default() }).await;
    simulator.set("integrations", &json!({"maxInstances": 1000, "listLagMs": 500})).unwrap();
    let start = || worker("stream-configurator", broker, &prefix, &simulator).args(["--concurrency", "8"]).start();
    let mut process = start();
    process.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    let jobs = (0..4 * NAMES).map(|n| {
        let (name, of_name) = (n % NAMES, n / NAMES);
        (job(&format!("killed-{name}-{of_name}"), &format!("source-{name}")).to_string(), json_properties())
    });
    amqp.publish_jobs(&prefix, KIND, jobs.collect::<Vec<_>>()).await;
    for _ in 0..4 {
        random_moment(&simulator, 30, 40).await;
        process.kill9();
        process = start();
    }
    let by_job = outcomes(&mut events, 4 * NAMES, seconds(240)).await;
    assert_all_succeeded(&by_job);
    let mut by_name = BTreeMap::new();
    for one in integrations(&simulator) {
        assert_eq!(one["reportedState"]["code"], "ACTIVE", "{one}");
        *by_name.entry(one["name"].to_string()).or_insert(0) += 1;
    }
    assert_eq!(by_name.len(), NAMES);
    assert!(by_name.values().all(|count| *count == 1), "{by_name:?}");
    assert!(process.is_running());
    assert_eq!(amqp.count(&format!("{prefix}.dead.{KIND}")).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_vendors_client_drives_the_simulator_and_would_have_sent_what_the_worker_sends() {
    let Some(python) = python().await else { return };
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    let configurator = worker("stream-configurator", broker, &prefix, &simulator).start();
    configurator.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    amqp.publish_job(&prefix, KIND, job("good", "crm").to_string(), json_properties()).await;
    assert_eq!(events.next_event(seconds(30)).await["data"]["outcome"], "succeeded");
    let sent: Vec<Value> = simulator
        .requests()
        .into_iter()
        .filter(|request| request.path.starts_with("/api/"))
        .map(|request| {
            json!({"method": request.method, "path": request.path, "query": request.query, "body": request.body})
        })
        .collect();
    let token = token(&simulator).await;
    let told = ran(&python, "vendor.py", &[&simulator.base_url(), &token], &json!(sent)).await;
    let organization = &simulator.state()["integrations"]["organizationId"];
    let expected = json!({
        "wrong": [], "judged": 8, "maxInstances": 50, "version": 2, "stale": 409, "intended": "ENABLED",
        "reported": "ACTIVE", "suffix": "vendor", "organization": organization,
    });
    assert_eq!(told, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_independent_matcher_takes_the_events_that_the_rule_means_and_makes_the_projection_of_them() {
    let Some(python) = python().await else { return };
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    let configurator = worker("stream-configurator", broker, &prefix, &simulator).start();
    configurator.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    amqp.publish_job(&prefix, KIND, job("good", "crm").to_string(), json_properties()).await;
    let event = events.next_event(seconds(30)).await;
    let report = &event["data"]["report"];
    let sent = |pointer: &str, value: Value| {
        let mut sent = json!({
            "version": "0", "id": "e-1", "detail-type": "v2.detail.events.conversation.{id}.user.end",
            "source": report["eventSource"], "account": "123456789012", "time": "2026-11-30T12:00:00Z",
            "region": "us-east-1", "resources": [], "detail": {"topicName": "v2.t", "eventBody": sample()},
        });
        *sent.pointer_mut(pointer).unwrap() = value;
        sent
    };
    let body = |member: &str, value: Value| sent(&format!("/detail/eventBody/{member}"), value);
    let cases = [
        (sent("/id", json!("e-2")), true),
        (body("mediaType", json!("CALLBACK")), true),
        (body("metrics/duration", json!(7200)), true),
        (body("metrics/duration", json!(7201)), false),
        (body("metrics/duration", json!(599)), false),
        (body("mediaType", json!("EMAIL")), false),
        (body("queue/name", json!("test")), false),
        (sent("/detail-type", json!("v2.detail.events.conversation.{id}.acw")), false),
        (sent("/source", json!("aws.partner/genesys.com/cloud/other/crm")), false),
    ];
    let (events, expected): (Vec<Value>, Vec<bool>) = cases.into_iter().unzip();
    let asked = json!({"rule": report["aws"]["rules"][0], "events": events});
    let told = ran(&python, "aws.py", &[], &asked).await;
    assert_eq!(told["matches"], json!(expected));
    assert_eq!(told["made"], report["projection"]);
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("it/eventbridge")
}

/// Python with the vendor's client and an independent matcher; `None`, told, if they cannot be had. Installed once.
async fn python() -> Option<PathBuf> {
    static PYTHON: OnceCell<Option<PathBuf>> = OnceCell::const_new();
    let python = PYTHON.get_or_init(async || tokio::task::spawn_blocking(install).await.unwrap()).await;
    if python.is_none() {
        skip("the vendor's client, moto and jsonpath-ng for Python cannot be installed here");
    }
    python.clone()
}

fn install() -> Option<PathBuf> {
    let executable = std::env::current_exe().unwrap();
    let folder = executable.ancestors().nth(3).unwrap().join("tmp/eventbridge-python");
    fs::create_dir_all(&folder).unwrap();
    let succeeds = |program: &Path, arguments: &[&str]| {
        let mut command = std::process::Command::new(program);
        let output = command.args(arguments).current_dir(&folder).stdin(Stdio::null()).output();
        output.is_ok_and(|output| output.status.success())
    };
    let python = folder.join(".venv/bin/python");
    let requirements = scripts().join("requirements.txt");
    let pip = ["-m", "pip", "install", "--disable-pip-version-check", "-r", requirements.to_str().unwrap()];
    let is_there = python.exists() || succeeds(Path::new("python3"), &["-m", "venv", ".venv"]);
    (is_there && succeeds(&python, &pip)).then_some(python)
}

/// What a script writes that reads `input`.
async fn ran(python: &Path, script: &str, arguments: &[&str], input: &Value) -> Value {
    let mut command = tokio::process::Command::new(python);
    let command = command.arg(scripts().join(script)).args(arguments).kill_on_drop(true);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("python starts");
    child.stdin.take().unwrap().write_all(input.to_string().as_bytes()).await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {stderr}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{script}: {error}: {stderr}"))
}

/// A token of the simulator.
async fn token(simulator: &Simulator) -> String {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = http.post(format!("{}/oauth/token", simulator.base_url())).basic_auth("vendor", Some("hush"));
    let request = request.header("content-type", "application/x-www-form-urlencoded");
    let answer: Value = request.body("grant_type=client_credentials").send().await.unwrap().json().await.unwrap();
    answer["access_token"].as_str().unwrap().to_owned()
}
