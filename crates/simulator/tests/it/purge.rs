//! The purge endpoint, and what every API route does with a request that is not right.

use std::time::Duration;

use genfleet_simulator::SimulatorOptions;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{PURGE, Setup, header, read_answer};

#[tokio::test]
async fn a_purge_is_accepted_and_every_path_counted() {
    let setup = Setup::new().await;
    let response = setup.purged(&["/a", "/b/*"]).await;
    assert_eq!(header(&response, "inin-ratelimit-allowed"), "300");
    assert_eq!(header(&response, "inin-ratelimit-count"), "1");
    assert!(header(&response, "inin-ratelimit-reset").parse::<u64>().unwrap() < 60);
    assert_eq!(header(&response, "ININ-Correlation-Id").len(), 36);
    let (status, body) = read_answer(response).await;
    assert_eq!((status, &body["status"], &body["paths"]), (StatusCode::ACCEPTED, &json!("accepted"), &json!(2)));
    setup.purged(&["/a"]).await;
    assert_eq!((setup.times_purged("/a"), setup.times_purged("/b/*")), (2, 1));
}

#[tokio::test]
async fn a_request_with_one_bad_path_purges_nothing_and_does_not_say_which() {
    let setup = Setup::new().await;
    for bad in ["a", "", "/a b", "/a?b", "/a#b", "/a/*/b", "/**"] {
        let (status, body) = read_answer(setup.purged(&["/good", bad]).await).await;
        assert_eq!((status, &body["code"]), (StatusCode::BAD_REQUEST, &json!("invalid.value")), "{bad}");
        assert_eq!(body["message"], "one of the paths is invalid");
    }
    let (_, body) = read_answer(setup.purged(&["bad"]).await).await;
    assert_eq!(body["message"], r#"the path "bad" is invalid"#);
    assert!(setup.simulator.purge_counts().is_empty());
}

#[tokio::test]
async fn a_purge_holds_1_to_100_paths_and_none_twice() {
    let setup = Setup::new().await;
    let many: Vec<String> = (0..101).map(|number| format!("/{number}")).collect();
    for body in [
        json!({}),
        json!({"paths": "/a"}),
        json!({"paths": []}),
        json!({"paths": many}),
        json!({"paths": ["/a", "/b", "/a"]}),
        json!({"paths": ["/a", 1]}),
        json!([]),
    ] {
        let response = setup.post(PURGE).bearer_auth(&setup.token).json(&body).send().await.unwrap();
        let (status, answer) = read_answer(response).await;
        assert_eq!((status, &answer["code"]), (StatusCode::BAD_REQUEST, &json!("invalid.value")), "{body}");
    }
    assert!(setup.simulator.purge_counts().is_empty());
    let hundred = setup.post(PURGE).bearer_auth(&setup.token).json(&json!({"paths": many[..100]}));
    assert_eq!(hundred.send().await.unwrap().status(), StatusCode::ACCEPTED);
}

#[tokio::test]
async fn a_request_that_is_not_right_gets_the_platforms_error() {
    let setup = Setup::new().await;
    let send = async |method: Method, path: &str, content_type: &str, body: String| -> (u16, Value) {
        let request = setup.http.request(method, setup.url(path)).header("content-type", content_type).body(body);
        let (status, body) = read_answer(request.bearer_auth(&setup.token).send().await.unwrap()).await;
        assert_eq!(body["status"], json!(status.as_u16()));
        (status.as_u16(), body["code"].clone())
    };
    let json = "application/json";
    let (post, good) = (Method::POST, r#"{"paths":["/a"]}"#.to_owned());
    let unknown = send(post.clone(), "/api/v2/nothing", json, good.clone()).await;
    assert_eq!(unknown, (404, json!("not.found")));
    let wrong_method = send(Method::PUT, PURGE, json, good.clone()).await;
    assert_eq!(wrong_method, (405, json!("method.not.allowed")));
    let wrong_type = send(post.clone(), PURGE, "text/plain", good.clone()).await;
    assert_eq!(wrong_type, (415, json!("unsupported.media.type")));
    let bad_json = send(post.clone(), PURGE, json, "{".to_owned()).await;
    assert_eq!(bad_json, (400, json!("bad.request")));
    let too_long = send(post.clone(), PURGE, json, format!("{good}{}", " ".repeat(512_001 - good.len()))).await;
    assert_eq!(too_long, (413, json!("request.entity.too.large")));
    assert_eq!(setup.times_purged("/a"), 0);
    let longest = format!("{good}{}", " ".repeat(512_000 - good.len()));
    let request = setup.post(PURGE).header("content-type", "application/json; charset=utf-8").body(longest);
    assert_eq!(request.bearer_auth(&setup.token).send().await.unwrap().status(), StatusCode::ACCEPTED);
}

#[tokio::test]
async fn what_was_received_is_recorded() {
    let setup = Setup::new().await;
    let request = setup.post(&format!("{PURGE}?q=1")).json(&json!({"paths": ["/a"]}));
    request.bearer_auth(&setup.token).header("traceparent", "00-1-2-01").send().await.unwrap();
    setup.purged(&["bad"]).await;
    let requests = setup.simulator.requests();
    let purge = &requests[1];
    assert_eq!((purge.number, purge.method.as_str(), purge.path.as_str()), (2, "POST", PURGE));
    assert_eq!((purge.client_id.as_deref(), purge.query.as_deref()), (Some("client"), Some("q=1")));
    assert_eq!(purge.token.as_deref(), Some(&setup.token[..8]));
    assert_eq!((purge.status, purge.effect, &purge.fault), (Some(202), true, &None));
    assert_eq!(purge.body, json!({"paths": ["/a"]}));
    assert_eq!(purge.headers["traceparent"], "00-1-2-01");
    assert!(requests[0].at_us > 1_600_000_000_000_000 && requests[0].at_us <= purge.at_us);
    assert_eq!((requests[2].status, requests[2].effect), (Some(400), false));
}

#[tokio::test]
async fn latency_is_added_to_every_answer() {
    let latency = Duration::from_millis(50);
    let setup = Setup::with(SimulatorOptions { latency, ..SimulatorOptions::default() }).await;
    let begun = std::time::Instant::now();
    setup.purged(&["/a"]).await;
    assert!(begun.elapsed() >= latency);
}

#[tokio::test]
async fn a_stopped_simulator_is_gone() {
    let setup = Setup::new().await;
    let request = setup.purge(&["/a"]);
    setup.simulator.stop().await;
    assert!(request.send().await.is_err());
}
