//! How long a scan is followed: pending for ever, not found, not answered.

use std::time::Duration;

use genfleet_core::error::ErrorClass;
use genfleet_simulator::FaultRule;
use serde_json::{Value, json};

use crate::stack::{CLEAN, Stack, rule};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_without_end_is_given_up_by_a_poll_that_was_answered_after_its_time() {
    let stack = Stack::start(&json!({"scanMs": null})).await;
    let state = stack.begun("{}", CLEAN).await;
    stack.turn(seconds(119));
    let state = stack.begun(&state.to_string(), CLEAN).await;
    stack.turn(seconds(2));
    let error = stack.step(&state.to_string(), CLEAN).await.unwrap_err();
    assert_eq!((error.class, error.code), (ErrorClass::Permanent, "scan_timed_out"));
    let report = error.report.unwrap();
    assert_eq!((&report["status"], &report["polls"]), (&json!("pending"), &json!(2)));
    assert_eq!((&report["threatDetected"], &report["complianceHash"]), (&json!(null), &json!(null)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_counts_however_late_the_poll_comes() {
    let stack = Stack::start(&json!({"scanMs": 0})).await;
    let state = stack.begun("{}", CLEAN).await;
    stack.turn(seconds(4000));
    let report = stack.done(state, CLEAN).await;
    assert!(report["totalLatencyMs"].as_u64().unwrap() >= 4_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_that_is_not_found_yet_is_waited_for() {
    let stack = Stack::start(&json!({"scanMs": 0, "unknownMs": 300})).await;
    let state = stack.begun("{}", CLEAN).await;
    let waited = stack.begun(&state.to_string(), CLEAN).await;
    assert_eq!(waited["polls"], 1);
    stack.done(waited, CLEAN).await;
    assert_eq!(stack.orders(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_that_is_not_found_after_fifteen_seconds_is_not_there() {
    let stack = Stack::start(&json!({"unknownMs": 3_600_000})).await;
    let state = stack.begun("{}", CLEAN).await;
    stack.turn(seconds(13));
    let state = stack.begun(&state.to_string(), CLEAN).await;
    stack.turn(seconds(3));
    let error = stack.step(&state.to_string(), CLEAN).await.unwrap_err();
    assert_eq!((error.class, error.code, error.status), (ErrorClass::Permanent, "scan_not_found", Some(404)));
    assert!(error.request_id.is_some());
    let report = error.report.unwrap();
    assert_eq!((&report["scanId"], &report["status"]), (&state["scanId"], &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn polls_that_fail_are_ridden_out_while_the_scan_has_time() {
    let stack = Stack::start(&json!({"scanMs": 0})).await;
    let mut state = stack.begun("{}", CLEAN).await;
    for (polls, fault) in [
        FaultRule { status: Some(503), ..rule("GET") },
        FaultRule { status: Some(400), ..rule("GET") },
        FaultRule { status: Some(403), ..rule("GET") },
        FaultRule { body: Some("<html>".into()), ..rule("GET") },
        FaultRule { body: Some(r#"{"status":"completed","quarantined":"yes"}"#.into()), ..rule("GET") },
        FaultRule { body: Some(r#"{"id":"other","status":"completed","result":"clean"}"#.into()), ..rule("GET") },
        FaultRule { body: Some(r#"{"fileId":"other","status":"completed","result":"clean"}"#.into()), ..rule("GET") },
        FaultRule { lost: true, ..rule("GET") },
    ]
    .into_iter()
    .enumerate()
    {
        stack.simulator.set_faults(vec![fault]);
        state = stack.begun(&state.to_string(), CLEAN).await;
        assert_eq!(state["polls"], polls + 1);
        let asked = stack.simulator.requests().into_iter().filter(|one| one.method == "GET").count();
        assert_eq!(asked, polls + 1, "a poll that fails is one request");
    }
    stack.simulator.set_faults(Vec::new());
    stack.done(state, CLEAN).await;
    assert_eq!(stack.orders(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn polls_that_fail_after_that_are_failures_of_the_job_and_never_a_time_out() {
    let stack = Stack::start(&json!({"scanMs": 0})).await;
    let state = stack.begun("{}", CLEAN).await;
    stack.turn(seconds(121));
    for (status, class, code) in
        [(503, ErrorClass::Transient, "api_unavailable"), (400, ErrorClass::Permanent, "rejected")]
    {
        stack.simulator.set_faults(vec![FaultRule { status: Some(status), ..rule("GET") }]);
        let error = stack.step(&state.to_string(), CLEAN).await.unwrap_err();
        assert_eq!((error.class, error.code), (class, code));
        let kept = error.state.unwrap();
        assert_eq!((&kept["scanId"], &kept["polls"]), (&state["scanId"], &json!(1)));
        assert_eq!(error.report.unwrap()["scanId"], state["scanId"]);
    }
    stack.simulator.set_faults(Vec::new());
    stack.done(state, CLEAN).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_that_says_when_to_come_again_is_heard() {
    let stack = Stack::start(&json!({"scanMs": null})).await;
    let state = stack.begun("{}", CLEAN).await;
    let later = genfleet_simulator::RetryAfter::Seconds(12);
    stack.simulator.set_faults(vec![FaultRule { status: Some(500), retry_after: Some(later), ..rule("GET") }]);
    let again_in = stack.again_in(&state.to_string(), CLEAN).await;
    assert_eq!(again_in, seconds(12));
}
