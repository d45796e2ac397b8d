//! The client's limit, which other processes share.

use super::*;

const CLIENT_WIDE: &str = r#"{"code":"too.many.requests","message":"Rate limit exceeded the maximum. Retry the request in [20] seconds","limit":{"key":"org.app.user.rate.per.minute","namespace":"platform.api","value":"3000"}}"#;

#[tokio::test(start_paused = true)]
async fn a_429_of_the_clients_limit_is_to_be_told_and_one_of_the_tokens_is_not() {
    let of_token = CLIENT_WIDE.replace("org.app.user", "client.credentials.token");
    for (body, told) in [(CLIENT_WIDE, true), (of_token.as_str(), false)] {
        let rig = Arc::new(Rig::answering([ScriptedReply::status(429).body(body)]));
        assert_eq!(rig.client.status().client_limit_pause, None);
        let sending = tokio::spawn({
            let rig = Arc::clone(&rig);
            async move { rig.post().await }
        });
        tokio::time::sleep(SECOND).await;
        let shut = rig.client.status().client_limit_pause.map(|left| left.as_secs());
        assert_eq!(shut, told.then_some(19), "{body}");
        assert_eq!(rig.client.status().holds.len(), 1);
        sending.await.unwrap().unwrap();
        assert_eq!((rig.client.status().client_limit_pause, rig.client.status().holds), (None, vec![]), "it is over");
    }
}

#[tokio::test(start_paused = true)]
async fn what_another_process_met_stops_this_one_which_then_starts_slowly_and_tells_nobody() {
    let rig = Rig::new(|_| ScriptedReply::status(200));
    rig.get().await.unwrap();
    rig.client.pause_for_client_limit(20 * SECOND);
    assert_eq!(
        rig.client.status().client_limit_pause,
        None,
        "who met it tells it; else its end would move with every telling"
    );
    let before = Instant::now();
    rig.get().await.unwrap();
    assert_eq!(before.elapsed().as_secs(), 20);
    rig.client.pause_for_client_limit(45 * SECOND);
    assert_eq!(rig.reason(), Some(ClosedReason::Throttled), "long enough to close the intake");
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_its_part_goes_as_soon_as_that_grows() {
    let rig = Arc::new(Rig::new(|_| ScriptedReply::status(200)));
    rig.client.set_limit_share(LimitShare::alone(1));
    rig.get().await.unwrap();
    let waiting = tokio::spawn({
        let rig = Arc::clone(&rig);
        async move { rig.get().await }
    });
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!(rig.sent(), 1);
    let before = Instant::now();
    rig.client.set_limit_share(LimitShare::alone(500));
    waiting.await.unwrap().unwrap();
    assert!(before.elapsed() < SECOND);
    assert_eq!(rig.client.status().usage.last_minute, 2);
}

#[tokio::test(start_paused = true)]
async fn the_client_has_a_fingerprint_and_not_named() {
    let (one, same) = (Rig::new(|_| ScriptedReply::status(200)), Rig::new(|_| ScriptedReply::status(200)));
    let fingerprint = one.client.client_fingerprint();
    assert_eq!(fingerprint, same.client.client_fingerprint());
    assert!(fingerprint.len() == FINGERPRINT_LENGTH && !fingerprint.contains("the-id"), "{fingerprint}");
    same.credentials.lock().unwrap().id = "another".to_owned().into();
    same.client.shared.tokens.retry_credentials();
    assert_ne!(fingerprint, same.client.client_fingerprint());
}

const FINGERPRINT_LENGTH: usize = 16;
