//! The token: asked for once, replaced in time, and what follows if there is none.

use super::*;

fn rig(tokens: impl FnMut(&HttpRequest) -> ScriptedReply + Send + 'static) -> Arc<Rig> {
    rig_with(&options(), tokens)
}

fn rig_with(
    options: &GenesysOptions,
    mut tokens: impl FnMut(&HttpRequest) -> ScriptedReply + Send + 'static,
) -> Arc<Rig> {
    let script =
        ScriptedTransport::new(
            move |asked| if asked.url.path() == TOKEN { tokens(asked) } else { ScriptedReply::status(200) },
        );
    Arc::new(Rig::with(options, script))
}

fn form(asked: &HttpRequest) -> String {
    String::from_utf8(asked.body.clone().unwrap().to_vec()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn all_who_wait_share_one_token_also_when_the_first_goes_away() {
    let rig = rig(|_| ScriptedReply::token("one").after(3 * SECOND));
    assert!(tokio::time::timeout(SECOND, rig.get()).await.is_err(), "it goes away");
    let calls: Vec<_> = (0..10)
        .map(|_| {
            let rig = Arc::clone(&rig);
            tokio::spawn(async move { rig.get().await })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(rig.tokens(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_token_is_asked_for_with_the_scopes_of_all_kinds() {
    let rig = rig(|_| ScriptedReply::token("one"));
    rig.get().await.unwrap();
    let asked = rig.script.asked.lock().unwrap()[0].1.clone();
    assert_eq!(asked.url.as_str(), "https://login.mypurecloud.com/oauth/token");
    assert_eq!(form(&asked), "grant_type=client_credentials&scope=files%3Aread+things%3Aread+things%3Awrite");
    assert!(asked.basic.is_some());
}

#[tokio::test(start_paused = true)]
async fn client_auth_form_puts_id_and_secret_in_the_body() {
    let rig = rig_with(&GenesysOptions { genesys_client_auth: ClientAuth::Form, ..options() }, |_| {
        ScriptedReply::token("one")
    });
    rig.get().await.unwrap();
    let asked = rig.script.asked.lock().unwrap()[0].1.clone();
    assert!(form(&asked).ends_with("&client_id=the-id&client_secret=the-secret"));
    assert!(asked.basic.is_none());
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_refuses_the_scopes_is_asked_once_more_without() {
    for body in [r#"{"error":"invalid_scope"}"#, r#"{"error":"invalid_request","description":"no such scope"}"#, ""] {
        let rig = rig(move |asked| {
            let scoped = form(asked).contains("scope=");
            if scoped { ScriptedReply::status(400).body(body) } else { ScriptedReply::token("one") }
        });
        rig.get().await.unwrap();
        assert_eq!(rig.tokens(), 2, "{body}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_not_known_is_not_asked_for_again_without_scopes() {
    let rig = rig(|_| ScriptedReply::status(400).body(r#"{"error":"invalid_client"}"#));
    rig.get().await.unwrap_err();
    assert_eq!(rig.tokens(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_token_is_replaced_before_it_ends_while_the_old_one_is_used() {
    let mut number = 0;
    let rig = rig(move |_| {
        number += 1;
        let body = format!(r#"{{"access_token":"token-{number}","expires_in":600}}"#);
        ScriptedReply::status(200).body(&body).after(if number == 2 { 10 * SECOND } else { SECOND / 100 })
    });
    rig.get().await.unwrap();
    tokio::time::sleep(545 * SECOND).await;
    let before = Instant::now();
    rig.get().await.unwrap();
    assert!(before.elapsed() < SECOND, "nobody waits for the new one");
    tokio::time::sleep(20 * SECOND).await;
    rig.get().await.unwrap();
    let asked = rig.script.asked.lock().unwrap();
    let used: Vec<String> =
        asked.iter().filter(|(_, asked)| asked.url.path() == THINGS).map(|(_, asked)| bearer(asked)).collect();
    assert_eq!(used, ["Bearer token-1", "Bearer token-1", "Bearer token-2"]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_is_replaced_once_for_all_and_the_call_goes_on() {
    let rig = Arc::new(Rig::new(|asked| {
        if bearer(asked) == "Bearer token-1" {
            ScriptedReply::status(401).after(SECOND / 10)
        } else {
            ScriptedReply::status(200)
        }
    }));
    let calls: Vec<_> = (0..20)
        .map(|number| {
            let rig = Arc::clone(&rig);
            tokio::spawn(async move { rig.send_for(number, ApiRequest::post(THINGS)).await })
        })
        .collect();
    for call in calls {
        let answer = call.await.unwrap().unwrap();
        assert!(answer.requests <= 2);
    }
    assert_eq!(rig.tokens(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_new_token_brings_a_budget_of_its_own() {
    let options = GenesysOptions { requests_per_minute: 1, ..options() };
    let api = |asked: &HttpRequest| ScriptedReply::status(if bearer(asked) == "Bearer token-1" { 401 } else { 200 });
    let rig = Rig::with(&options, ScriptedTransport::new(with_tokens(api)));
    let before = Instant::now();
    assert_eq!(rig.get().await.unwrap().requests, 2);
    assert!(before.elapsed() < SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_permit_whose_token_was_refused_meanwhile_is_sent_with_the_new_one() {
    let rig = Rig::answering([]);
    let jobs = [job(1)];
    let caller = rig.caller(&jobs);
    let permit = rig.client.permit(&caller).await.unwrap();
    rig.client.shared.admission.control().tokens.forget(permit.token.number);
    rig.get().await.unwrap();
    rig.client.send_with(permit, ApiRequest::get(THINGS), &caller).await.unwrap();
    let asked = rig.script.asked.lock().unwrap();
    assert_eq!(bearer(&asked.last().unwrap().1), "Bearer token-2");
}

#[tokio::test(start_paused = true)]
async fn a_fresh_token_that_is_refused_is_a_matter_of_the_credentials() {
    let rig = Rig::new(|_| ScriptedReply::status(401).body(r#"{"code":"bad.credentials"}"#));
    let error = rig.get().await.unwrap_err();
    assert_eq!((error.class, error.requests, error.status), (ErrorClass::Credentials, 2, Some(401)));
    assert_eq!(rig.reason(), Some(ClosedReason::Credentials));
    assert!(rig.client.problems()[0].contains("bad.credentials"));
}

#[tokio::test(start_paused = true)]
async fn the_token_endpoints_rate_limit_is_a_pause_and_no_error() {
    let mut calls = 0;
    let rig = rig(move |_| {
        calls += 1;
        let body = r#"{"error":"invalid_request","error_description":"rate limit exceeded; try later"}"#;
        if calls < 3 { ScriptedReply::status(400).body(body) } else { ScriptedReply::token("one") }
    });
    let before = Instant::now();
    assert_eq!(rig.get().await.unwrap().requests, 1);
    assert_eq!(before.elapsed().as_secs(), 15, "5 s, then 10 s");
    assert_eq!(rig.tokens(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_token_endpoint_that_is_away_is_transient_and_retried() {
    let mut calls = 0;
    let rig = rig(move |_| {
        calls += 1;
        if calls < 3 { ScriptedReply::status(502) } else { ScriptedReply::token("one") }
    });
    assert_eq!(rig.get().await.unwrap().requests, 1);
    let rig = self::rig(|_| ScriptedReply::lost(TransportFailure::TimedOut));
    let error = rig.get().await.unwrap_err();
    assert_eq!((error.class, error.code, error.requests), (ErrorClass::Transient, "api_timeout", 0));
    assert_eq!(rig.tokens(), 4);
    // A caller that asks for a permit first and sends with it later, as the purger does, is served no worse.
    let jobs = [job(1)];
    rig.client.permit(&rig.caller(&jobs)).await.unwrap_err();
    assert_eq!(rig.tokens(), 8);
}

#[tokio::test(start_paused = true)]
async fn refused_credentials_are_tried_once_at_a_time_also_where_the_endpoint_is_away() {
    let mut calls = 0;
    let rig = rig(move |_| {
        calls += 1;
        ScriptedReply::status(if calls == 1 { 401 } else { 502 })
    });
    let background = tokio::spawn(rig.client.clone().run());
    rig.get().await.unwrap_err();
    tokio::time::sleep(95 * SECOND).await;
    assert_eq!(rig.tokens(), 4, "every 30 s");
    background.abort();
}

#[tokio::test(start_paused = true)]
async fn a_token_endpoint_that_stays_away_opens_the_breaker() {
    let rig = rig(|_| ScriptedReply::status(503));
    for number in 0..20 {
        let _ = rig.send_for(number, ApiRequest::get(THINGS)).await;
    }
    assert_eq!(rig.reason(), Some(ClosedReason::ApiUnavailable));
    assert!(rig.tokens() < 30);
}

#[tokio::test(start_paused = true)]
async fn bad_credentials_stop_the_process_until_new_ones_are_read() {
    let rig = rig(|asked| {
        use secrecy::ExposeSecret;
        let (_, secret) = asked.basic.clone().unwrap();
        let body = r#"{"error":"invalid_client","error_description":"authentication failed"}"#;
        if secret.expose_secret() == "new" {
            ScriptedReply::token("one")
        } else {
            ScriptedReply::status(400).body(body)
        }
    });
    let background = tokio::spawn(rig.client.clone().run());
    let error = rig.get().await.unwrap_err();
    assert_eq!((error.class, error.requests), (ErrorClass::Credentials, 0));
    assert!(error.message.contains("authentication failed") && error.message.contains("GENESYS_CLIENT_SECRET"));
    assert_eq!(rig.reason(), Some(ClosedReason::Credentials));
    for _ in 0..10 {
        assert_eq!(rig.get().await.unwrap_err().class, ErrorClass::Credentials);
    }
    assert_eq!(rig.tokens(), 1, "nobody asks again but the probe");
    tokio::time::sleep(95 * SECOND).await;
    assert_eq!(rig.tokens(), 4, "every 30 s");
    rig.credentials.lock().unwrap().secret = "new".to_owned().into();
    tokio::time::sleep(30 * SECOND).await;
    assert_eq!(rig.reason(), None);
    assert!(rig.client.problems().is_empty());
    rig.get().await.unwrap();
    background.abort();
}
