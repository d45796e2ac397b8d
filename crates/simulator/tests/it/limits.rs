//! Rate limits, as a client meets them.

use std::time::Duration;

use genfleet_simulator::SimulatorOptions;
use reqwest::StatusCode;
use serde_json::json;

use crate::{Setup, header, read_answer};

fn limited(per_token: u32, per_client: u32) -> SimulatorOptions {
    SimulatorOptions {
        requests_per_minute: per_token,
        client_requests_per_minute: per_client,
        ..SimulatorOptions::default()
    }
}

#[tokio::test]
async fn the_limit_answers_429_exactly_after_so_many_requests() {
    let setup = Setup::with(limited(5, 100)).await;
    for number in 1..=5 {
        let response = setup.purged(&["/a"]).await;
        assert_eq!(
            (response.status(), header(&response, "inin-ratelimit-count")),
            (StatusCode::ACCEPTED, number.to_string())
        );
    }
    let response = setup.purged(&["/a"]).await;
    let wait: u64 = header(&response, "retry-after").parse().unwrap();
    let reset: u64 = header(&response, "inin-ratelimit-reset").parse().unwrap();
    assert!((40..=60).contains(&wait) && reset < wait, "{wait} {reset}");
    let (status, body) = read_answer(response).await;
    assert_eq!((status, &body["code"]), (StatusCode::TOO_MANY_REQUESTS, &json!("too.many.requests")));
    assert_eq!(body["message"], format!("Rate limit exceeded the maximum. Retry the request in [{wait}] seconds"));
    let limit = json!({"key": "token.rate.per.minute", "namespace": "platform.api", "value": "5"});
    assert_eq!(body["limit"], limit);
    assert_eq!(setup.times_purged("/a"), 5);
    assert_eq!(setup.simulator.requests().last().unwrap().status, Some(429));
}

#[tokio::test]
async fn another_token_has_its_own_window_within_the_clients() {
    let mut setup = Setup::with(limited(2, 3)).await;
    for _ in 0..2 {
        assert_eq!(setup.purged(&["/a"]).await.status(), StatusCode::ACCEPTED);
    }
    setup.token = setup.new_token().await;
    assert_eq!(setup.purged(&["/a"]).await.status(), StatusCode::ACCEPTED);
    let (status, body) = read_answer(setup.purged(&["/a"]).await).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!((&body["limit"]["key"], &body["limit"]["value"]), (&json!("org.app.user.rate.per.minute"), &json!("3")));
}

#[tokio::test]
async fn a_window_that_is_over_lets_requests_through_again() {
    let rate_window = Duration::from_millis(300);
    let setup = Setup::with(SimulatorOptions { rate_window, ..limited(1, 100) }).await;
    let (mut accepted, mut refused) = (0, 0);
    while accepted < 2 || refused == 0 {
        match setup.purged(&["/a"]).await.status() {
            StatusCode::ACCEPTED => accepted += 1,
            status => {
                assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
                refused += 1;
            }
        }
    }
}

#[tokio::test]
async fn a_pretended_429_counts_in_the_window() {
    let setup = Setup::with(limited(2, 100)).await;
    setup.simulator.set_faults(vec!["status=429,retry-after=7,times=1".parse().unwrap()]);
    let response = setup.purged(&["/a"]).await;
    assert_eq!((header(&response, "retry-after"), header(&response, "inin-ratelimit-count")), ("7".into(), "1".into()));
    let (_, body) = read_answer(response).await;
    assert_eq!(body["message"], "Rate limit exceeded the maximum. Retry the request in [7] seconds");
    assert_eq!(body["limit"]["key"], "token.rate.per.minute");
    assert_eq!(setup.purged(&["/a"]).await.status(), StatusCode::ACCEPTED);
    assert_eq!(setup.purged(&["/a"]).await.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(setup.times_purged("/a"), 1);
}

#[tokio::test]
async fn a_pretended_429_names_the_limit_it_is_told_to() {
    let setup = Setup::with(limited(100, 3000)).await;
    setup.simulator.set_faults(vec!["status=429,limit=client,retry-after=7".parse().unwrap()]);
    let (_, body) = read_answer(setup.purged(&["/a"]).await).await;
    assert_eq!(body["limit"]["key"], "org.app.user.rate.per.minute");
    assert_eq!(body["limit"]["value"], "3000");
}
