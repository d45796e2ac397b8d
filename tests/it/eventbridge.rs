//! `eventbridge.configure` on a real broker: done, refused with pointers, killed under load, and as the vendor and AWS
//! see it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use genfleet_simulator::{Simulator, SimulatorOptions};
use harness::{Broker, Launch, Prefix, Python, assert_keeps_contract, seconds};
use serde_json::{Value, json};

use crate::stack::{Stack, assert_all_succeeded, simulator, simulator_with, worker};

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

fn configurator(broker: &Broker, prefix: &Prefix, simulator: &Simulator) -> Launch {
    worker("stream-configurator", broker, prefix, simulator).args(["--concurrency", "8"])
}

fn integrations(simulator: &Simulator) -> Vec<Value> {
    simulator.state()["integrations"]["integrations"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_integration_is_configured_and_its_event_says_so() {
    let mut stack = Stack::start(simulator().await, configurator).await;
    stack.publish(KIND, job("good", "crm")).await;
    let event = stack.events.next_event(seconds(30)).await;
    assert_eq!(event["type"], "genfleet.eventbridge.configure.succeeded", "{event}");
    assert_eq!(event["source"], "/genfleet/stream-configurator");
    assert_keeps_contract(&event);
    let (data, there) = (&event["data"], &integrations(&stack.simulator)[0]);
    assert_eq!((&data["action"], &data["requests"]), (&json!("eventbridge.integration.configured"), &json!(8)));
    let report = &data["report"];
    assert_eq!((&report["integrationId"], &report["name"]), (&there["id"], &json!("genfleet-crm")));
    assert_eq!((&report["created"], &there["reportedState"]["code"]), (&json!(true), &json!("ACTIVE")));
    stack.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_job_is_told_all_that_is_wrong_and_nothing_is_called() {
    let mut stack = Stack::start(simulator().await, configurator).await;
    let mut wrong = job("wrong", "crm");
    wrong["payload"]["topics"][0] = "V2.a".into();
    wrong["payload"]["rules"][0]["conditions"][1]["value"] = "2026-11-20T12:00:00Z".into();
    wrong["payload"]["rules"][0]["conditions"][3]["field"] = "mediaType".into();
    wrong["payload"]["rules"][0]["transformations"][0]["type"] = "transform".into();
    wrong["payload"]["rules"][0]["attributeMappings"][0]["target"] = "agents.queue".into();
    wrong["payload"].as_object_mut().unwrap().remove("awsAccountId");
    stack.publish(KIND, wrong).await;
    let event = stack.events.next_event(seconds(30)).await;
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
    assert!(stack.simulator.requests().iter().all(|request| !request.path.contains("integrations")));
}

/// Four jobs for each name, at once.
#[tokio::test(flavor = "multi_thread")]
async fn killed_under_load_every_job_has_one_event_and_every_name_one_integration() {
    const NAMES: usize = 30;
    let latency = Duration::from_millis(50);
    let simulator = simulator_with(SimulatorOptions { latency, ..SimulatorOptions::default() }).await;
    simulator.set("integrations", &json!({"maxInstances": 1000, "listLagMs": 500})).unwrap();
    let mut stack = Stack::start(simulator, configurator).await;
    let jobs = (0..4 * NAMES).map(|n| {
        let (name, of_name) = (n % NAMES, n / NAMES);
        job(&format!("killed-{name}-{of_name}"), &format!("source-{name}"))
    });
    stack.publish_all(KIND, jobs).await;
    for _ in 0..4 {
        stack.kill_and_start().await;
    }
    let by_job = stack.outcomes(4 * NAMES, seconds(240)).await;
    assert_all_succeeded(&by_job);
    let mut by_name = BTreeMap::new();
    for one in integrations(&stack.simulator) {
        assert_eq!(one["reportedState"]["code"], "ACTIVE", "{one}");
        *by_name.entry(one["name"].to_string()).or_insert(0) += 1;
    }
    assert_eq!(by_name.len(), NAMES);
    assert!(by_name.values().all(|count| *count == 1), "{by_name:?}");
    assert!(stack.process.is_running());
    assert_eq!(stack.count_dead(KIND).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_vendors_client_drives_the_simulator_and_would_have_sent_what_the_worker_sends() {
    let Some(python) = python().await else { return };
    let mut stack = Stack::start(simulator().await, configurator).await;
    stack.publish(KIND, job("good", "crm")).await;
    assert_eq!(stack.events.next_event(seconds(30)).await["data"]["outcome"], "succeeded");
    let sent: Vec<Value> = stack
        .simulator
        .requests()
        .into_iter()
        .filter(|request| request.path.starts_with("/api/"))
        .map(|request| {
            json!({"method": request.method, "path": request.path, "query": request.query, "body": request.body})
        })
        .collect();
    let token = token(&stack.simulator).await;
    let told = ask(&python, "vendor.py", &[&stack.simulator.base_url(), &token], &json!(sent)).await;
    let organization = &stack.simulator.state()["integrations"]["organizationId"];
    let expected = json!({
        "wrong": [], "judged": 8, "maxInstances": 50, "version": 2, "stale": 409, "intended": "ENABLED",
        "reported": "ACTIVE", "suffix": "vendor", "organization": organization,
    });
    assert_eq!(told, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_independent_matcher_takes_the_events_that_the_rule_means_and_makes_the_projection_of_them() {
    let Some(python) = python().await else { return };
    let mut stack = Stack::start(simulator().await, configurator).await;
    stack.publish(KIND, job("good", "crm")).await;
    let event = stack.events.next_event(seconds(30)).await;
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
    let told = ask(&python, "aws.py", &[], &asked).await;
    assert_eq!(told["matches"], json!(expected));
    assert_eq!(told["made"], report["projection"]);
}

/// Python with the vendor's client and an independent matcher.
async fn python() -> Option<Python> {
    Python::with("eventbridge", &["PureCloudPlatformClientV2", "moto", "jsonpath-ng"]).await
}

/// Runs a script with `input`, and returns the JSON that it prints.
async fn ask(python: &Python, script: &str, arguments: &[&str], input: &Value) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("it/eventbridge").join(script);
    serde_json::from_str(&python.run(&script, arguments, &input.to_string()).await).unwrap()
}

/// A token of the simulator.
async fn token(simulator: &Simulator) -> String {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = http.post(format!("{}/oauth/token", simulator.base_url())).basic_auth("vendor", Some("hush"));
    let request = request.header("content-type", "application/x-www-form-urlencoded");
    let answer: Value = request.body("grant_type=client_credentials").send().await.unwrap().json().await.unwrap();
    answer["access_token"].as_str().unwrap().to_owned()
}
