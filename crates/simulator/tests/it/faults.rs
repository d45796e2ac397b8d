//! Faults, as a client meets them.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::json;

use crate::{Setup, header, read_answer, until};

#[tokio::test]
async fn a_status_fault_has_no_effect_and_the_platforms_body() {
    let setup = Setup::with_faults(&["status=503,retry-after=3,times=1,name=outage"]).await;
    let response = setup.purged(&["/a"]).await;
    assert_eq!((header(&response, "retry-after"), header(&response, "inin-ratelimit-count")), ("3".into(), "1".into()));
    let correlation_id = header(&response, "inin-correlation-id");
    let (status, body) = read_answer(response).await;
    assert_eq!((status, &body["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("service.unavailable")));
    assert_eq!(body["contextId"], json!(correlation_id));
    assert_eq!(setup.times_purged("/a"), 0);
    let request = setup.simulator.requests().pop().unwrap();
    assert_eq!((request.status, request.effect, request.fault.as_deref()), (Some(503), false, Some("outage")));
    assert_eq!(setup.purged(&["/a"]).await.status(), StatusCode::ACCEPTED);
}

#[tokio::test]
async fn a_status_fault_with_effect_has_its_effect() {
    let setup = Setup::with_faults(&["status=500,effect"]).await;
    assert_eq!(setup.purged(&["/a"]).await.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(setup.times_purged("/a"), 1);
    assert!(setup.simulator.requests().pop().unwrap().effect);
}

#[tokio::test]
async fn a_429_without_retry_after_has_the_seconds_in_its_message_only() {
    let setup = Setup::with_faults(&["status=429"]).await;
    let response = setup.purged(&["/a"]).await;
    assert!(!response.headers().contains_key("retry-after"));
    let (_, body) = read_answer(response).await;
    let message = body["message"].as_str().unwrap();
    assert!(message.starts_with("Rate limit exceeded the maximum. Retry the request in ["), "{message}");
}

#[tokio::test]
async fn retry_after_can_be_a_date() {
    let setup = Setup::with_faults(&[r#"status=503,retry-after="Wed, 21 Oct 2026 07:28:00 GMT""#]).await;
    assert_eq!(header(&setup.purged(&["/a"]).await, "retry-after"), "Wed, 21 Oct 2026 07:28:00 GMT");
}

#[tokio::test]
async fn a_lost_answer_had_its_effect_once_and_no_status() {
    let setup = Setup::with_faults(&["lost,after=1,times=1"]).await;
    // The first answer leaves a connection behind that the second request is sent on.
    setup.purged(&["/first"]).await.bytes().await.unwrap();
    let error = setup.purge(&["/a"]).send().await.unwrap_err();
    assert!(error.is_request() && !error.is_timeout() && error.status().is_none(), "{error:?}");
    assert_eq!(setup.times_purged("/a"), 1);
    let request = setup.simulator.requests().pop().unwrap();
    assert_eq!((request.status, request.effect, request.fault.as_deref()), (None, true, Some("#0")));
    assert_eq!(setup.purged(&["/b"]).await.status(), StatusCode::ACCEPTED);
    assert_eq!(setup.simulator.requests().len(), 4);
}

#[tokio::test]
async fn a_lost_request_had_no_effect() {
    let setup = Setup::with_faults(&["lost,effect=false"]).await;
    assert!(setup.purge(&["/a"]).send().await.is_err());
    assert_eq!(setup.times_purged("/a"), 0);
}

#[tokio::test]
async fn a_lost_answer_of_the_token_endpoint_is_lost_too() {
    let setup = Setup::with_faults(&["lost,path=/oauth/token,after=1"]).await;
    assert!(setup.ask_token("grant_type=client_credentials").send().await.is_err());
    assert_eq!(setup.purged(&["/a"]).await.status(), StatusCode::ACCEPTED);
}

#[tokio::test]
async fn a_hanging_request_is_recorded_also_when_its_client_gave_up() {
    let setup = Setup::with_faults(&["hang,path=/api,name=stuck"]).await;
    let hanging = tokio::spawn(setup.purge(&["/a"]).send());
    until(|| setup.simulator.requests().len() == 2).await;
    hanging.abort();
    assert!(hanging.await.unwrap_err().is_cancelled());
    let request = setup.simulator.requests().pop().unwrap();
    assert_eq!((request.status, request.effect), (None, false));
    assert_eq!(request.fault.as_deref(), Some("stuck"));
    assert_eq!(setup.times_purged("/a"), 0);
}

#[tokio::test]
async fn a_hanging_request_does_not_keep_the_simulator_from_stopping() {
    let setup = Setup::with_faults(&["hang"]).await;
    let hanging = tokio::spawn(setup.purge(&["/a"]).send());
    until(|| setup.simulator.requests().len() == 2).await;
    let begun = Instant::now();
    setup.simulator.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert!(hanging.await.unwrap().is_err());
}

#[tokio::test]
async fn a_slow_answer_has_its_effect_before_the_wait() {
    let setup = Setup::with_faults(&["latency=60s"]).await;
    let slow = tokio::spawn(setup.purge(&["/a"]).send());
    let has_effect = || setup.simulator.requests().get(1).is_some_and(|request| request.effect);
    until(has_effect).await;
    assert_eq!(setup.times_purged("/a"), 1);
    assert_eq!(setup.simulator.requests()[1].status, None);
    assert!(!slow.is_finished());
}

#[tokio::test]
async fn latency_comes_before_the_usual_answer() {
    let setup = Setup::with_faults(&["latency=80ms"]).await;
    let begun = Instant::now();
    assert_eq!(setup.purged(&["/a"]).await.status(), StatusCode::ACCEPTED);
    assert!(begun.elapsed() >= Duration::from_millis(80));
}

#[tokio::test]
async fn a_body_fault_answers_its_body_with_the_usual_status() {
    let setup = Setup::with_faults(&["body=<html>,content-type=text/html"]).await;
    let response = setup.purged(&["/a"]).await;
    assert_eq!((response.status(), header(&response, "content-type")), (StatusCode::ACCEPTED, "text/html".into()));
    assert_eq!(response.text().await.unwrap(), "<html>");
    assert_eq!(setup.times_purged("/a"), 1);
}

#[tokio::test]
async fn a_fault_meets_only_the_bodies_it_is_meant_for() {
    let setup = Setup::with_faults(&["status=400,body-contains=/guilty,method=POST,path=/api/v2/external"]).await;
    assert_eq!(setup.purged(&["/innocent"]).await.status(), StatusCode::ACCEPTED);
    assert_eq!(setup.purged(&["/innocent", "/guilty"]).await.status(), StatusCode::BAD_REQUEST);
    assert_eq!((setup.times_purged("/innocent"), setup.times_purged("/guilty")), (1, 0));
}

#[tokio::test]
async fn a_fault_is_not_spent_on_a_request_that_is_refused_anyway() {
    let setup = Setup::with_faults(&["status=500,times=1"]).await;
    let refused = setup.post(crate::PURGE).json(&json!({"paths": ["/a"]})).send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(setup.purged(&["/a"]).await.status(), StatusCode::INTERNAL_SERVER_ERROR);
}
