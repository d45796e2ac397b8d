//! The control routes.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{PURGE, Setup, header, read_answer};

async fn control(setup: &Setup, method: Method, path: &str, body: &str) -> (u16, Value) {
    let request = setup.http.request(method, setup.url(path)).body(body.to_owned());
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() })
}

#[tokio::test]
async fn the_control_routes_list_themselves_and_are_not_recorded() {
    let setup = Setup::new().await;
    let (status, list) = control(&setup, Method::GET, "/_sim/", "").await;
    assert_eq!((status, list["routes"].as_array().unwrap().len()), (200, 12));
    assert_eq!(control(&setup, Method::GET, "/_sim/nothing", "").await.0, 404);
    assert_eq!(setup.simulator.requests().len(), 1);
}

#[tokio::test]
async fn requests_are_shown_since_a_number_and_by_path() {
    let setup = Setup::new().await;
    setup.purged(&["/a"]).await;
    setup.purged(&["/b"]).await;
    let numbers = async |query: &str| -> Vec<u64> {
        let (_, shown) = control(&setup, Method::GET, &format!("/_sim/requests{query}"), "").await;
        shown.as_array().unwrap().iter().map(|request| request["number"].as_u64().unwrap()).collect()
    };
    assert_eq!(numbers("").await, [1, 2, 3]);
    assert_eq!(numbers("?since=2").await, [3]);
    assert_eq!(numbers("?path=/oauth").await, [1]);
    assert_eq!(numbers("?since=1&path=/api").await, [2, 3]);
}

#[tokio::test]
async fn faults_are_replaced_added_and_removed() {
    let setup = Setup::new().await;
    let (status, _) =
        control(&setup, Method::PUT, "/_sim/faults", r#"[{"status": 500, "times": 1}, "lost,rate=0"]"#).await;
    assert_eq!(status, 200);
    let (_, shown) = control(&setup, Method::POST, "/_sim/faults", "status=503,retry-after=1").await;
    assert_eq!(shown.as_array().unwrap().len(), 3);
    assert_eq!(setup.purged(&["/a"]).await.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(header(&setup.purged(&["/a"]).await, "retry-after"), "1");
    let (_, shown) = control(&setup, Method::GET, "/_sim/faults", "").await;
    let first = json!({"rule": {"status": 500, "times": 1}, "text": "status=500,times=1", "met": 2, "fired": 1});
    assert_eq!(shown[0], first);
    assert_eq!(control(&setup, Method::DELETE, "/_sim/faults", "").await, (200, json!([])));
    assert_eq!(setup.purged(&["/a"]).await.status(), StatusCode::ACCEPTED);
}

#[tokio::test]
async fn a_wrong_fault_changes_nothing_and_is_explained() {
    let setup = Setup::with_faults(&["status=500"]).await;
    for body in ["state=1", r#"["lost", {"status": 5}]"#, "{", r#"{"stats": 500}"#, "[1]"] {
        let (status, said) = control(&setup, Method::PUT, "/_sim/faults", body).await;
        assert_eq!(status, 400, "{body}");
        assert!(said["error"].as_str().unwrap().len() > 10, "{said}");
    }
    assert_eq!(setup.purged(&["/a"]).await.status(), StatusCode::INTERNAL_SERVER_ERROR);
}

#[tokio::test]
async fn tokens_can_be_ended() {
    let setup = Setup::new().await;
    let expired = control(&setup, Method::POST, "/_sim/expire-tokens", "").await;
    assert_eq!(expired, (200, json!({"expired": 1})));
    assert_eq!(setup.purged(&["/a"]).await.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn options_can_be_changed() {
    let setup = Setup::new().await;
    let change = r#"{"requestsPerMinute": 1, "clientRequestsPerMinute": 7, "tokenLifetimeSeconds": 5}"#;
    let (_, shown) = control(&setup, Method::PUT, "/_sim/options", change).await;
    let expected =
        json!({"requestsPerMinute": 1, "clientRequestsPerMinute": 7, "latencyMs": 0, "tokenLifetimeSeconds": 5});
    assert_eq!(shown, expected);
    let (_, token) = read_answer(setup.ask_token("grant_type=client_credentials").send().await.unwrap()).await;
    assert_eq!(token["expires_in"], 5);
    setup.purged(&["/a"]).await;
    assert_eq!(setup.purged(&["/a"]).await.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(control(&setup, Method::PUT, "/_sim/options", r#"{"latency": 1}"#).await.0, 400);
    let (status, _) =
        control(&setup, Method::PUT, "/_sim/options", r#"{"tokenLifetimeSeconds": 18446744073709551615}"#).await;
    assert_eq!(status, 200);
    assert!(!setup.new_token().await.is_empty());
}

#[tokio::test]
async fn state_and_stats_add_up_and_reset_empties_them() {
    let setup = Setup::with_faults(&["lost,times=1,after=2"]).await;
    setup.purged(&["/a"]).await;
    setup.purged(&["bad"]).await;
    setup.purge(&["/a"]).send().await.unwrap_err();
    let (_, state) = control(&setup, Method::GET, "/_sim/state", "").await;
    let message =
        json!({"purged": state["purged"], "purgeRequests": state["purgeRequests"], "goodTokens": state["goodTokens"]});
    assert_eq!(message, json!({"purged": {"/a": 2}, "purgeRequests": 2, "goodTokens": 1}));
    for part in ["eventStreams", "webMessaging", "network", "files"] {
        assert!(state[part].is_object(), "{part}");
    }
    let (_, counted) = control(&setup, Method::GET, "/_sim/stats", "").await;
    let purges = json!({
        "method": "POST", "path": PURGE, "received": 3, "answered": {"202": 1, "400": 1}, "unanswered": 1,
    });
    assert_eq!((&counted["requests"][0], &counted["received"]), (&purges, &json!(4)));
    assert_eq!((&counted["purgeRequests"], &counted["mostInTokenWindow"]), (&json!(2), &json!(3)));

    assert_eq!(control(&setup, Method::POST, "/_sim/reset", "").await.0, 204);
    assert!(setup.simulator.requests().is_empty() && setup.simulator.purge_counts().is_empty());
    assert_eq!(setup.purged(&["/a"]).await.status(), StatusCode::ACCEPTED);
}
