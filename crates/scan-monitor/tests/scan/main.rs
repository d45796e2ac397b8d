//! The handler with the real client, over HTTP, against the simulator: step by step, as the queue would bring the
//! job back, and with a clock that a test can turn.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers panic like the test itself")]

mod following;
mod registering;
mod stack;

use std::time::Duration;

use genfleet_core::{error::ErrorClass, handler::Progress};
use genfleet_simulator::FaultRule;
use serde_json::json;

use stack::{CLEAN, FAILING, MALWARE, Stack, rule};

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_is_ordered_once_and_waits_in_the_queue_between_polls() {
    let stack = Stack::start(&json!({"scanMs": 300})).await;
    let state = stack.begun("{}", CLEAN).await;
    assert_eq!((&state["polls"], stack.orders()), (&json!(0), 1));
    let polled = stack.begun(&state.to_string(), CLEAN).await;
    assert_eq!((&polled["polls"], &polled["scanId"]), (&json!(1), &state["scanId"]));
    assert_eq!(polled["orderedAt"], state["orderedAt"]);
    let report = stack.done(polled, CLEAN).await;
    assert_eq!((&report["scanId"], &report["fileId"]), (&state["scanId"], &json!(CLEAN)));
    assert_eq!((&report["status"], &report["result"]), (&json!("completed"), &json!("clean")));
    assert_eq!((&report["quarantined"], &report["threatDetected"]), (&json!(false), &json!(false)));
    assert_eq!(report["initiatedAt"], state["orderedAt"]);
    assert_eq!(report["metadata"], json!({"conversation": 7}));
    assert!(report["polls"].as_u64().unwrap() >= 2 && report["totalLatencyMs"].as_u64().unwrap() >= 300);
    assert_eq!(report["complianceHash"].as_str().unwrap().len(), 64);
    assert_eq!(stack.orders(), 1, "never again");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_waits_until_the_one_before_it_is_recorded() {
    let stack = Stack::start(&json!({"scanMs": null})).await;
    let (first, second) = (stack.job(), stack.job());
    stack.step_as(&first, "{}", CLEAN).await.unwrap();
    let mut waiting = std::pin::pin!(stack.step_as(&second, "{}", MALWARE));
    assert!(tokio::time::timeout(Duration::from_millis(200), &mut waiting).await.is_err(), "it was sent");
    assert_eq!(stack.orders(), 1);
    // The worker lets go of an attempt once it is settled.
    drop(first);
    waiting.await.unwrap();
    assert_eq!(stack.orders(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_waits_for_its_turn_ends_when_it_is_asked_to_stop() {
    let stack = Stack::start(&json!({"scanMs": null})).await;
    let (first, second) = (stack.job(), stack.job());
    stack.step_as(&first, "{}", CLEAN).await.unwrap();
    second.stop.cancel();
    let error = stack.step_as(&second, "{}", MALWARE).await.unwrap_err();
    assert_eq!((error.class, stack.orders()), (ErrorClass::Interrupted, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_poll_comes_after_about_the_interval() {
    let stack = Stack::start(&json!({"scanMs": null})).await;
    for _ in 0..20 {
        let Ok(Progress::Begun { again_in, .. }) = stack.step("{}", CLEAN).await else { panic!("not begun") };
        assert!((4500..=5500).contains(&again_in.as_millis()), "{again_in:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn malware_is_a_success_that_says_so() {
    let stack = Stack::start(&json!({"scanMs": 0})).await;
    let state = stack.begun("{}", MALWARE).await;
    let report = stack.done(state, MALWARE).await;
    assert_eq!((&report["result"], &report["quarantined"]), (&json!("malware"), &json!(true)));
    assert_eq!((&report["threatDetected"], &report["polls"]), (&json!(true), &json!(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_scan_fails_the_job_and_is_never_clean() {
    let stack = Stack::start(&json!({"scanMs": 0})).await;
    let state = stack.begun("{}", FAILING).await.to_string();
    let error = stack.step(&state, FAILING).await.unwrap_err();
    assert_eq!((error.class, error.code), (ErrorClass::Permanent, "scan_failed"));
    let report = error.report.unwrap();
    assert_eq!((&report["status"], &report["threatDetected"]), (&json!("failed"), &json!(null)));
    assert_eq!(report["scanEngine"], "deep");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_names_a_threat_names_it_whether_completed_or_failed() {
    let stack = Stack::start(&json!({"scanMs": 0})).await;
    let state = stack.begun("{}", CLEAN).await;
    let answers = [
        (json!({"status": "completed", "result": "clean", "quarantined": true}), json!(true)),
        (json!({"status": "completed", "result": "MALWARE"}), json!(true)),
        (json!({"status": "completed", "result": "suspicious"}), json!(null)),
        (json!({"status": "completed"}), json!(null)),
        (json!({"status": "failed", "result": "malware"}), json!(true)),
        (json!({"status": "failed", "quarantined": true, "more": {}}), json!(true)),
        (json!({"status": "failed", "result": "clean", "quarantined": false}), json!(null)),
    ];
    for (answer, threat) in answers {
        stack.simulator.set_faults(vec![FaultRule { body: Some(answer.to_string()), ..FaultRule::default() }]);
        let report = match stack.step(&state.to_string(), CLEAN).await {
            Ok(Progress::Done(report)) => serde_json::to_value(report).unwrap(),
            Ok(Progress::Begun { .. }) => panic!("{answer} is a verdict"),
            Err(error) => {
                assert_eq!(error.code, "scan_failed", "{answer}");
                assert!(error.message.contains(answer["result"].as_str().unwrap_or_default()), "{error:?}");
                error.report.unwrap()
            }
        };
        assert_eq!((&report["threatDetected"], &report["result"]), (&threat, &answer["result"]), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_whose_answer_was_lost_is_made_anew_by_the_next_attempt() {
    let stack = Stack::start(&json!({"scanMs": 0})).await;
    stack.simulator.set_faults(vec![FaultRule { lost: true, times: Some(1), ..rule("POST") }]);
    let error = stack.step("{}", CLEAN).await.unwrap_err();
    assert_eq!((error.class, error.state, stack.orders()), (ErrorClass::Ambiguous, None, 1));
    let state = stack.begun("{}", CLEAN).await;
    stack.done(state, CLEAN).await;
    assert_eq!(stack.orders(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_the_platform_refuses_fails_the_job() {
    let stack = Stack::start(&json!({})).await;
    let error = stack.step("{}", "00000000-0000-0000-0000-000000000000").await.unwrap_err();
    assert_eq!((error.class, error.code, error.status), (ErrorClass::Permanent, "not_found", Some(404)));
    for (body, code) in [(r#"{"status":"pending"}"#, "unexpected_response"), (r#"{"id":""}"#, "unexpected_response")] {
        stack.simulator.set_faults(vec![FaultRule { body: Some(body.to_owned()), ..rule("POST") }]);
        let error = stack.step("{}", CLEAN).await.unwrap_err();
        assert_eq!((error.class, error.code), (ErrorClass::Permanent, code), "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_in_place_of_an_order_orders_again_and_one_in_place_of_a_poll_is_waited_out() {
    let stack = Stack::start(&json!({"scanMs": 0})).await;
    let page = |method: &str| FaultRule { body: Some("<html>".to_owned()), times: Some(1), ..rule(method) };
    stack.simulator.set_faults(vec![FaultRule { status: Some(200), ..page("POST") }]);
    let error = stack.step("{}", CLEAN).await.unwrap_err();
    assert_eq!((error.class, error.code), (ErrorClass::Ambiguous, "unexpected_response"));
    let state = stack.begun("{}", CLEAN).await;
    for status in [200, 404] {
        stack.simulator.set_faults(vec![FaultRule { status: Some(status), ..page("GET") }]);
        stack.turn(Duration::from_secs(20));
        let Ok(Progress::Begun { .. }) = stack.step(&state.to_string(), CLEAN).await else {
            panic!("{status} ends it")
        };
    }
    stack.done(state, CLEAN).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn asked_to_stop_it_begins_no_request_and_keeps_the_scan() {
    let stack = Stack::start(&json!({"scanMs": null})).await;
    let state = stack.begun("{}", CLEAN).await;
    let job = stack.job();
    job.stop.cancel();
    let error = stack.step_as(&job, &state.to_string(), CLEAN).await.unwrap_err();
    assert_eq!((error.class, error.state), (ErrorClass::Interrupted, Some(state)));
    let error = stack.step_as(&job, "{}", CLEAN).await.unwrap_err();
    assert_eq!((error.class, stack.orders(), stack.polls()), (ErrorClass::Interrupted, 1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_of_the_api_is_no_failed_poll() {
    let stack = Stack::start(&json!({"scanMs": null})).await;
    let state = stack.begun("{}", CLEAN).await;
    let later = genfleet_simulator::RetryAfter::Seconds(60);
    stack.simulator.set_faults(vec![FaultRule { status: Some(429), retry_after: Some(later), ..rule("GET") }]);
    stack.turn(Duration::from_secs(300));
    let error = stack.step(&state.to_string(), CLEAN).await.unwrap_err();
    assert!(matches!(error.class, ErrorClass::Held { .. }), "{error:?}");
    assert_eq!(error.state.unwrap()["scanId"], state["scanId"]);
}
