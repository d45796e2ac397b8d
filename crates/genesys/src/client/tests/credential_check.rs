//! One token and one request tried, for the operator's tool: what is told of them, and that nothing else changes.

use super::*;
use crate::credential_check::TokenCheckOutcome;

fn rig(mut reply: impl FnMut(&HttpRequest) -> ScriptedReply + Send + 'static) -> Rig {
    Rig::with(&options(), ScriptedTransport::new(move |asked| reply(asked)))
}

#[tokio::test(start_paused = true)]
async fn what_the_token_endpoint_says_is_told_apart_and_begins_no_hold() {
    let throttled = r#"{"error":"invalid_request","description":"rate limit exceeded;"}"#;
    for (reply, told) in [
        (ScriptedReply::token("one"), "Granted"),
        (
            ScriptedReply::status(400).body(r#"{"error":"invalid_client"}"#),
            "Refused { reported: \"400 invalid_client\"",
        ),
        (ScriptedReply::status(400).body(throttled), "Throttled { wait: None"),
        (ScriptedReply::status(429).header("retry-after", "7"), "Throttled { wait: Some(7s)"),
        (ScriptedReply::status(502), "Away"),
        (ScriptedReply::lost(TransportFailure::NeverSent), "NoAnswer { failure: NeverSent"),
    ] {
        let mut reply = Some(reply);
        let rig = rig(move |_| reply.take().unwrap_or_else(|| ScriptedReply::status(500)));
        let trial = rig.client.check_credentials().await;
        let shown = format!("{:?}", trial.token);
        assert!(shown.starts_with(told), "{shown} instead of {told}");
        assert_eq!(rig.client.problems(), Vec::<String>::new());
    }
}

#[tokio::test(start_paused = true)]
async fn scopes_that_are_not_known_are_told_and_the_token_is_shown_to_the_api() {
    let rig = rig(|asked| match asked.url.path() {
        TOKEN if asked.body.as_deref().is_some_and(|body| body.ends_with(b"client_credentials")) => {
            ScriptedReply::token("one").header("date", "Sun, 01 Mar 2026 12:00:40 GMT")
        }
        TOKEN => ScriptedReply::status(400).body(r#"{"error":"invalid_scope"}"#),
        _ => ScriptedReply::status(404).header("inin-ratelimit-allowed", "300"),
    });
    let trial = rig.client.check_credentials().await;
    let TokenCheckOutcome::Granted { life, scoped } = trial.token else { panic!("{trial:?}") };
    assert_eq!((life.as_secs(), scoped), (86_400, false));
    assert_eq!(trial.clock.unwrap().ahead(), -39, "ours is at noon");
    let (status, rates) = trial.api.unwrap().unwrap();
    assert_eq!((status, rates.allowed), (404, Some(300)));
    let asked = rig.script.asked.lock().unwrap().last().unwrap().1.clone();
    assert_eq!(
        (asked.url.path(), asked.headers["authorization"].to_str().unwrap()),
        ("/api/v2/tokens/me", "Bearer one")
    );
}
