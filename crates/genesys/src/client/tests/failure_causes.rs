//! What an outage and a clock that is off are told by.

use super::*;

fn told(rig: &Rig) -> String {
    rig.client.warnings().join("\n")
}

#[tokio::test(start_paused = true)]
async fn an_outage_says_what_its_requests_came_to_until_it_is_over() {
    let (mut asked, back) = (0, Arc::new(Mutex::new(false)));
    let answers = Arc::clone(&back);
    let rig = Rig::new(move |_| {
        asked += 1;
        match asked % 4 {
            _ if *answers.lock().unwrap() => ScriptedReply::status(200),
            0 => ScriptedReply::lost(TransportFailure::NeverSent),
            1 => ScriptedReply::status(502).body("<html>no backend</html>"),
            _ => ScriptedReply::status(503),
        }
    });
    for number in 0..5 {
        let _ = rig.send_for(number, ApiRequest::get(THINGS)).await;
    }
    assert_eq!(rig.reason(), Some(ClosedReason::ApiUnavailable));
    assert_eq!(told(&rig), "Genesys Cloud is not answering: 503 ×10, 502 from a proxy or gateway ×5, lost ×5");
    assert_eq!(rig.client.status().holds[0].why, told(&rig), "for status and the page");
    assert!(rig.client.problems().is_empty(), "the process is ready");
    let held = rig.get().await.unwrap_err();
    assert!(held.message.contains("503 ×10"), "{held:?}");
    *back.lock().unwrap() = true;
    tokio::time::sleep(6 * SECOND).await;
    rig.get().await.unwrap();
    assert_eq!(told(&rig), "");
}

#[tokio::test(start_paused = true)]
async fn a_few_failures_are_told_before_they_are_an_outage_and_forgotten_with_the_next_success() {
    let rig = Rig::answering((0..4).map(|_| ScriptedReply::status(503)));
    let _ = rig.get().await;
    assert_eq!((rig.reason(), told(&rig)), (None, "requests to the API fail: 503 ×4".to_owned()));
    rig.get().await.unwrap();
    assert_eq!(told(&rig), "");
}

#[tokio::test(start_paused = true)]
async fn a_token_endpoint_that_is_away_is_told_as_such() {
    let rig = Rig::with(&options(), ScriptedTransport::new(|_| ScriptedReply::status(500)));
    for number in 0..5 {
        let _ = rig.send_for(number, ApiRequest::get(THINGS)).await;
    }
    assert!(told(&rig).starts_with("Genesys Cloud is not answering: token endpoint: 500 ×"), "{}", told(&rig));
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_off_is_told_by_answers_of_the_api_alone() {
    let date = |reply: ScriptedReply| reply.header("date", "Sun, 01 Mar 2026 11:50:00 GMT");
    let page = ScriptedReply::status(200).body("<html>sign in</html>");
    let rig = Rig::answering([
        date(page),
        date(ScriptedReply::status(200)).header("age", "600"),
        date(ScriptedReply::status(404)),
        date(ScriptedReply::status(200)),
    ]);
    // The page is tried again, and what is no page is a cached answer.
    rig.get().await.unwrap();
    assert_eq!((rig.client.status().clock_ahead, told(&rig)), (None, String::new()));
    let _ = rig.get().await;
    rig.get().await.unwrap();
    let ahead = rig.client.status().clock_ahead.unwrap();
    assert!((598..=602).contains(&ahead), "{ahead}");
    assert_eq!(
        told(&rig),
        format!("this machine's clock is {ahead} s ahead of the API's: set it by NTP, since jobs expire by it")
    );
    assert!(rig.client.problems().is_empty());
}
