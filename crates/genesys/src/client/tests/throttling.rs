//! 429 and its kin, the budget, and an API that is away.

use super::*;

async fn many(rig: &Arc<Rig>, calls: usize) -> Vec<Result<ApiAnswer, ApiError>> {
    let calls: Vec<_> = (0..calls)
        .map(|number| {
            let rig = Arc::clone(rig);
            tokio::spawn(async move { rig.send_for(number, ApiRequest::get(THINGS)).await })
        })
        .collect();
    let mut results = Vec::new();
    for call in calls {
        results.push(call.await.unwrap());
    }
    results
}

#[tokio::test(start_paused = true)]
async fn a_429_is_waited_out_and_burns_no_retry() {
    let throttled = || ScriptedReply::status(429).header("retry-after", "3");
    let rig = Rig::answering((0..9).map(|_| throttled()));
    let answer = rig.post().await.unwrap();
    assert_eq!(answer.requests, 10, "more than the short retries allow, and also for a create");
    let times = rig.script.times(THINGS);
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= 3 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn a_pause_takes_nothing_of_the_time_for_short_retries() {
    let rig = Rig::answering([ScriptedReply::status(429).header("retry-after", "25"), ScriptedReply::status(500)]);
    assert_eq!(rig.get().await.unwrap().requests, 3);
}

#[tokio::test(start_paused = true)]
async fn a_503_with_retry_after_and_a_message_alone_begin_a_pause_too() {
    let message = r#"{"message":"Rate limit exceeded the maximum. Retry the request in [20] seconds"}"#;
    for (reply, seconds) in [
        (ScriptedReply::status(503).header("retry-after", "11"), 11),
        (ScriptedReply::status(429).body(message), 20),
        (ScriptedReply::status(429).header("inin-ratelimit-reset", "13"), 14),
        (ScriptedReply::status(429), 5),
    ] {
        let rig = Rig::answering([reply]);
        rig.post().await.unwrap();
        let times = rig.script.times(THINGS);
        assert_eq!((times[1] - times[0]).as_secs(), seconds);
    }
}

#[tokio::test(start_paused = true)]
async fn a_short_pause_holds_the_whole_process_in_memory_and_ends_in_a_slow_start() {
    let mut calls = 0;
    let rig = Arc::new(Rig::new(move |_| {
        calls += 1;
        if calls == 1 {
            ScriptedReply::status(429).header("retry-after", "20")
        } else {
            ScriptedReply::status(200).after(SECOND / 2)
        }
    }));
    let shut_at = Instant::now();
    let results = many(&rig, 16).await;
    assert!(results.iter().all(Result::is_ok));
    let times = rig.script.times(THINGS);
    let after: Vec<u128> = times[1..].iter().map(|at| (*at - shut_at).as_millis() / 500 - 40).collect();
    assert_eq!(&after[..7], &[0, 1, 1, 2, 2, 2, 2], "one, two, four");
    assert_eq!(rig.reason(), None);
}

#[tokio::test(start_paused = true)]
async fn a_long_pause_sends_everybody_away_at_once_and_closes_the_intake() {
    let rig = Arc::new(Rig::answering([ScriptedReply::status(429).header("retry-after", "45")]));
    let before = Instant::now();
    for result in many(&rig, 8).await {
        let error = result.unwrap_err();
        assert_eq!((error.code, held_for(&rig, &error)), ("throttled", 45));
    }
    assert!(before.elapsed() < SECOND);
    assert_eq!(rig.sent(), 1);
    let Admission::Closed { reason: ClosedReason::Throttled, reopens: Some(reopens), probe: None } = rig.admission()
    else {
        panic!("{:?}", rig.admission())
    };
    assert_eq!(rig.get().await.unwrap_err().requests, 0);
    tokio::time::sleep_until(reopens).await;
    assert_eq!(rig.reason(), None);
    rig.get().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_the_end_of_a_pause_goes_away_when_the_pause_gets_long() {
    let rig = Arc::new(Rig::answering([ScriptedReply::status(429).header("retry-after", "20")]));
    let waiting = tokio::spawn({
        let rig = Arc::clone(&rig);
        async move { rig.get().await }
    });
    tokio::time::sleep(SECOND).await;
    rig.client.shared.admission.control().pause(Instant::now(), Instant::now(), Some(100 * SECOND));
    let before = Instant::now();
    let error = waiting.await.unwrap().unwrap_err();
    assert_eq!((error.requests, held_for(&rig, &error)), (1, 100));
    assert!(before.elapsed() < SECOND);
}

#[tokio::test(start_paused = true)]
async fn stop_ends_the_waiting_for_the_end_of_a_pause() {
    let rig = Arc::new(Rig::answering([ScriptedReply::status(429).header("retry-after", "20")]));
    let waiting = tokio::spawn({
        let rig = Arc::clone(&rig);
        async move { rig.get().await }
    });
    tokio::time::sleep(SECOND).await;
    rig.stop.cancel();
    let error = waiting.await.unwrap().unwrap_err();
    assert_eq!((error.class, error.requests), (ErrorClass::Interrupted, 1));
}

#[tokio::test(start_paused = true)]
async fn a_permit_given_before_the_pause_does_not_get_past_it_and_costs_nothing() {
    let options = GenesysOptions { requests_per_minute: 1, ..options() };
    let rig = Rig::with(&options, ScriptedTransport::new(with_tokens(|_| ScriptedReply::status(200))));
    let jobs = [job(1)];
    let caller = rig.caller(&jobs);
    let permit = rig.client.permit(&caller).await.unwrap();
    rig.client.shared.admission.control().pause(Instant::now(), Instant::now(), Some(10 * SECOND));
    let before = Instant::now();
    let answer = rig.client.send_with(permit, ApiRequest::get(THINGS), &caller).await.unwrap();
    assert_eq!((answer.requests, before.elapsed().as_secs()), (1, 10));
}

#[tokio::test(start_paused = true)]
async fn a_saturated_client_stays_within_a_limit_it_did_not_know() {
    let (start, mut count) = (Instant::now(), 0_u32);
    let rig = Arc::new(Rig::new(move |_| {
        let second = start.elapsed().as_secs();
        count = if second >= 60 { 0 } else { count + 1 };
        if count > 40 {
            return ScriptedReply::status(429).header("retry-after", "60");
        }
        ScriptedReply::status(200)
            .header("inin-ratelimit-allowed", "40")
            .header("inin-ratelimit-count", &count.to_string())
            .header("inin-ratelimit-reset", &(60 - second.min(59)).to_string())
    }));
    let results = many(&rig, 40).await;
    assert!(results.iter().all(Result::is_ok));
    assert!(start.elapsed() < 60 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn an_api_that_is_away_is_asked_only_by_probes_until_it_is_back() {
    let up = Arc::new(Mutex::new(false));
    let is_up = Arc::clone(&up);
    let rig = Arc::new(Rig::new(move |_| {
        if *is_up.lock().unwrap() { ScriptedReply::status(200) } else { ScriptedReply::status(500) }
    }));
    let results = many(&rig, 10).await;
    assert!(results.iter().all(Result::is_err));
    let Admission::Closed { reason: ClosedReason::ApiUnavailable, probe: Some(probe), .. } = rig.admission() else {
        panic!("{:?}", rig.admission())
    };
    let sent = rig.sent();
    let error = rig.get().await.unwrap_err();
    assert_eq!((error.code, rig.sent()), ("api_unavailable", sent));
    assert!(held_for(&rig, &error) <= 5);
    tokio::time::sleep_until(probe).await;
    let held = many(&rig, 10).await;
    assert!(held.iter().all(|result| matches!(result.as_ref().unwrap_err().class, ErrorClass::Held { .. })));
    assert_eq!(rig.sent(), sent + 1, "one probe, which failed, and no short retry of it");
    *up.lock().unwrap() = true;
    tokio::time::sleep(11 * SECOND).await;
    rig.get().await.unwrap();
    assert_eq!(rig.reason(), None);
    assert!(many(&rig, 30).await.iter().all(Result::is_ok));
}

#[tokio::test(start_paused = true)]
async fn the_gauges_show_all_reasons_from_the_start_and_the_time_shut() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let _here = metrics::set_default_local_recorder(&recorder);
    let shown = || recorder.handle().render();
    let rig = Rig::answering([ScriptedReply::status(429).header("retry-after", "12")]);
    for reason in ClosedReason::ALL {
        let line = format!("genfleet_gate_state{{reason=\"{reason}\"}} 0");
        assert!(shown().contains(&line), "{}", shown());
    }
    let background = tokio::spawn(rig.client.clone().run());
    rig.get().await.unwrap();
    tokio::time::sleep(2 * SECOND).await;
    assert!(shown().contains("genfleet_api_throttled_seconds_total 12"), "{}", shown());
    let endpoint = "endpoint=\"/api/v2/things\",method=\"GET\"";
    assert!(shown().contains(&format!("genfleet_api_requests_total{{{endpoint},status=\"429\"}} 1")), "{}", shown());
    assert!(shown().contains("genfleet_token_refreshes_total{result=\"ok\"} 1"), "{}", shown());
    background.abort();
}

#[tokio::test(start_paused = true)]
async fn an_api_that_no_job_asks_stops_nothing() {
    let up = Arc::new(Mutex::new(false));
    let is_up = Arc::clone(&up);
    let rig = Arc::new(Rig::new(move |_| {
        if *is_up.lock().unwrap() { ScriptedReply::status(200) } else { ScriptedReply::status(500) }
    }));
    assert!(many(&rig, 10).await.iter().all(Result::is_err));
    assert_eq!(rig.client.status().holds.len(), 1);
    assert!(gate_is_shut(&rig, ClosedReason::ApiUnavailable));

    tokio::time::sleep(20 * SECOND).await;
    assert_eq!((rig.client.status().holds, rig.client.status().failures), (vec![], None));
    assert!(!gate_is_shut(&rig, ClosedReason::ApiUnavailable));
    assert!(rig.client.warnings()[0].ends_with("; the next job tries it again"), "{:?}", rig.client.warnings());

    rig.get().await.unwrap_err();
    assert_eq!(
        (rig.client.status().holds.len(), rig.client.status().failures.is_some()),
        (1, true),
        "the probe failed"
    );
    *up.lock().unwrap() = true;
    tokio::time::sleep(60 * SECOND).await;
    rig.get().await.unwrap();
    assert_eq!((rig.reason(), rig.client.warnings()), (None, vec![]));
}
