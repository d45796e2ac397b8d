//! The handler with the real client, over HTTP, against the simulator.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers panic like the test itself")]

use std::sync::Arc;

use clap::Parser;
use genfleet_core::{
    clock::SystemClock,
    error::{ErrorClass, JobError},
    genesys::{CredentialSource, Credentials, GenesysClient, GenesysOptions},
    handler::{JobContext, JobHandler, Progress, Services},
    job::{JobId, Kind},
    supervisor::Supervisor,
    telemetry::http::install_tls,
};
use genfleet_simulator::{FaultRule, RecordedRequest, Simulator, SimulatorOptions};
use genfleet_stream_configurator::{StreamConfigurator, StreamReport, StreamState};
use serde_json::{Value, json};

#[derive(Debug, Parser)]
struct Settings {
    #[command(flatten)]
    genesys: GenesysOptions,
}

/// A simulator, and a worker's handler that talks to it.
struct Setup {
    simulator: Simulator,
    services: Services,
    handler: StreamConfigurator,
}

impl Setup {
    async fn new() -> Self {
        let unlimited = 60_000;
        let simulator = Simulator::start(SimulatorOptions {
            requests_per_minute: unlimited,
            client_requests_per_minute: unlimited,
            ..SimulatorOptions::default()
        });
        let simulator = simulator.await.unwrap();
        install_tls();
        let url = simulator.base_url();
        let options = Settings::parse_from(["it", "--genesys-base-url", &url, "--requests-per-minute", "60000"]);
        let credentials = CredentialSource::Given(Credentials { id: "client".into(), secret: "hush".into() });
        let scopes = vec![(Kind::StreamConfigure, StreamConfigurator::SCOPES)];
        let clock = Arc::new(SystemClock);
        let genesys = GenesysClient::with_credentials(&options.genesys, scopes, clock.clone(), credentials).unwrap();
        tokio::spawn(genesys.clone().run());
        let services = Services { genesys, supervisor: Supervisor::new().0, clock };
        let handler = StreamConfigurator::new((), &services).unwrap();
        Self { simulator, services, handler }
    }

    fn job(&self) -> JobContext {
        JobContext::first(JobId::parse("stream-1").unwrap(), Kind::StreamConfigure, &self.services)
    }

    async fn run(&self, payload: &Value) -> Result<StreamReport, JobError> {
        self.run_as(&self.job(), payload, StreamState::default()).await
    }

    async fn run_as(&self, job: &JobContext, payload: &Value, state: StreamState) -> Result<StreamReport, JobError> {
        let payload = serde_json::from_value(payload.clone()).unwrap();
        assert_eq!(StreamConfigurator::validate(&payload, &()), []);
        match self.handler.handle(job, payload, state).await? {
            Progress::Done(report) => Ok(report),
            Progress::Begun { .. } => panic!("nothing is begun here"),
        }
    }

    /// Registers the definition as somebody else would, in another region; its version.
    fn registered_by_others(&self) -> String {
        let mut definition = payload();
        let members = definition.as_object_mut().unwrap();
        members.retain(|name, _| name != "sourceId" && name != "sampleEvent");
        definition["id"] = "orders".into();
        definition["eventStreamType"] = "aws-eventbridge".into();
        definition["configuration"]["region"] = "ap-south-1".into();
        self.simulator.set("eventStreams", &json!({"definition": definition})).unwrap();
        self.shown()["etag"].as_str().unwrap().to_owned()
    }

    fn shown(&self) -> Value {
        self.simulator.state()["eventStreams"]["definitions"]["orders"].clone()
    }

    fn calls(&self) -> Vec<RecordedRequest> {
        let is_ours = |request: &RecordedRequest| request.path == "/api/v2/configuration/event-streams/orders";
        self.simulator.requests().into_iter().filter(is_ours).collect()
    }

    fn methods(&self) -> String {
        let methods: Vec<String> = self.calls().into_iter().map(|request| request.method).collect();
        methods.join(" ")
    }

    fn fault(&self, rule: &str) {
        self.simulator.set_faults(vec![rule.parse::<FaultRule>().unwrap()]);
    }
}

fn payload() -> Value {
    json!({
        "sourceId": "orders",
        "configuration": {
            "awsAccountId": "123456789012",
            "roleArn": "arn:aws:iam::123456789012:role/genesys",
            "region": "us-east-1",
        },
        "filters": [{"eventType": "conversation.created", "conditions": []}],
        "transformations": [{"sourceField": "conversation.id", "targetField": "conv.id", "type": "direct"}],
        "attributeMappings": [{"source": "queue", "target": "custom.queue"}],
        "sampleEvent": {"conversation": {"id": "c-1"}, "queue": "support"},
    })
}

fn with(changes: &Value) -> Value {
    let mut payload = payload();
    for (name, value) in changes.as_object().unwrap() {
        payload[name] = value.clone();
    }
    payload
}

#[tokio::test]
async fn somebody_elses_definition_lends_nothing() {
    let setup = Setup::new().await;
    setup.registered_by_others();
    setup.fault(r#"status=200,method=GET,body={"id":"invoices"},times=1"#);
    let report = setup.run(&with(&json!({"etag": "\"none\""}))).await.unwrap();
    assert_eq!((report.conflicts_resolved, setup.methods().as_str()), (1, "PUT GET GET PUT"));
}

#[tokio::test]
async fn a_success_without_what_it_promises_is_none_by_the_same_rule_as_elsewhere() {
    let setup = Setup::new().await;
    setup.fault("status=204,method=PUT");
    let error = setup.run(&payload()).await.unwrap_err();
    assert_eq!((error.class, error.code, error.status), (ErrorClass::Permanent, "unexpected_response", Some(204)));
    assert!(error.message.contains("the API promises 200 or 201 or 202 with JSON"), "{}", error.message);
}

#[tokio::test]
async fn a_definition_is_registered_and_told() {
    let setup = Setup::new().await;
    let report = setup.run(&payload()).await.unwrap();
    let shown = setup.shown();
    assert_eq!(report.etag.as_deref(), shown["etag"].as_str());
    assert_eq!((report.status, report.unchanged, report.conflicts_resolved), (201, false, 0));
    let summary = serde_json::to_value(&report).unwrap();
    let projection = json!({"conv": {"id": "c-1"}, "custom": {"queue": "support"}});
    assert_eq!((&summary["projection"], &summary["validationSuccessRate"]), (&projection, &json!(1.0)));
    assert_eq!((&summary["sourceId"], &summary["region"]), (&json!("orders"), &json!("us-east-1")));
    let names: Vec<_> = summary.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "sourceId",
        "status",
        "etag",
        "region",
        "payloadSha256",
        "unchanged",
        "conflictsResolved",
        "validationSuccessRate",
        "projection",
    ];
    assert_eq!(names, expected);
    let calls = setup.calls();
    assert_eq!((calls.len(), calls[0].headers["if-match"].as_str()), (1, "*"));
    let mut sent: Vec<_> = calls[0].body.as_object().unwrap().keys().cloned().collect();
    sent.sort();
    let members = ["attributeMappings", "configuration", "eventStreamType", "filters", "id", "transformations"];
    assert_eq!(sent, members);
}

#[tokio::test]
async fn the_etag_is_sent_as_it_is_and_what_was_left_out_is_sent_empty() {
    let setup = Setup::new().await;
    let etag = setup.registered_by_others();
    let job = with(&json!({"etag": etag, "transformations": [], "attributeMappings": [], "sampleEvent": null}));
    let report = setup.run(&job).await.unwrap();
    assert_eq!((report.status, report.projection, report.validation_success_rate), (200, None, None));
    let call = &setup.calls()[0];
    assert_eq!(call.headers["if-match"], etag);
    assert_eq!((&call.body["transformations"], &call.body["attributeMappings"]), (&json!([]), &json!([])));
}

#[tokio::test]
async fn four_conflicts_in_a_row_are_got_past() {
    let setup = Setup::new().await;
    let etag = setup.registered_by_others();
    setup.simulator.set("eventStreams", &json!({"changedByOthers": 4})).unwrap();
    let report = setup.run(&with(&json!({"etag": etag}))).await.unwrap();
    assert_eq!((report.conflicts_resolved, report.unchanged), (4, false));
    assert_eq!(setup.methods(), "PUT GET PUT GET PUT GET PUT GET PUT");
    assert_eq!(report.etag.as_deref(), setup.shown()["etag"].as_str());
    assert_eq!(setup.shown()["definition"]["configuration"]["region"], "us-east-1");
}

#[tokio::test]
async fn conflicts_without_end_are_a_conflict_after_five_rounds() {
    let setup = Setup::new().await;
    let etag = setup.registered_by_others();
    setup.simulator.set("eventStreams", &json!({"changedByOthers": 100})).unwrap();
    let error = setup.run(&with(&json!({"etag": etag}))).await.unwrap_err();
    assert_eq!((error.class, error.code, error.status), (ErrorClass::Permanent, "conflict", Some(412)));
    assert!(error.request_id.is_some() && error.details["api"]["code"] == "precondition.failed");
    assert_eq!(setup.methods(), "PUT GET PUT GET PUT GET PUT GET PUT GET PUT");
}

#[tokio::test]
async fn a_409_is_a_conflict_like_a_412() {
    let setup = Setup::new().await;
    setup.registered_by_others();
    setup.fault("status=409,method=PUT,times=2");
    let report = setup.run(&payload()).await.unwrap();
    assert_eq!((report.conflicts_resolved, setup.methods().as_str()), (2, "PUT GET PUT GET PUT"));
}

#[tokio::test]
async fn with_fail_a_conflict_ends_the_job_at_once() {
    let setup = Setup::new().await;
    let etag = setup.registered_by_others();
    let error = setup.run(&with(&json!({"etag": "\"v0\"", "onConflict": "fail"}))).await.unwrap_err();
    assert_eq!((error.class, error.code), (ErrorClass::Permanent, "conflict"));
    assert_eq!((setup.methods().as_str(), setup.shown()["etag"].as_str()), ("PUT", Some(etag.as_str())));
}

#[tokio::test]
async fn what_is_there_already_is_told_unchanged() {
    let setup = Setup::new().await;
    let first = setup.run(&payload()).await.unwrap();
    let second = setup.run(&with(&json!({"etag": "\"v0\""}))).await.unwrap();
    assert_eq!((second.unchanged, second.status, second.etag), (true, 200, first.etag));
    assert_eq!(second.payload_sha256, first.payload_sha256);
    assert_eq!(setup.methods(), "PUT PUT GET");
    assert_eq!(setup.shown()["changes"], 1);
}

#[tokio::test]
async fn an_etag_of_what_is_gone_creates_it() {
    let setup = Setup::new().await;
    let report = setup.run(&with(&json!({"etag": "\"v7\""}))).await.unwrap();
    assert_eq!((report.status, report.conflicts_resolved), (201, 1));
    assert_eq!(setup.calls()[2].headers["if-match"], "*");
}

#[tokio::test]
async fn a_lost_answer_is_asked_again_and_is_no_conflict_with_itself() {
    for on_conflict in ["overwrite", "fail"] {
        let setup = Setup::new().await;
        let etag = setup.registered_by_others();
        setup.fault("lost,method=PUT,times=1");
        let report = setup.run(&with(&json!({"etag": etag, "onConflict": on_conflict}))).await.unwrap();
        assert_eq!((report.unchanged, setup.methods().as_str()), (true, "PUT PUT GET"), "{on_conflict}");
        assert_eq!(setup.shown()["changes"], 2, "{on_conflict}");
    }
}

#[tokio::test]
async fn what_an_earlier_attempt_sent_unanswered_is_no_conflict() {
    let setup = Setup::new().await;
    let etag = setup.registered_by_others();
    let job = with(&json!({"etag": etag, "onConflict": "fail"}));
    setup.fault("lost,method=PUT");
    let error = setup.run(&job).await.unwrap_err();
    // The repeats conflict, but nobody hears that either.
    assert_eq!((error.class, setup.shown()["changes"].as_u64()), (ErrorClass::Transient, Some(2)));
    let state: StreamState = serde_json::from_value(error.state.unwrap()).unwrap();
    setup.simulator.set_faults(Vec::new());
    assert!(setup.run_as(&setup.job(), &job, state).await.unwrap().unchanged);
    let returned = setup.job().with_history(false, 1);
    assert!(setup.run_as(&returned, &job, StreamState::default()).await.unwrap().unchanged);
    let begun = setup.job().with_history(true, 0);
    assert!(setup.run_as(&begun, &job, StreamState::default()).await.unwrap().unchanged);
}

#[tokio::test]
async fn what_the_api_finds_too_large_or_wrong_fails_for_good() {
    for (status, code) in [(413, "rejected"), (400, "rejected"), (404, "not_found"), (403, "forbidden")] {
        let setup = Setup::new().await;
        setup.fault(&format!("status={status},method=PUT"));
        let error = setup.run(&payload()).await.unwrap_err();
        assert_eq!((error.class, error.code, error.status), (ErrorClass::Permanent, code, Some(status)));
        assert_eq!((setup.methods().as_str(), error.state), ("PUT", None));
    }
}

#[tokio::test]
async fn a_definition_of_exactly_262144_bytes_is_taken() {
    let setup = Setup::new().await;
    let with_letters = |count: usize| {
        let mut job = payload();
        job["filters"][0]["eventType"] = "x".repeat(count).into();
        job
    };
    let violations = |job: Value| StreamConfigurator::validate(&serde_json::from_value(job).unwrap(), &());
    let message = violations(with_letters(262_144)).remove(0).message;
    let bytes: usize = message.split(' ').find_map(|word| word.parse().ok()).unwrap();
    let most = 262_144 - (bytes - 262_144);
    assert_eq!(setup.run(&with_letters(most)).await.unwrap().status, 201);
    let violations = violations(with_letters(most + 1));
    assert_eq!((violations.len(), violations[0].pointer.as_str()), (1, "/payload"));
}

#[tokio::test]
async fn a_job_that_is_asked_to_stop_begins_no_further_round() {
    let setup = Setup::new().await;
    let job = setup.job();
    job.stop.cancel();
    let error = setup.run_as(&job, &payload(), StreamState::default()).await.unwrap_err();
    assert_eq!((error.class, setup.calls().len()), (ErrorClass::Interrupted, 0));
}

#[tokio::test]
async fn an_answer_that_is_no_definition_is_not_what_was_promised() {
    let setup = Setup::new().await;
    setup.registered_by_others();
    setup.fault("status=200,method=GET,body=oops,content-type=text/plain,times=2");
    assert_eq!(setup.run(&with(&json!({"etag": "\"v0\""}))).await.unwrap().conflicts_resolved, 1);
    for body in ["{}", "[]", "\"{\\\"id\\\":\\\"another\\\"}\""] {
        setup.fault(&format!("status=200,method=PUT,body={body}"));
        let error = setup.run(&payload()).await.unwrap_err();
        assert_eq!((error.class, error.code), (ErrorClass::Permanent, "unexpected_response"), "{body}");
    }
}

#[tokio::test]
async fn a_proxys_page_registers_nothing_and_is_waited_out() {
    let setup = Setup::new().await;
    setup.fault("status=200,method=PUT,body=<html>,content-type=text/html,times=2");
    let report = setup.run(&payload()).await.unwrap();
    assert_eq!((report.status, setup.methods().as_str()), (201, "PUT PUT PUT"));
    setup.fault("status=200,method=PUT,body=<html>,content-type=text/html");
    assert_eq!(setup.run(&payload()).await.unwrap_err().class, ErrorClass::Transient);
}
