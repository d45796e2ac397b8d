//! The stream-configurator on a broker: definitions are registered or refused with pointers, and the worker is killed.

use std::{collections::BTreeSet, time::Duration};

use genfleet_simulator::{Simulator, SimulatorOptions};
use harness::{Broker, Launch, Prefix, seconds};
use serde_json::{Value, json};

use crate::stack::{Stack, assert_all_succeeded, simulator, simulator_with, worker};

const KIND: &str = "stream.configure";

fn job(id: &str, source: &str) -> Value {
    json!({"id": id, "payload": {
        "sourceId": source,
        "configuration": {
            "awsAccountId": "123456789012",
            "roleArn": "arn:aws:iam::123456789012:role/genesys",
            "region": "us-east-1",
        },
        "filters": [{"eventType": "conversation.created", "conditions": [
            {"field": "metadata.source", "operator": "eq", "value": "web"},
        ]}],
        "transformations": [
            {"sourceField": "participants", "targetField": "agentIds", "type": "extract", "path": "[].id"},
        ],
        "attributeMappings": [{"source": "attributes.queueName", "target": "custom.queue"}],
        "sampleEvent": {"participants": [{"id": "agent-456"}], "attributes": {"queueName": "support"}},
    }})
}

fn configurator(broker: &Broker, prefix: &Prefix, simulator: &Simulator) -> Launch {
    worker("stream-configurator", broker, prefix, simulator).args(["--concurrency", "8"])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_is_registered_and_its_event_says_so() {
    let mut stack = Stack::start(simulator().await, configurator).await;
    stack.publish(KIND, job("good", "orders")).await;
    let event = stack.events.next_event(seconds(20)).await;
    assert_eq!(event["type"], "genfleet.stream.configure.succeeded");
    assert_eq!(event["source"], "/genfleet/stream-configurator");
    let data = &event["data"];
    assert_eq!((&data["action"], &data["requests"]), (&json!("eventbridge.source.configured"), &json!(1)));
    let projection = json!({"agentIds": ["agent-456"], "custom": {"queue": "support"}});
    assert_eq!((&data["report"]["projection"], &data["report"]["unchanged"]), (&projection, &json!(false)));
    let registered = &stack.simulator.state()["eventStreams"]["definitions"]["orders"];
    assert_eq!(registered["etag"], data["report"]["etag"]);
    stack.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_job_is_reported_all_that_is_wrong_and_nothing_is_called() {
    let mut stack = Stack::start(simulator().await, configurator).await;
    let mut wrong = job("wrong", "orders");
    wrong["payload"]["configuration"]["roleArn"] = "arn:aws:iam::210987654321:role/genesys".into();
    wrong["payload"]["filters"][0]["conditions"][0]["operator"] = "like".into();
    wrong["payload"]["transformations"][0]["path"] = "[].name".into();
    wrong["payload"]["attributeMappings"][0]["target"] = "agentIds.queue".into();
    wrong["payload"].as_object_mut().unwrap().remove("sourceId");
    let mut large = job("large", "orders");
    large["payload"]["filters"][0]["eventType"] = "x".repeat(262_144).into();
    stack.publish_all(KIND, [wrong, large]).await;
    let by_job = stack.outcomes(2, seconds(20)).await;
    let expected = [
        "/payload/attributeMappings/0/target",
        "/payload/configuration/roleArn",
        "/payload/filters/0/conditions/0/operator",
        "/payload/sourceId",
        "/payload/transformations/0",
    ];
    assert_eq!(pointers(&by_job["wrong"][0]), BTreeSet::from(expected));
    assert_eq!(pointers(&by_job["large"][0]), BTreeSet::from(["/payload"]));
    assert!(stack.simulator.requests().iter().all(|request| !request.path.contains("event-streams")));
}

/// Every second job replaces a known version, and fails if the version is another one. A version that the job itself sent
/// before its process died is not another one.
#[tokio::test(flavor = "multi_thread")]
async fn killed_twenty_times_under_load_every_job_has_one_event_and_every_definition_is_there() {
    const JOBS: usize = 1200;
    let latency = Duration::from_millis(100);
    let simulator = simulator_with(SimulatorOptions { latency, ..SimulatorOptions::default() }).await;
    let mut stack = Stack::start(simulator, configurator).await;
    let jobs = (0..JOBS).map(|n| {
        let mut job = job(&format!("killed-{n}"), &format!("source-{n}"));
        if n % 2 == 1 {
            job["payload"]["etag"] = register_by_others(&stack.simulator, &format!("source-{n}")).into();
            job["payload"]["onConflict"] = "fail".into();
        }
        job
    });
    stack.publish_all(KIND, jobs).await;
    for _ in 0..20 {
        stack.kill_and_start().await;
    }
    assert!(registered(&stack.simulator) < JOBS, "it was killed in the middle");

    let by_job = stack.outcomes(JOBS, seconds(180)).await;
    assert_all_succeeded(&by_job);
    assert_eq!(registered(&stack.simulator), JOBS);
    assert!(stack.process.is_running());
    assert_eq!(stack.count_dead(KIND).await, 0);
}

/// Registers a definition with another region; returns its version.
fn register_by_others(simulator: &Simulator, source: &str) -> String {
    let role = "arn:aws:iam::123456789012:role/genesys";
    let definition = json!({
        "id": source,
        "eventStreamType": "aws-eventbridge",
        "configuration": {"awsAccountId": "123456789012", "roleArn": role, "region": "eu-west-1"},
        "filters": [{"eventType": "e", "conditions": []}],
        "transformations": [],
        "attributeMappings": [],
    });
    simulator.set("eventStreams", &json!({ "definition": definition })).unwrap();
    simulator.state()["eventStreams"]["definitions"][source]["etag"].as_str().unwrap().to_owned()
}

/// Number of definitions that are as their jobs want them.
fn registered(simulator: &Simulator) -> usize {
    let state = simulator.state();
    let definitions = state["eventStreams"]["definitions"].as_object().unwrap();
    let is_ours = |version: &&Value| version["definition"]["configuration"]["region"] == "us-east-1";
    definitions.values().filter(is_ours).count()
}

fn pointers(event: &Value) -> BTreeSet<&str> {
    let violations = event["data"]["error"]["violations"].as_array().unwrap();
    violations.iter().map(|one| one["pointer"].as_str().unwrap()).collect()
}
