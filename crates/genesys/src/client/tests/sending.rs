//! One call: what is sent, and what follows from an answer or from none.

use super::*;
use genfleet_job::trace_context::TraceContext;

const NOT_FOUND: &str = r#"{"message":"no such thing","code":"not.found","status":404,"contextId":"c"}"#;

#[tokio::test(start_paused = true)]
async fn a_call_is_sent_as_it_was_made_and_its_answer_comes_back() {
    let rig = Rig::answering([ScriptedReply::status(200).body(r#"{"id":7}"#).header("inin-correlation-id", "abc")]);
    let request = ApiRequest::put(THINGS)
        .at("/api/v2/things/a%20b")
        .query("pageSize", 1)
        .query("name", "x & y")
        .header(reqwest::header::IF_MATCH, "*")
        .json(&serde_json::json!({"a": 1}));
    let jobs = [job(1)];
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let traces = [TraceContext::parse(parent, Some("k=v")).unwrap()];
    let caller = Caller { traces: &traces, ..rig.caller(&jobs) };
    let answer = rig.client.send(request, &caller).await.unwrap();
    assert_eq!((answer.status, answer.requests, answer.request_id.as_deref()), (200, 1, Some("abc")));
    assert_eq!(answer.json::<serde_json::Value>().unwrap()["id"], 7);
    let asked = rig.script.asked.lock().unwrap().last().unwrap().1.clone();
    assert_eq!(asked.url.as_str(), "https://api.mypurecloud.com/api/v2/things/a%20b?pageSize=1&name=x+%26+y");
    assert_eq!(asked.body.as_deref(), Some(&br#"{"a":1}"#[..]));
    for (name, value) in [
        ("authorization", "Bearer token-1"),
        ("content-type", "application/json"),
        ("if-match", "*"),
        ("traceparent", parent),
        ("tracestate", "k=v"),
    ] {
        assert_eq!(asked.headers[name], value);
    }
}

#[tokio::test(start_paused = true)]
async fn every_request_names_json_also_without_a_body() {
    let rig = Rig::new(|_| ScriptedReply::status(200).body("{}"));
    for request in [ApiRequest::get(THINGS), ApiRequest::post(THINGS), ApiRequest::patch(THINGS)] {
        let method = request.name();
        rig.send_for(1, request).await.unwrap();
        let asked = rig.script.asked.lock().unwrap().last().unwrap().1.clone();
        for name in ["content-type", "accept"] {
            assert_eq!(asked.headers[name], "application/json", "{method}");
        }
        assert!(asked.body.is_none(), "{method}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_too_long_for_the_api_is_not_sent() {
    let rig = Rig::new(|_| ScriptedReply::status(200).body("{}"));
    // With the quotation marks around it.
    let body = |bytes: usize| "x".repeat(bytes - 2);
    rig.send_for(1, ApiRequest::put(THINGS).json(&body(512_000))).await.unwrap();
    let error = rig.send_for(1, ApiRequest::put(THINGS).json(&body(512_001))).await.unwrap_err();
    assert_eq!((error.class, error.code, error.requests), (ErrorClass::Permanent, "rejected", 0));
    assert!(error.message.contains("at most 512000"), "{}", error.message);
    assert_eq!(rig.sent(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_safe_to_repeat_is_tried_four_times_in_all() {
    let rig = Rig::new(|_| ScriptedReply::status(502).body("bad gateway"));
    let error = rig.get().await.unwrap_err();
    assert_eq!((error.class, error.code, error.requests), (ErrorClass::Transient, "api_unavailable", 4));
    assert_eq!(error.details["body"], "bad gateway");
    assert_eq!(rig.sent(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_poll_is_one_request_where_it_fails_and_waits_for_a_pause_all_the_same() {
    let poll = || ApiRequest::get(THINGS).without_retries();
    for reply in [
        ScriptedReply::status(500),
        ScriptedReply::lost(TransportFailure::TimedOut),
        ScriptedReply::lost(TransportFailure::NeverSent),
    ] {
        let rig = Rig::answering([reply]);
        let error = rig.send_for(1, poll()).await.unwrap_err();
        assert_eq!((error.class, error.requests, rig.sent()), (ErrorClass::Transient, 1, 1), "{error}");
    }
    let rig = Rig::answering([ScriptedReply::status(429).header("retry-after", "2")]);
    assert_eq!(rig.send_for(1, poll()).await.unwrap().requests, 2);
}

/// A cache that mixes answers up, a gateway that answers for another.
#[tokio::test(start_paused = true)]
async fn somebody_elses_answer_is_asked_for_again_and_a_create_is_looked_up() {
    let other = || ScriptedReply::status(200).body(r#"{"id":"other","state":"done"}"#);
    let rig = Rig::answering([other(), ScriptedReply::status(200).body(r#"{"id":"mine"}"#)]);
    let request = || ApiRequest::get(THINGS).expect_member("id", "mine");
    let answer = rig.send_for(1, request()).await.unwrap();
    assert_eq!((answer.requests, answer.json::<serde_json::Value>().unwrap()["id"].as_str()), (2, Some("mine")));
    let rig = Rig::new(move |_| other());
    let error = rig.send_for(1, request()).await.unwrap_err();
    assert_eq!((error.class, error.code, error.requests), (ErrorClass::Transient, "unexpected_response", 4));
    assert!(error.message.contains("another id (\"other\") than was asked for (\"mine\")"), "{error}");
    let create = ApiRequest::post(THINGS).expect_member("id", "mine");
    assert_eq!(rig.send_for(1, create).await.unwrap_err().class, ErrorClass::Ambiguous);
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_succeeds_counts_all_its_requests() {
    let rig = Rig::answering([
        ScriptedReply::status(500),
        ScriptedReply::lost(TransportFailure::TimedOut),
        ScriptedReply::status(200),
    ]);
    let answer = rig.get().await.unwrap();
    assert_eq!((answer.status, answer.requests), (200, 3));
}

#[tokio::test(start_paused = true)]
async fn a_create_that_may_have_arrived_is_never_sent_again() {
    for reply in [
        ScriptedReply::status(500),
        ScriptedReply::status(503),
        ScriptedReply::status(408),
        ScriptedReply::lost(TransportFailure::TimedOut),
        ScriptedReply::lost(TransportFailure::Broken),
    ] {
        let rig = Rig::answering([reply]);
        let error = rig.post().await.unwrap_err();
        assert_eq!((error.class, error.requests, rig.sent()), (ErrorClass::Ambiguous, 1, 1), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_create_that_never_arrived_is_sent_again() {
    let rig = Rig::answering([ScriptedReply::lost(TransportFailure::NeverSent)]);
    assert_eq!(rig.post().await.unwrap().requests, 2);
}

#[tokio::test(start_paused = true)]
async fn a_create_that_is_safe_to_repeat_is_repeated() {
    let rig = Rig::answering([ScriptedReply::status(500)]);
    let request = ApiRequest::post(THINGS).safe_to_repeat();
    assert_eq!(rig.send_for(1, request).await.unwrap().requests, 2);
}

#[tokio::test(start_paused = true)]
async fn no_retry_begins_after_ten_seconds() {
    let rig = Rig::new(|_| ScriptedReply::lost(TransportFailure::TimedOut).after(6 * SECOND));
    assert_eq!(rig.get().await.unwrap_err().requests, 2, "the second one begins within them");
}

#[tokio::test(start_paused = true)]
async fn a_retry_never_comes_before_retry_after() {
    let rig = Rig::answering([ScriptedReply::status(500).header("retry-after", "7")]);
    rig.get().await.unwrap();
    let times = rig.script.times(THINGS);
    assert!(times[1] - times[0] >= 7 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_retry_after_that_is_too_far_off_goes_back_with_the_error() {
    let rig = Rig::answering([ScriptedReply::status(500).header("retry-after", "70")]);
    let error = rig.get().await.unwrap_err();
    assert_eq!((error.requests, error.retry_after), (1, 70 * SECOND));
    assert_eq!(JobError::from(error).retry_after, 70 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn permanent_answers_are_told_with_all_the_api_said() {
    for (status, code) in [
        (400, "rejected"),
        (422, "rejected"),
        (404, "not_found"),
        (409, "conflict"),
        (412, "conflict"),
        (413, "rejected"),
        (501, "rejected"),
        (302, "unexpected_response"),
    ] {
        let body = r#"{"message":"no such thing","code":"bad.thing","contextId":"c-1"}"#;
        let rig = Rig::answering([ScriptedReply::status(status).body(body).header("x-request-id", "r-1")]);
        let error = rig.get().await.unwrap_err();
        assert_eq!((error.class, error.code, error.status), (ErrorClass::Permanent, code, Some(status)));
        assert_eq!(error.request_id.as_deref(), Some("r-1"));
        assert_eq!(error.details["contextId"], "c-1");
        assert!(error.message.contains("GET /api/v2/things") && error.message.contains("no such thing"), "{error}");
        assert_eq!(rig.sent(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_status_that_the_caller_expects_is_an_answer() {
    let rig = Rig::answering([ScriptedReply::status(404).body(NOT_FOUND)]);
    let request = ApiRequest::get(THINGS).expect(&[200, 404]);
    assert_eq!(rig.send_for(1, request).await.unwrap().status, 404);
}

#[tokio::test(start_paused = true)]
async fn json_of_another_form_than_promised_is_unexpected() {
    let rig = Rig::answering([ScriptedReply::status(200).body(r#"{"message":"hello"}"#)]);
    let error = rig.get().await.unwrap().json::<Vec<u32>>().unwrap_err();
    assert_eq!((error.class, error.code, error.requests), (ErrorClass::Permanent, "unexpected_response", 1));
    assert_eq!(error.details["message"], "hello");
}

#[tokio::test(start_paused = true)]
async fn somebody_elses_page_is_waited_out_whatever_its_status() {
    for status in [200, 202, 204, 302, 400, 403, 404, 405, 409, 412, 422, 501] {
        let page =
            move || ScriptedReply::status(status).body("<html>Sign in</html>").header("content-type", "text/html");
        let rig = Rig::answering([page(), page()]);
        let answer = rig.get().await.unwrap();
        assert_eq!((answer.status, answer.requests), (200, 3), "{status}");
        let rig = Rig::new(move |_| page());
        let error = rig.get().await.unwrap_err();
        assert_eq!((error.class, error.requests), (ErrorClass::Transient, 4), "{status}");
        assert!(error.message.contains("Sign in") && error.message.contains("GENESYS_BASE_URL"), "{error}");
        let rig = Rig::answering([page()]);
        let error = rig.post().await.unwrap_err();
        assert_eq!((error.class, error.requests), (ErrorClass::Ambiguous, 1), "{status}: it may have been made");
    }
}

#[tokio::test(start_paused = true)]
async fn a_404_without_the_apis_own_words_is_waited_out() {
    for body in ["default backend - 404", "", "{}"] {
        let rig = Rig::answering([ScriptedReply::status(404).body(body)]);
        assert_eq!(rig.send_for(1, ApiRequest::get(THINGS).expect(&[200, 404])).await.unwrap().status, 200, "{body}");
    }
    let rig = Rig::answering([ScriptedReply::status(404).body(NOT_FOUND)]);
    assert_eq!(rig.get().await.unwrap_err().code, "not_found");
}

#[tokio::test(start_paused = true)]
async fn without_a_body_other_refusals_are_what_they_were() {
    for (status, code) in [(400, "rejected"), (409, "conflict"), (412, "conflict"), (422, "rejected")] {
        let rig = Rig::answering([ScriptedReply::status(status).body("")]);
        let error = rig.get().await.unwrap_err();
        assert_eq!((error.class, error.code), (ErrorClass::Permanent, code), "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_success_of_another_status_than_promised_is_none() {
    let rig = Rig::answering([ScriptedReply::status(200)]);
    let request = ApiRequest::post(THINGS).expect(&[202]).safe_to_repeat();
    let error = rig.send_for(1, request).await.unwrap_err();
    assert_eq!((error.class, error.code, error.status), (ErrorClass::Permanent, "unexpected_response", Some(200)));
    assert!(error.message.contains("the API promises 202"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_api_that_quotes_our_secrets_makes_us_tell_none() {
    let quoted = r#"{"message":"bad header Authorization: Bearer token-1","code":"bad","details":["dGhlLWlkOnRoZS1zZWNyZXQ=","the-secret"]}"#;
    for body in [quoted.to_owned(), format!("<pre>{quoted}</pre>")] {
        let rig = Rig::new(move |_| ScriptedReply::status(400).body(&body).header("x-request-id", "for token-1"));
        let error = rig.get().await.unwrap_err();
        let job = JobError::from(error.clone());
        let told = format!("{error:?} {job:?}");
        for secret in ["token-1", "the-secret", "dGhlLWlkOnRoZS1zZWNyZX"] {
            assert!(!told.contains(secret), "{told}");
        }
        assert!(told.contains("[redacted]"), "{told}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_too_long_is_unexpected_and_not_asked_for_again() {
    let rig = Rig::answering([ScriptedReply::lost(TransportFailure::TooLong)]);
    assert_eq!(rig.get().await.unwrap_err().code, "unexpected_response");
    assert_eq!(rig.sent(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_path_that_would_become_another_one_is_not_sent() {
    let rig = Rig::answering([]);
    for path in ["/api/v2/things/../secrets", "/api/v2/things/a b", "/api/v2/things/a#b", "@elsewhere.example/"] {
        let error = rig.send_for(1, ApiRequest::get(THINGS).at(path)).await.unwrap_err();
        assert_eq!((error.class, error.code, error.requests), (ErrorClass::Permanent, "rejected", 0), "{path}");
    }
    assert!(rig.script.asked.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn stop_begins_nothing_and_lets_what_is_in_flight_finish() {
    let rig = Arc::new(Rig::new(|_| ScriptedReply::status(200).after(5 * SECOND)));
    let running = tokio::spawn({
        let rig = Arc::clone(&rig);
        async move { rig.get().await }
    });
    tokio::time::sleep(SECOND).await;
    rig.stop.cancel();
    let error = rig.get().await.unwrap_err();
    assert_eq!((error.class, error.requests), (ErrorClass::Interrupted, 0));
    assert_eq!(running.await.unwrap().unwrap().status, 200);
}

#[tokio::test(start_paused = true)]
async fn stop_between_two_tries_interrupts_and_tells_what_was_sent() {
    let rig = Arc::new(Rig::new(|_| ScriptedReply::status(500).header("retry-after", "5")));
    let running = tokio::spawn({
        let rig = Arc::clone(&rig);
        async move { rig.get().await }
    });
    tokio::time::sleep(SECOND).await;
    rig.stop.cancel();
    let error = running.await.unwrap().unwrap_err();
    assert_eq!((error.class, error.requests), (ErrorClass::Interrupted, 1));
}

#[tokio::test(start_paused = true)]
async fn a_permit_goes_at_once_and_an_unused_one_gives_its_budget_back() {
    let mut options = options();
    options.requests_per_minute = 1;
    let rig = Rig::with(&options, ScriptedTransport::new(with_tokens(|_| ScriptedReply::status(200))));
    let jobs = [job(1)];
    let caller = rig.caller(&jobs);
    drop(rig.client.permit(&caller).await.unwrap());
    let permit = rig.client.permit(&caller).await.unwrap();
    let before = Instant::now();
    let answer = rig.client.send_with(permit, ApiRequest::get(THINGS), &caller).await.unwrap();
    assert_eq!((answer.requests, before.elapsed()), (1, Duration::from_millis(10)));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_with_its_request_in_flight_wedges_nothing() {
    let mut first = true;
    let rig = Rig::new(move |_| {
        ScriptedReply::status(200).after(if std::mem::take(&mut first) { 1000 * SECOND } else { SECOND / 100 })
    });
    let gone = tokio::time::timeout(SECOND / 2, rig.get()).await;
    assert!(gone.is_err());
    let before = Instant::now();
    rig.get().await.unwrap();
    assert!(before.elapsed() < SECOND);
}

#[tokio::test(start_paused = true)]
async fn no_debug_output_holds_a_secret() {
    let rig = Rig::answering([]);
    rig.get().await.unwrap();
    let jobs = [job(1)];
    let permit = rig.client.permit(&rig.caller(&jobs)).await.unwrap();
    let shown = format!("{:?} {permit:?} {:?}", rig.client, *rig.client.shared.admission.control());
    for secret in ["token-1", "the-id", "the-secret"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}
