//! Whatever comes together: wildcards, shared paths, bad ones, failing requests, shut gates, jobs that are stopped or
//! dropped.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{fake::Throttle, *};

const LATENCY: Duration = Duration::from_millis(50);

/// One job of a scene.
#[derive(Clone, Debug)]
struct Part {
    paths: Vec<String>,
    comes_after: u64,
    stopped_after: Option<u64>,
    dropped_after: Option<u64>,
}

fn any_part() -> impl Strategy<Value = Part> {
    let path = prop_oneof![6 => "/[a-d]/[0-9]{1,3}", 1 => r"/[a-d]/[0-9]?\*", 3 => "/shared/[0-9]"];
    let rarely = |millis| prop_oneof![8 => Just(None), 1 => (0_u64..millis).prop_map(Some)];
    (prop::collection::vec(path, 1..60), 0_u64..120, rarely(300), rarely(300)).prop_map(
        |(paths, comes_after, stopped_after, dropped_after)| Part { paths, comes_after, stopped_after, dropped_after },
    )
}

async fn play(coalescer: Coalescer, part: Part, name: String) -> Option<PurgeOutcome> {
    tokio::time::sleep(Duration::from_millis(part.comes_after)).await;
    let (stop, began) = (CancellationToken::new(), Instant::now());
    let stopping = async {
        match part.stopped_after {
            Some(millis) => tokio::time::sleep(Duration::from_millis(millis)).await,
            None => std::future::pending().await,
        }
        stop.cancel();
        std::future::pending::<()>().await;
    };
    let patience = part.dropped_after.map_or(Duration::from_secs(3600), Duration::from_millis);
    let outcome = tokio::select! {
        outcome = tokio::time::timeout(patience, coalescer.purge(order(&name, &part.paths), &stop)) => outcome.ok(),
        () = stopping => None,
    };
    let longest =
        part.stopped_after.map_or(Duration::from_secs(3600), |millis| Duration::from_millis(millis) + LATENCY);
    assert!(began.elapsed() <= longest + Duration::from_millis(1), "{name} waits for more than what is in flight");
    outcome
}

fn covers(sent: &str, path: &str) -> bool {
    sent == path || sent.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
}

fn check(parts: &[Part], outcomes: &BTreeMap<usize, Option<PurgeOutcome>>, cdn: &FakeCdn) {
    let books = cdn.books();
    for (n, part) in parts.iter().enumerate() {
        let Some(outcome) = &outcomes[&n] else {
            assert!(part.dropped_after.is_some(), "job {n} hangs");
            continue;
        };
        let left: BTreeSet<usize> = outcome.progress.remaining().map(|index| index as usize).collect();
        assert_eq!(left.is_empty(), outcome.error.is_none(), "job {n}: {:?}", outcome.error);
        for (index, path) in part.paths.iter().enumerate() {
            assert!(
                left.contains(&index) || books.purged.keys().any(|sent| covers(sent, path)),
                "{path} is not purged"
            );
        }
        let Some(error) = &outcome.error else { continue };
        match error.class {
            ErrorClass::Permanent => {
                let path = error.details["path"].as_str().unwrap();
                assert!(books.bad.contains(path) && part.paths.iter().any(|own| own == path), "{path} of job {n}");
            }
            ErrorClass::Interrupted => assert!(part.stopped_after.is_some(), "job {n}"),
            ErrorClass::Transient => assert!(books.fault.is_some(), "job {n}"),
            other => panic!("job {n}: {other:?}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_job_ends_and_is_told_the_truth(
        parts in prop::collection::vec(any_part(), 1..40),
        bad in prop::collection::btree_set(prop_oneof!["/[a-d]/[0-9]{1,2}", "/shared/[0-9]", r"/[a-d]/\*"], 0..12),
        failing in prop::collection::vec(1_usize..40, 0..4),
        throttle in prop::option::of((1_usize..12, 0_u64..2_000)),
        permit_waits in prop::sample::select(vec![0_u64, 30]),
        linger in prop::sample::select(vec![20_u64, 20, 0]),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let cdn = FakeCdn::new(LATENCY);
            cdn.set_bad(bad.iter().map(String::as_str));
            cdn.books().permit_waits = Duration::from_millis(permit_waits);
            cdn.books().throttle = throttle.map(|(first, wait)| Throttle { first, wait: Duration::from_millis(wait) });
            let error = JobError::new(ErrorClass::Transient, "api_unavailable", "down");
            cdn.books().fault =
                (!failing.is_empty()).then_some(Fault { only: failing, with: crate::cdn::RefusalCause::Other, error });
            let coalescer = start(&cdn, Duration::from_millis(linger));
            let mut running = JoinSet::new();
            for (n, part) in parts.iter().cloned().enumerate() {
                let coalescer = coalescer.clone();
                running.spawn(async move { (n, play(coalescer, part, format!("job-{n}")).await) });
            }
            let outcomes: BTreeMap<_, _> = running.join_all().await.into_iter().collect();
            check(&parts, &outcomes, &cdn);
            // Without sharing each request is one job's, and no other counts it.
            if linger == 0 && outcomes.values().all(Option::is_some) {
                let told: u32 = outcomes.values().flatten().map(|outcome| outcome.requests).sum();
                assert_eq!(told as usize, cdn.books().requests.len());
            }
            tokio::time::sleep(LATENCY).await;
            assert_eq!(cdn.books().permits_awaited, 0);
        });
    }
}
