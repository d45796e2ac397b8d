//! The token endpoint, and what a token is good for.

use std::time::Duration;

use genfleet_simulator::SimulatorOptions;
use reqwest::StatusCode;
use serde_json::json;

use crate::{Setup, read_answer};

const FORM: &str = "application/x-www-form-urlencoded";

#[tokio::test]
async fn a_client_gets_a_token_with_basic_or_with_the_form() {
    let client = Some(("client".to_owned(), "secret".to_owned()));
    let setup = Setup::with(SimulatorOptions { client, ..SimulatorOptions::default() }).await;
    let (status, body) =
        read_answer(setup.ask_token("grant_type=client_credentials&scope=a").send().await.unwrap()).await;
    assert_eq!((status, &body["token_type"], &body["expires_in"]), (StatusCode::OK, &json!("bearer"), &json!(86_400)));
    let form = "grant_type=client_credentials&client_id=client&client_secret=secret";
    let request = setup.post("/oauth/token").header("content-type", FORM).body(form);
    assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn the_record_does_not_keep_secrets() {
    let setup = Setup::new().await;
    let form = "grant_type=client_credentials&client_id=me&client_secret=very-secret";
    setup.post("/oauth/token").header("content-type", FORM).body(form).send().await.unwrap();
    setup.purged(&["/a"]).await;
    let requests = setup.simulator.requests();
    assert_eq!(requests[1].client_id.as_deref(), Some("me"));
    assert_eq!(requests[2].headers["authorization"], "Bearer");
    let shown = serde_json::to_string(&requests).unwrap();
    assert!(!shown.contains("very-secret") && !shown.contains(&setup.token), "{shown}");
}

#[tokio::test]
async fn wrong_credentials_get_the_platforms_401() {
    let client = Some(("client".to_owned(), "another".to_owned()));
    let setup = Setup::with(SimulatorOptions { client, ..SimulatorOptions::default() }).await;
    let (status, body) = read_answer(setup.ask_token("grant_type=client_credentials").send().await.unwrap()).await;
    let expected = json!({
        "error": "invalid_client",
        "description": "authentication failed",
        "error_description": "authentication failed",
    });
    assert_eq!((status, body), (StatusCode::UNAUTHORIZED, expected));
}

#[tokio::test]
async fn another_grant_and_an_unknown_scope_are_refused() {
    let setup = Setup::new().await;
    for (form, error) in [
        ("grant_type=password", "unsupported_grant_type"),
        ("scope=a", "unsupported_grant_type"),
        ("grant_type=client_credentials&scope=a%20invalid:scope", "invalid_scope"),
    ] {
        let (status, body) = read_answer(setup.ask_token(form).send().await.unwrap()).await;
        assert_eq!((status, &body["error"]), (StatusCode::BAD_REQUEST, &json!(error)), "{form}");
    }
}

#[tokio::test]
async fn a_fault_throttles_the_token_endpoint_with_a_400() {
    let setup = Setup::with_faults(&["status=400,path=/oauth/token,after=1,times=1"]).await;
    let (status, body) = read_answer(setup.ask_token("grant_type=client_credentials").send().await.unwrap()).await;
    assert_eq!((status, &body["error"]), (StatusCode::BAD_REQUEST, &json!("invalid_request")));
    assert!(body["error_description"].as_str().unwrap().starts_with("rate limit exceeded;"), "{body}");
    assert!(!setup.new_token().await.is_empty());
}

#[tokio::test]
async fn a_missing_an_unknown_and_an_expired_token_get_a_401() {
    let options = SimulatorOptions { token_lifetime: Duration::ZERO, ..SimulatorOptions::default() };
    let setup = Setup::with(options).await;
    let request = || setup.post(crate::PURGE).json(&json!({"paths": ["/a"]}));
    for (request, code) in [
        (request(), "authentication.required"),
        (request().basic_auth("client", Some("secret")), "authentication.required"),
        (request().bearer_auth("nobody"), "bad.credentials"),
        (request().bearer_auth(&setup.token), "bad.credentials"),
    ] {
        let response = request.send().await.unwrap();
        let correlation_id = crate::header(&response, "ININ-Correlation-Id");
        let (status, body) = read_answer(response).await;
        assert_eq!((status, &body["code"]), (StatusCode::UNAUTHORIZED, &json!(code)));
        assert_eq!(body["contextId"], json!(correlation_id));
        assert_eq!((&body["status"], &body["details"], &body["errors"]), (&json!(401), &json!([]), &json!([])));
    }
    assert_eq!(setup.times_purged("/a"), 0);
}
