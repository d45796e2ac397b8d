//! The coalescer with the real client, over HTTP, against the simulator.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Parser;
use genfleet_core::{
    clock::SystemClock,
    error::ErrorClass,
    genesys::{CredentialSource, Credentials, GenesysClient, GenesysOptions},
    job::Kind,
    telemetry::http::install_tls,
};
use genfleet_simulator::{FaultRule, RecordedRequest, RetryAfter, Simulator, SimulatorOptions};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{super::*, order};
use crate::{
    cdn::genesys::{GenesysCdn, SCOPE},
    progress::{PurgeProgress, PurgeStatus},
};

const LINGER: Duration = Duration::from_millis(20);

#[derive(Debug, Parser)]
struct Settings {
    #[command(flatten)]
    genesys: GenesysOptions,
}

/// A simulator without limits, and a coalescer that purges there.
async fn start(latency: Duration) -> (Simulator, Coalescer) {
    let unlimited = 60_000;
    let options = SimulatorOptions {
        requests_per_minute: unlimited,
        client_requests_per_minute: unlimited,
        latency,
        ..SimulatorOptions::default()
    };
    let simulator = Simulator::start(options).await.unwrap();
    install_tls();
    let arguments = ["purger", "--genesys-base-url", &simulator.base_url(), "--requests-per-minute", "60000"];
    let options = Settings::parse_from(arguments).genesys;
    let credentials = Credentials { id: "client".into(), secret: "hush".into() };
    let scopes = vec![(Kind::CdnPurge, &[SCOPE][..])];
    let source = CredentialSource::Given(credentials);
    let client = GenesysClient::with_credentials(&options, scopes, Arc::new(SystemClock), source).unwrap();
    tokio::spawn(client.clone().run());
    let (coalescer, task) = Coalescer::new(GenesysCdn::new(client), LINGER);
    tokio::spawn(task);
    (simulator, coalescer)
}

async fn purge(coalescer: &Coalescer, order: PurgeOrder) -> PurgeOutcome {
    coalescer.purge(order, &CancellationToken::new()).await
}

/// Jobs of one path each, `/<name>/<n>`, `concurrency` at a time; outcomes in the jobs' order.
async fn purge_small(coalescer: &Coalescer, name: &str, count: usize, concurrency: usize) -> Vec<PurgeOutcome> {
    let mut running = JoinSet::new();
    let mut outcomes = Vec::new();
    for n in 0..count {
        if running.len() == concurrency {
            outcomes.extend(running.join_next().await);
        }
        let (coalescer, order) = (coalescer.clone(), order(&format!("{name}-{n}"), &[format!("/{name}/{n}")]));
        running.spawn(async move { (n, purge(&coalescer, order).await) });
    }
    outcomes.extend(std::iter::from_fn(|| running.try_join_next()));
    while let Some(outcome) = running.join_next().await {
        outcomes.push(outcome);
    }
    let mut outcomes: Vec<_> = outcomes.into_iter().map(Result::unwrap).collect();
    outcomes.sort_by_key(|(n, _)| *n);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

fn purges(simulator: &Simulator) -> Vec<RecordedRequest> {
    simulator.requests().into_iter().filter(|request| request.path == "/api/v2/external/cdn/purge").collect()
}

fn refusing(body_contains: &str) -> FaultRule {
    FaultRule { status: Some(400), body_contains: Some(body_contains.to_owned()), ..FaultRule::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_small_jobs_share_few_requests_and_every_path_is_purged_once() {
    let (simulator, coalescer) = start(Duration::from_millis(30)).await;
    let outcomes = purge_small(&coalescer, "small", 1_000, 256).await;
    assert!(outcomes.iter().all(|outcome| outcome.error.is_none()));
    let purged = simulator.purge_counts();
    assert_eq!(purged.len(), 1_000);
    assert!(purged.values().all(|times| *times == 1));
    let requests = purges(&simulator);
    println!("{} requests", requests.len());
    assert!(requests.len() <= 16, "{}", requests.len());
    assert!(requests.iter().all(|request| request.body["paths"].as_array().is_some_and(|paths| paths.len() <= 100)));
    let told = outcomes[500].progress.report(&[]);
    assert_eq!((told.status, told.request_ids.len(), told.coalesced), (Some(PurgeStatus::Code(202)), 1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_path_among_three_hundred_good_jobs_fails_one() {
    let (simulator, coalescer) = start(Duration::from_millis(5)).await;
    simulator.set_faults(vec![refusing("\"/mixed/217\"")]);
    let outcomes = purge_small(&coalescer, "mixed", 301, 301).await;
    let failed: Vec<_> = (0..301).filter(|n| outcomes[*n].error.is_some()).collect();
    assert_eq!(failed, [217]);
    let error = outcomes[217].error.as_ref().unwrap();
    assert_eq!((error.class, error.code, error.status), (ErrorClass::Permanent, "rejected", Some(400)));
    assert_eq!(error.details["path"], "/mixed/217");
    assert!(error.details["api"].is_object(), "{:?}", error.details);
    assert!(error.request_id.is_some());
    let requests = purges(&simulator);
    println!("{} requests", requests.len());
    assert!(requests.len() <= 5 + 14, "{}", requests.len());
    let purged = simulator.purge_counts();
    assert!(purged.len() == 300 && purged.values().all(|times| *times == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_seventh_request_fails_resumes_with_what_is_left() {
    let (simulator, coalescer) = start(Duration::from_millis(5)).await;
    let paths: Vec<String> = (0..1_000).map(|n| format!("/large/{n}")).collect();
    // The path is on the seventh request of ten, whatever order they arrive in.
    let down = FaultRule { status: Some(503), ..refusing("\"/large/650\"") };
    simulator.set_faults(vec![down]);
    let first = purge(&coalescer, order("large", &paths)).await;
    let error = first.error.unwrap();
    assert_eq!((error.class, error.status), (ErrorClass::Transient, Some(503)));
    let left: Vec<u32> = first.progress.remaining().collect();
    assert!(left.contains(&650) && left.len().is_multiple_of(100) && left.len() < 1_000, "{}", left.len());
    simulator.set_faults(Vec::new());
    let state: Value = serde_json::to_value(first.progress.state().unwrap()).unwrap();
    let resumed = PurgeProgress::resume(serde_json::from_value(state).unwrap(), 1_000);
    let second = purge(&coalescer, PurgeOrder { progress: resumed, ..order("large", &paths) }).await;
    assert!(second.error.is_none());
    assert_eq!(second.progress.report(&[]).batches, 10);
    let purged = simulator.purge_counts();
    assert!(purged.len() == 1_000 && purged.values().all(|times| *times == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_stopped_keeps_what_it_achieved() {
    let (simulator, coalescer) = start(Duration::from_millis(300)).await;
    let paths: Vec<String> = (0..5_000).map(|n| format!("/large/{n}")).collect();
    let stop = CancellationToken::new();
    let purging = coalescer.purge(order("large", &paths), &stop);
    let stopper = async {
        while purges(&simulator).is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        stop.cancel();
    };
    let (outcome, ()) = tokio::join!(purging, stopper);
    assert_eq!(outcome.error.map(|error| error.class), Some(ErrorClass::Interrupted));
    let sent = purges(&simulator).len();
    assert!(sent < 50, "{sent}");
    assert_eq!(outcome.progress.report(&[]).paths_count, simulator.purge_counts().len());
    assert_eq!(outcome.progress.report(&[]).paths_count, sent * 100);
}

/// Stops a job one second after it came; what it was told, and its requests until the API is well again.
async fn stopped_while_it_fails(fault: FaultRule) -> (PurgeOutcome, Duration, Vec<RecordedRequest>, Simulator) {
    let (simulator, coalescer) = start(Duration::from_millis(5)).await;
    simulator.set_faults(vec![fault]);
    let stop = CancellationToken::new();
    let paths = ["/again/0".to_owned(), "/again/1".to_owned()];
    let stopping = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        stop.cancel();
        (Instant::now(), purges(&simulator))
    };
    let (first, (stopped, sent)) = tokio::join!(coalescer.purge(order("again", &paths), &stop), stopping);
    let waited = stopped.elapsed();
    // As the resume queue brings it back.
    simulator.set_faults(Vec::new());
    let second = purge(&coalescer, order("again", &paths)).await;
    assert!(second.error.is_none() && second.requests == 1, "{second:?}");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(purges(&simulator).len(), sent.len() + 1, "no request but those that were told");
    (first, waited, sent, simulator)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_stopped_during_a_pause_leaves_no_request_behind() {
    let retry_after = Some(RetryAfter::Seconds(3));
    let fault = FaultRule { status: Some(429), retry_after, times: Some(1), ..FaultRule::default() };
    let (outcome, waited, sent, simulator) = stopped_while_it_fails(fault).await;
    assert_eq!(outcome.error.map(|error| error.class), Some(ErrorClass::Interrupted));
    assert_eq!((outcome.requests, sent.len()), (1, 1));
    assert!(waited < Duration::from_millis(500), "{waited:?}");
    assert!(simulator.purge_counts().values().all(|times| *times == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_stopped_between_two_short_retries_sends_no_further_one() {
    // The client waits that long before its short retry.
    let retry_after = Some(RetryAfter::Seconds(3));
    let fault = FaultRule { status: Some(500), retry_after, ..FaultRule::default() };
    let (outcome, waited, sent, simulator) = stopped_while_it_fails(fault).await;
    assert_eq!(outcome.error.map(|error| error.class), Some(ErrorClass::Interrupted));
    assert_eq!((outcome.requests, sent.len()), (1, 1));
    assert!(waited < Duration::from_millis(500), "{waited:?}");
    assert!(simulator.purge_counts().values().all(|times| *times == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_permission_holds_the_jobs_of_a_shared_request_after_five_of_them() {
    let (simulator, coalescer) = start(Duration::ZERO).await;
    simulator.set_faults(vec![FaultRule { status: Some(403), ..FaultRule::default() }]);
    let outcomes = purge_small(&coalescer, "forbidden", 50, 50).await;
    let errors: Vec<_> = outcomes.into_iter().map(|outcome| outcome.error.unwrap()).collect();
    let failed = errors.iter().filter(|error| error.class == ErrorClass::Permanent).count();
    let held = errors.iter().filter(|error| matches!(error.class, ErrorClass::Held { .. })).count();
    assert_eq!((failed + held, failed <= 5), (50, true), "{failed} failed");
    assert!(errors.iter().all(|error| error.code == "forbidden"), "{errors:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxys_page_purges_nothing_whatever_its_status_and_is_waited_out() {
    for status in [200, 202, 403, 404] {
        let (simulator, coalescer) = start(Duration::ZERO).await;
        let page = format!("status={status},body=<html>,content-type=text/html,times=2");
        simulator.set_faults(vec![page.parse().unwrap()]);
        let outcome = purge(&coalescer, order("paged", &["/a".to_owned()])).await;
        assert_eq!((outcome.error, outcome.requests, simulator.purge_counts().len()), (None, 3, 1), "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_202_says_that_paths_are_purged_and_it_may_say_nothing_more() {
    let (simulator, coalescer) = start(Duration::ZERO).await;
    simulator.set_faults(vec!["status=202".parse().unwrap()]);
    assert_eq!(purge(&coalescer, order("accepted", &["/a".to_owned()])).await.error, None);
    for status in [200, 201, 204] {
        simulator.set_faults(vec![format!("status={status}").parse().unwrap()]);
        let error = purge(&coalescer, order(&format!("not-{status}"), &["/a".to_owned()])).await.error.unwrap();
        assert_eq!((error.class, error.code), (ErrorClass::Permanent, "unexpected_response"), "{status}");
    }
}
