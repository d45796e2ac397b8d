//! A limit that is a service's own holds its endpoint, for the kind that met it, and nothing else.

use super::*;

const OTHERS: &str = "/api/v2/others";

fn of_service(seconds: u64) -> ScriptedReply {
    const BODY: &str =
        r#"{"code":"too.many.requests","limit":{"key":"requests.per.minute","namespace":"integrations"}}"#;
    ScriptedReply::status(429).header("retry-after", &seconds.to_string()).body(BODY)
}

async fn scan(rig: &Rig, endpoint: &'static str) -> Result<ApiAnswer, ApiError> {
    let jobs = [job(9)];
    rig.client.send(ApiRequest::get(endpoint), &Caller { kind: Kind::FileScan, ..rig.caller(&jobs) }).await
}

/// A call that met the limit, and waits.
async fn waiting(rig: &Arc<Rig>) -> tokio::task::JoinHandle<Result<ApiAnswer, ApiError>> {
    let waiting = tokio::spawn({
        let rig = Arc::clone(rig);
        async move { rig.post().await }
    });
    tokio::time::sleep(SECOND).await;
    assert_eq!(rig.sent(), 1);
    waiting
}

#[tokio::test(start_paused = true)]
async fn other_kinds_and_other_endpoints_go_on_and_the_fleet_is_told_nothing() {
    let rig = Arc::new(Rig::answering([of_service(11)]));
    let (before, held) = (Instant::now(), waiting(&rig).await);
    scan(&rig, THINGS).await.unwrap();
    rig.send_for(2, ApiRequest::get(OTHERS)).await.unwrap();
    assert_eq!(before.elapsed().as_secs(), 1, "none of them waited");
    assert_eq!((rig.client.status().client_limit_pause, rig.reason()), (None, None));
    assert!(rig.client.problems().is_empty(), "the process is ready");
    let shut = rig.client.status().holds;
    let [shut] = shut.as_slice() else { panic!("{shut:?}") };
    assert_eq!((shut.reason, shut.kind), (ClosedReason::ServiceLimit, Some(Kind::CdnPurge)));
    assert!(shut.why.contains(THINGS) && shut.why.contains("integrations"), "{}", shut.why);

    assert_eq!(held.await.unwrap().unwrap().requests, 2, "no retry is burned");
    assert_eq!((before.elapsed().as_secs(), rig.client.status().holds), (11, vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_permit_in_hand_does_not_get_past_it() {
    let rig = Arc::new(Rig::answering([ScriptedReply::status(200), of_service(11)]));
    rig.send_for(2, ApiRequest::get(OTHERS)).await.unwrap();
    let jobs = [job(3)];
    let permit = rig.client.permit(&rig.caller(&jobs)).await.unwrap();
    let (before, held) = (Instant::now(), waiting(&rig).await);
    rig.client.send_with(permit, ApiRequest::post(THINGS), &rig.caller(&jobs)).await.unwrap();
    assert_eq!(before.elapsed().as_secs(), 11);
    held.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_long_one_sends_its_jobs_away_and_leaves_the_intake_open() {
    let rig = Rig::answering([of_service(600)]);
    for sent in [1, 0] {
        let error = rig.get().await.unwrap_err();
        assert_eq!((error.code, held_for(&rig, &error), error.requests), ("throttled", 600, sent));
    }
    assert_eq!(rig.reason(), None);
    scan(&rig, THINGS).await.unwrap();
    tokio::time::sleep(600 * SECOND).await;
    rig.get().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn stop_ends_the_waiting_for_it() {
    let rig = Arc::new(Rig::answering([of_service(20)]));
    let held = waiting(&rig).await;
    rig.stop.cancel();
    let error = held.await.unwrap().unwrap_err();
    assert_eq!((error.class, error.requests), (ErrorClass::Interrupted, 1));
}
