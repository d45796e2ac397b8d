//! Jobs that are stopped or gone: what is still sent for them, what they wait for, and what it is to the others.

use genfleet_core::genesys::HttpTimeouts;

use self::fake::Throttle;
use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn throttling(first: usize, wait: Duration, latency: Duration) -> FakeCdn {
    let cdn = FakeCdn::new(latency);
    cdn.books().throttle = Some(Throttle { first, wait });
    cdn
}

/// A job that is stopped after that time, and how long it took.
async fn purge_for(coalescer: &Coalescer, order: PurgeOrder, time: Duration) -> (PurgeOutcome, Duration) {
    let (stop, began) = (CancellationToken::new(), Instant::now());
    let stopper = stop.clone();
    tokio::spawn(async move {
        tokio::time::sleep(time).await;
        stopper.cancel();
    });
    let outcome = coalescer.purge(order, &stop).await;
    (outcome, began.elapsed())
}

/// Attempt after attempt, as the resume queue brings the job back at once; all HTTP requests sent for it.
async fn purge_in_attempts(coalescer: &Coalescer, name: &str, all: &[String], attempt: Duration) -> (usize, u32) {
    let (mut progress, mut requests) = (PurgeProgress::resume(PurgeState::default(), all.len()), 0);
    for attempts in 1.. {
        let next = PurgeOrder { progress, ..order(name, all) };
        let (outcome, took) = purge_for(coalescer, next, attempt).await;
        assert!(took <= attempt + SECOND, "attempt {attempts}: {took:?}");
        requests += outcome.requests;
        let Some(error) = outcome.error else { return (attempts, requests) };
        assert_eq!(error.class, ErrorClass::Interrupted);
        progress = outcome.progress;
    }
    unreachable!("it is done at some time")
}

#[tokio::test(start_paused = true)]
async fn a_job_that_comes_again_during_a_pause_is_purged_once_and_every_request_is_counted() {
    let cdn = throttling(1, 25 * SECOND, LINGER);
    let coalescer = start(&cdn, LINGER);
    let began = Instant::now();
    let (attempts, requests) = purge_in_attempts(&coalescer, "job", &paths("a", 3), 3 * SECOND).await;
    assert_eq!((attempts, requests, began.elapsed().as_secs()), (9, 2, 25));
    tokio::time::sleep(60 * SECOND).await;
    let books = cdn.books();
    assert_eq!(books.requests.len(), 2);
    assert!(books.purged.len() == 3 && books.purged.values().all(|times| *times == 1), "{:?}", books.purged);
}

#[tokio::test(start_paused = true)]
async fn endless_short_pauses_leave_nothing_behind_on_its_way() {
    let cdn = throttling(40, 5 * SECOND, LINGER);
    let coalescer = start(&cdn, LINGER);
    let large = paths("large", 2_500);
    let (_, requests) = purge_in_attempts(&coalescer, "large", &large, 3 * SECOND).await;
    tokio::time::sleep(60 * SECOND).await;
    let books = cdn.books();
    assert_eq!((books.requests.len(), books.permits_awaited), (requests as usize, 0));
    assert!(books.purged.len() == 2_500 && books.purged.values().all(|times| *times == 1));
}

#[tokio::test(start_paused = true)]
async fn who_travelled_with_a_stopped_job_goes_on_without_it_and_burns_nothing() {
    let cdn = throttling(1, 10 * SECOND, LINGER);
    cdn.books().permit_waits = LINGER;
    let coalescer = start(&cdn, LINGER);
    let ((stopped, took), (stays, whole)) = tokio::join!(
        purge_for(&coalescer, order("stopped", &["/both".to_owned(), "/s".to_owned()]), SECOND),
        purge_for(&coalescer, order("stays", &["/both".to_owned(), "/t".to_owned()]), 60 * SECOND),
    );
    assert_eq!((stopped.error.map(|error| error.class), stopped.requests), (Some(ErrorClass::Interrupted), 1));
    assert_eq!(took, SECOND);
    assert_eq!((stays.error, stays.requests, whole.as_secs()), (None, 2, 10));
    let books = cdn.books();
    assert_eq!(books.requests.len(), 2);
    assert_eq!(books.requests[1], ["/both", "/t"]);
}

#[tokio::test(start_paused = true)]
async fn once_all_are_stopped_the_requests_in_flight_end_and_no_other_begins() {
    let cdn = throttling(usize::MAX, SECOND, 5 * SECOND);
    let coalescer = start(&cdn, LINGER);
    let mut running = JoinSet::new();
    for n in 0..200 {
        let coalescer = coalescer.clone();
        running.spawn(async move {
            let order = order(&format!("job-{n}"), &paths(&format!("{n}"), 40));
            purge_for(&coalescer, order, 2 * SECOND).await
        });
    }
    tokio::time::sleep(2 * SECOND).await;
    let sent = cdn.books().requests.len();
    for (outcome, took) in running.join_all().await {
        assert_eq!(outcome.error.map(|error| error.class), Some(ErrorClass::Interrupted));
        assert!(took <= 6 * SECOND, "{took:?}");
    }
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!((cdn.books().requests.len(), sent), (16, 16));
}

#[tokio::test(start_paused = true)]
async fn a_job_that_failed_is_not_sent_again_on_its_own_behalf() {
    let cdn = FakeCdn::new(LINGER);
    let error = JobError::new(ErrorClass::Transient, "api_unavailable", "down");
    cdn.books().fault = Some(Fault { only: vec![2], with: crate::cdn::RefusalCause::Other, error });
    cdn.books().throttle = Some(Throttle { first: 1, wait: 20 * SECOND });
    let coalescer = start(&cdn, LINGER);
    let (outcome, took) = purge_for(&coalescer, order("large", &paths("a", 200)), 60 * SECOND).await;
    // The first request waits for the end of a pause, the second fails: the job ends with what is known.
    assert_eq!((outcome.error.map(|error| error.class), outcome.requests), (Some(ErrorClass::Transient), 2));
    assert!(took < SECOND, "{took:?}");
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(cdn.books().requests.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_path_is_found_although_a_half_was_stopped_on_its_way() {
    let cdn = FakeCdn::new(LINGER);
    cdn.books().permit_waits = LINGER;
    cdn.set_bad(["/3"]);
    let coalescer = start(&cdn, LINGER);
    let jobs: Vec<_> = (0..4).map(|n| order(&format!("job-{n}"), &[format!("/{n}")])).collect();
    let mut running = JoinSet::new();
    for (n, order) in jobs.into_iter().enumerate() {
        let coalescer = coalescer.clone();
        let time = if n == 0 { SECOND } else { 60 * SECOND };
        running.spawn(async move { (n, purge_for(&coalescer, order, time).await) });
    }
    while cdn.books().requests.is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // The first half, of the jobs 0 and 1.
    cdn.books().throttle = Some(Throttle { first: 2, wait: 10 * SECOND });
    let ended: std::collections::BTreeMap<_, _> = running.join_all().await.into_iter().collect();
    let told = |n: usize| ended[&n].0.error.as_ref().map(|error| error.code);
    assert_eq!([told(0), told(1), told(2), told(3)], [Some("interrupted"), None, None, Some("rejected")]);
    assert_eq!(ended[&0].1, SECOND);
    assert_eq!(cdn.books().requests[..2], [vec!["/0", "/1", "/2", "/3"], vec!["/0", "/1"]]);
    assert!(cdn.books().requests[2..].iter().all(|request| !request.contains(&"/0".to_owned())));
    assert!(cdn.books().purged.values().all(|times| *times == 1));
}

#[tokio::test(start_paused = true)]
async fn a_permit_that_nobody_needs_any_more_is_not_waited_for() {
    let cdn = FakeCdn::new(LINGER);
    cdn.books().permit_waits = 300 * SECOND;
    let coalescer = start(&cdn, LINGER);
    let (_, took) = purge_for(&coalescer, order("job", &paths("a", 2)), SECOND).await;
    assert_eq!((took, cdn.books().permits_awaited), (SECOND, 0));
    cdn.books().permit_waits = Duration::ZERO;
    let (outcome, took) = purge_for(&coalescer, order("next", &paths("b", 2)), 60 * SECOND).await;
    assert!(outcome.error.is_none() && took < SECOND, "{took:?}");
    assert_eq!(cdn.books().requests, [["/b/0", "/b/1"]]);
}

#[tokio::test(start_paused = true)]
async fn an_investigation_ends_when_the_last_it_suspects_is_gone() {
    let cdn = FakeCdn::new(LINGER);
    cdn.set_bad(["/a/0"]);
    let coalescer = start(&cdn, LINGER);
    let all = paths("a", 2);
    let ending = purge_for(&coalescer, order("job", &all), SECOND);
    let shutting = async {
        tokio::time::sleep(LINGER / 2).await;
        cdn.books().permit_waits = 300 * SECOND;
        tokio::time::sleep(SECOND / 2).await;
        let books = cdn.books();
        assert_eq!((books.requests.len(), books.permits_awaited), (1, 1));
    };
    let ((outcome, took), ()) = tokio::join!(ending, shutting);
    assert_eq!((outcome.error.map(|error| error.class), took), (Some(ErrorClass::Interrupted), SECOND));
    tokio::time::sleep(LINGER).await;
    assert_eq!(cdn.books().permits_awaited, 0);
}

#[tokio::test(start_paused = true)]
async fn a_stopped_job_does_not_wait_for_ever_for_an_answer() {
    let whole = HttpTimeouts::default().whole;
    assert!(whole < LONGEST_REQUEST, "a request in flight is finished");
    let coalescer = start(&FakeCdn::new(60 * SECOND), LINGER);
    let (outcome, took) = purge_for(&coalescer, order("job", &paths("a", 2)), SECOND).await;
    assert_eq!(outcome.error.map(|error| error.class), Some(ErrorClass::Interrupted));
    assert_eq!(took, SECOND + LONGEST_REQUEST);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_for_a_job_that_was_stopped_before_it_came() {
    let cdn = FakeCdn::new(LINGER);
    let stop = CancellationToken::new();
    stop.cancel();
    let outcome = start(&cdn, LINGER).purge(order("job", &paths("a", 2)), &stop).await;
    assert_eq!(outcome.error.map(|error| error.class), Some(ErrorClass::Interrupted));
    tokio::time::sleep(SECOND).await;
    assert!(cdn.books().requests.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_stopped_waits_for_its_requests_in_flight_and_sends_nothing_more() {
    let cdn = FakeCdn::new(Duration::from_secs(1));
    let coalescer = start(&cdn, LINGER);
    let (stop, began) = (CancellationToken::new(), Instant::now());
    let stopper = stop.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(500)).await;
        stopper.cancel();
    });
    let outcome = coalescer.purge(order("large", &paths("a", 5_000)), &stop).await;
    assert_eq!(outcome.error.map(|error| error.class), Some(ErrorClass::Interrupted));
    assert!(began.elapsed() < Duration::from_millis(1_100), "{:?}", began.elapsed());
    assert_eq!((outcome.progress.report(&[]).paths_count, outcome.requests), (1_600, 16));
    assert_eq!(cdn.books().requests.len(), 16);
}

#[tokio::test(start_paused = true)]
async fn the_paths_of_a_handler_that_is_gone_are_not_sent() {
    let cdn = FakeCdn::new(LINGER);
    cdn.books().permit_waits = Duration::from_secs(5);
    let coalescer = start(&cdn, LINGER);
    let stop = CancellationToken::new();
    let gone = coalescer.purge(order("gone", &paths("gone", 2)), &stop);
    assert!(tokio::time::timeout(Duration::from_secs(1), gone).await.is_err());
    let outcome = coalescer.purge(order("stays", &paths("stays", 2)), &stop).await;
    assert!(outcome.error.is_none());
    assert_eq!(cdn.books().requests, [["/stays/0", "/stays/1"]]);
}
