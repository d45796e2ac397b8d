//! The real coalescer under paused time, against a CDN that does as it is told.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use genfleet_core::{error::ErrorClass, job::JobId};
use tokio::{task::JoinSet, time::Instant};

use self::fake::{FakeCdn, Fault};
use super::*;
use crate::{
    cdn::Capacity,
    progress::{PurgeProgress, PurgeState, PurgeStatus},
};

mod disorder;
mod fake;
mod over_http;
mod scale;
mod stopping;
mod throughput;

const LINGER: Duration = Duration::from_millis(20);

fn start(cdn: &FakeCdn, linger: Duration) -> Coalescer {
    let (coalescer, task) = Coalescer::new(cdn.clone(), linger);
    tokio::spawn(task);
    coalescer
}

fn order(job: &str, paths: &[String]) -> PurgeOrder {
    let paths: Arc<[Arc<str>]> = paths.iter().map(|path| Arc::from(path.as_str())).collect();
    let progress = PurgeProgress::resume(PurgeState::default(), paths.len());
    PurgeOrder { job: JobId::parse(job).unwrap(), paths, progress, trace: None }
}

fn paths(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("/{prefix}/{n}")).collect()
}

/// Hands in every job at once; outcomes in the jobs' order.
async fn purge_all(coalescer: &Coalescer, jobs: Vec<Vec<String>>) -> Vec<PurgeOutcome> {
    let mut running = JoinSet::new();
    for (n, paths) in jobs.into_iter().enumerate() {
        let coalescer = coalescer.clone();
        running.spawn(async move {
            (n, coalescer.purge(order(&format!("job-{n}"), &paths), &CancellationToken::new()).await)
        });
    }
    let mut outcomes = running.join_all().await;
    outcomes.sort_by_key(|(n, _)| *n);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

#[tokio::test]
async fn a_job_that_got_its_outcome_sends_no_further_command_and_one_that_is_dropped_leaves() {
    let (commands, mut received) = mpsc::unbounded_channel();
    let coalescer = Coalescer { commands, next_key: Arc::default() };
    let purge = |job: &'static str| {
        let coalescer = coalescer.clone();
        tokio::spawn(async move { coalescer.purge(order(job, &paths(job, 1)), &CancellationToken::new()).await })
    };
    let answered = purge("job-1");
    let Some(Command::Submit { order: submitted, reply, .. }) = received.recv().await else { panic!("no order came") };
    reply.send(PurgeOutcome { progress: submitted.progress, requests: 1, error: None, shared: Vec::new() }).unwrap();
    assert_eq!(answered.await.unwrap().requests, 1);
    assert!(received.try_recv().is_err());
    let dropped = purge("job-2");
    assert!(matches!(received.recv().await, Some(Command::Submit { .. })));
    dropped.abort();
    assert!(matches!(received.recv().await, Some(Command::Leave(_))));
}

#[tokio::test(start_paused = true)]
async fn what_a_full_request_leaves_does_not_wait_for_its_answer() {
    let cdn = FakeCdn::new(Duration::from_secs(10));
    let coalescer = start(&cdn, LINGER);
    let jobs = tokio::spawn(async move { purge_all(&coalescer, vec![paths("a", 75), paths("b", 75)]).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let sent: Vec<usize> = cdn.books().requests.iter().map(Vec::len).collect();
    assert_eq!(sent, [100, 50]);
    assert!(jobs.await.unwrap().iter().all(|outcome| outcome.error.is_none()));
}

#[tokio::test(start_paused = true)]
async fn a_lone_job_goes_at_once() {
    let cdn = FakeCdn::new(Duration::from_millis(50));
    let coalescer = start(&cdn, LINGER);
    let began = Instant::now();
    let outcomes = purge_all(&coalescer, vec![paths("a", 3)]).await;
    assert!(began.elapsed() < Duration::from_millis(55), "{:?}", began.elapsed());
    assert!(outcomes[0].error.is_none() && outcomes[0].progress.is_complete());
    assert_eq!(outcomes[0].requests, 1);
    // So does the next, which follows a job that was alone.
    purge_all(&coalescer, vec![paths("b", 3)]).await;
    assert!(began.elapsed() < Duration::from_millis(110), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_provider_of_one_path_a_request_purges_every_path_once() {
    let cdn = FakeCdn::taking(Capacity::of(1), LINGER);
    let coalescer = start(&cdn, LINGER);
    let outcomes = purge_all(&coalescer, vec![paths("a", 700), paths("b", 3), paths("a", 5)]).await;
    assert!(outcomes.iter().all(|outcome| outcome.error.is_none() && outcome.progress.is_complete()));
    let books = cdn.books();
    assert_eq!((books.requests.len(), books.purged.len()), (703, 703));
}

#[tokio::test(start_paused = true)]
async fn every_job_has_its_own_report_of_a_shared_request() {
    let cdn = FakeCdn::new(LINGER);
    cdn.books().permit_waits = LINGER;
    let coalescer = start(&cdn, LINGER);
    let shared = vec!["/x".to_owned(), "/x".to_owned(), "/own".to_owned()];
    let outcomes = purge_all(&coalescer, vec![shared, vec!["/x".to_owned()], vec!["/o*".to_owned()]]).await;
    assert_eq!(cdn.books().requests, [["/x", "/o*"]]);
    let told: Vec<_> = outcomes.iter().map(|outcome| outcome.progress.report(&[])).collect();
    assert_eq!(told.iter().map(|report| report.deduplicated).collect::<Vec<_>>(), [2, 1, 0]);
    assert_eq!(told.iter().map(|report| report.paths_count).collect::<Vec<_>>(), [3, 1, 1]);
    for report in told {
        assert_eq!(
            (report.status, report.batches, report.coalesced, report.request_ids),
            (Some(PurgeStatus::Code(202)), 1, 1, vec!["r-1".to_owned()])
        );
    }
}

#[tokio::test(start_paused = true)]
async fn without_linger_every_request_carries_one_job() {
    let cdn = FakeCdn::new(LINGER);
    let coalescer = start(&cdn, Duration::ZERO);
    let outcomes = purge_all(&coalescer, (0..20).map(|_| vec!["/same".to_owned()]).collect()).await;
    assert_eq!(cdn.books().requests.len(), 20);
    assert!(outcomes.iter().all(|outcome| outcome.progress.report(&[]).coalesced == 0));
}

#[tokio::test(start_paused = true)]
async fn a_bad_path_fails_its_job_and_no_other() {
    for bad in [0, 1, 57, 99, 100, 150, 299] {
        let cdn = FakeCdn::new(Duration::from_millis(50));
        let jobs: Vec<_> = (0..300).map(|n| vec![format!("/{n}")]).collect();
        cdn.set_bad([jobs[bad][0].as_str()]);
        let outcomes = purge_all(&start(&cdn, LINGER), jobs).await;
        for (n, outcome) in outcomes.iter().enumerate() {
            assert_eq!(outcome.error.is_some(), n == bad, "{n}: {:?}", outcome.error);
        }
        let error = outcomes[bad].error.as_ref().unwrap();
        assert_eq!((error.class, error.code), (ErrorClass::Permanent, "rejected"));
        assert_eq!(error.details["path"], format!("/{bad}"));
        assert!(
            error.message.contains(&format!("\"/{bad}\"")) && error.message.contains("invalid"),
            "{}",
            error.message
        );
        let needed = cdn.books().requests.len();
        // Three full ones, perhaps one for the very first job alone, and what the guilty one costs.
        assert!(needed <= 4 + 14, "{bad}: {needed}");
        assert!(cdn.books().purged.values().all(|times| *times == 1));
    }
}

#[tokio::test(start_paused = true)]
async fn many_bad_jobs_cost_at_most_14_requests_each_and_innocents_nothing() {
    for seed in (1..40_usize).step_by(4) {
        let cdn = FakeCdn::new(Duration::from_millis(50));
        let jobs: Vec<_> = (0..200).map(|n| paths(&format!("{n}"), 1 + (n * seed) % 7)).collect();
        let is_bad = |n: usize| (n * 31 + seed * 17) % 101 < seed % 13;
        let bad: Vec<&str> = (0..200).filter(|n| is_bad(*n)).map(|n| jobs[n].last().unwrap().as_str()).collect();
        cdn.set_bad(bad.iter().copied());
        let total: usize = jobs.iter().map(Vec::len).sum();
        let outcomes = purge_all(&start(&cdn, LINGER), jobs.clone()).await;
        for (n, outcome) in outcomes.iter().enumerate() {
            assert_eq!(outcome.error.as_ref().map(|error| error.code), is_bad(n).then_some("rejected"), "{n}");
        }
        let needed = cdn.books().requests.len();
        assert!(needed <= total.div_ceil(100) + 2 + 14 * bad.len(), "{needed} for {} guilty", bad.len());
    }
}

#[tokio::test(start_paused = true)]
async fn a_large_job_of_nothing_but_bad_paths_does_not_spoil_request_after_request() {
    let cdn = FakeCdn::new(Duration::from_millis(50));
    let bad = paths("bad", 5_000);
    cdn.set_bad(bad.iter().map(String::as_str));
    let mut jobs = vec![bad.clone()];
    jobs.extend((0..50).map(|n| paths(&format!("good-{n}"), 20)));
    let outcomes = purge_all(&start(&cdn, LINGER), jobs).await;
    assert_eq!(outcomes[0].error.as_ref().map(|error| error.code), Some("rejected"));
    assert!(outcomes[1..].iter().all(|outcome| outcome.error.is_none()));
    let needed = cdn.books().requests.len();
    // 10 full requests of good paths, 16 in flight before the first refusal, 14 for the guilty one.
    assert!(needed <= 10 + 16 + 14, "{needed}");
}

#[tokio::test(start_paused = true)]
async fn jobs_that_ask_for_the_same_bad_path_fail_together() {
    let cdn = FakeCdn::new(LINGER);
    cdn.books().permit_waits = LINGER;
    cdn.set_bad(["/bad"]);
    let jobs = vec![vec!["/bad".to_owned(), "/a".to_owned()], vec!["/b".to_owned(), "/bad".to_owned()], paths("c", 5)];
    let outcomes = purge_all(&start(&cdn, LINGER), jobs).await;
    assert_eq!(outcomes.iter().map(|outcome| outcome.error.is_some()).collect::<Vec<_>>(), [true, true, false]);
}

#[tokio::test(start_paused = true)]
async fn what_a_refused_wildcard_covered_is_purged_by_itself() {
    let cdn = FakeCdn::new(LINGER);
    cdn.books().permit_waits = LINGER;
    cdn.set_bad(["/a*"]);
    let mut many: Vec<String> = paths("a", 150);
    many.push("/z".to_owned());
    let outcomes = purge_all(&start(&cdn, LINGER), vec![vec!["/a*".to_owned()], many]).await;
    assert!(outcomes[0].error.is_some() && outcomes[1].error.is_none());
    assert_eq!(cdn.books().purged.len(), 151);
}

#[tokio::test(start_paused = true)]
async fn an_api_that_changes_its_mind_fails_nobody() {
    let cdn = FakeCdn::new(LINGER);
    let error = JobError::permanent("rejected", "not today");
    cdn.books().fault = Some(Fault { only: vec![1], with: crate::cdn::RefusalCause::Content, error });
    let outcomes = purge_all(&start(&cdn, LINGER), (0..90).map(|n| paths(&format!("{n}"), 1)).collect()).await;
    assert!(outcomes.iter().all(|outcome| outcome.error.is_none() && outcome.progress.is_complete()));
}

#[tokio::test(start_paused = true)]
async fn a_job_goes_on_with_what_is_left_after_a_failure() {
    let cdn = FakeCdn::new(LINGER);
    let error = JobError::new(ErrorClass::Transient, "api_unavailable", "down");
    cdn.books().fault = Some(Fault { only: vec![7], with: crate::cdn::RefusalCause::Other, error });
    let coalescer = start(&cdn, LINGER);
    let all = paths("a", 1_000);
    let first = purge_all(&coalescer, vec![all.clone()]).await.remove(0);
    assert_eq!(first.error.as_ref().map(|error| error.class), Some(ErrorClass::Transient));
    let left: BTreeSet<u32> = first.progress.remaining().collect();
    assert!(left.len() >= 100 && left.len() < 1_000 && left.len().is_multiple_of(100), "{}", left.len());
    let state = serde_json::to_string(first.progress.state().unwrap()).unwrap();
    let resumed = PurgeOrder {
        progress: PurgeProgress::resume(serde_json::from_str(&state).unwrap(), 1_000),
        ..order("job-0", &all)
    };
    let second = coalescer.purge(resumed, &CancellationToken::new()).await;
    assert!(second.error.is_none() && second.progress.is_complete());
    assert_eq!(second.progress.report(&[]).batches, 10);
    let books = cdn.books();
    assert_eq!((books.purged.len(), books.requests.len()), (1_000, 11));
    assert!(books.purged.values().all(|times| *times == 1));
}

#[tokio::test(start_paused = true)]
async fn jobs_that_may_not_go_now_are_told_so_and_keep_what_they_have() {
    let cdn = FakeCdn::new(Duration::from_secs(1));
    let coalescer = start(&cdn, LINGER);
    let held = JobError::new(ErrorClass::Credentials, "credentials", "bad");
    let breaking = cdn.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        breaking.books().permit = Some(held);
    });
    let outcomes = purge_all(&coalescer, (0..40).map(|n| paths(&format!("{n}"), 100)).collect()).await;
    let done = outcomes.iter().filter(|outcome| outcome.error.is_none()).count();
    let purged: usize = outcomes.iter().map(|outcome| outcome.progress.report(&[]).paths_count).sum();
    assert_eq!(purged, cdn.books().purged.len());
    assert!(done < 40 && purged == 3_200, "{done} {purged}");
    let classes: BTreeSet<_> =
        outcomes.iter().filter_map(|outcome| Some(outcome.error.as_ref()?.class.as_str())).collect();
    assert_eq!(classes, ["credentials"].into());
}

#[tokio::test(start_paused = true)]
async fn a_missing_permission_is_judged_for_each_job_on_board() {
    let cdn = FakeCdn::new(LINGER);
    let error = JobError::permanent("forbidden", "no");
    cdn.books().permit_waits = LINGER;
    cdn.books().fault = Some(Fault { only: vec![], with: crate::cdn::RefusalCause::Permission, error });
    let outcomes = purge_all(&start(&cdn, LINGER), (0..4).map(|n| paths(&format!("{n}"), 1)).collect()).await;
    let permanent =
        outcomes.iter().filter(|outcome| outcome.error.as_ref().unwrap().class == ErrorClass::Permanent).count();
    assert_eq!((permanent, cdn.books().forbidden.len()), (2, 4));
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_done_already_asks_for_nothing() {
    let cdn = FakeCdn::new(LINGER);
    let coalescer = start(&cdn, LINGER);
    let done = PurgeProgress::resume(serde_json::from_str(r#"{"done":"Aw==","batches":1}"#).unwrap(), 2);
    let outcome =
        coalescer.purge(PurgeOrder { progress: done, ..order("job", &paths("a", 2)) }, &CancellationToken::new()).await;
    assert!(outcome.error.is_none() && cdn.books().requests.is_empty());
}
