//! What holds of every request that is packed.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

const TUTORIAL: Capacity = Capacity::of(100);

fn pool(sharing: Sharing, jobs: &[Vec<&str>]) -> PathPool {
    let mut pool = PathPool::new(sharing, TUTORIAL);
    for (key, paths) in (0..).zip(jobs) {
        pool.add(JobKey(key), paths.iter().zip(0..).map(|(path, index)| (index, Arc::from(*path))));
    }
    pool
}

fn sent(lines: &[RequestLine]) -> Vec<&str> {
    lines.iter().map(|line| &*line.path).collect()
}

fn item(job: u64, index: u32) -> PathRef {
    PathRef { job: JobKey(job), index }
}

#[test]
fn jobs_take_turns() {
    let mut pool = pool(Sharing::Shared, &[vec!["/a1", "/a2", "/a3"], vec!["/b1"], vec!["/c1", "/c2"]]);
    assert_eq!(sent(&pool.pack()), ["/a1", "/b1", "/c1", "/a2", "/c2", "/a3"]);
    assert!(pool.is_empty() && pool.distinct() == 0);
}

#[test]
fn a_large_job_does_not_hold_up_a_small_one() {
    let large: Vec<String> = (0..10_000).map(|n| format!("/large/{n}")).collect();
    let mut pool = pool(Sharing::Shared, &[large.iter().map(String::as_str).collect()]);
    pool.pack();
    pool.add(JobKey(7), [(0, Arc::from("/small"))]);
    assert!(jobs_on(&pool.pack()).contains(&JobKey(7)));
}

#[test]
fn the_same_path_of_two_jobs_is_sent_once() {
    let mut pool = pool(Sharing::Shared, &[vec!["/x", "/x"], vec!["/x"]]);
    let lines = pool.pack();
    assert_eq!(
        lines,
        [RequestLine { path: "/x".into(), items: vec![item(0, 0), item(0, 1), item(1, 0)], covered: vec![] }]
    );
    assert!(pool.is_empty());
}

#[test]
fn a_wildcard_takes_over_what_it_covers_before_and_behind_it() {
    let mut pool = pool(Sharing::Shared, &[vec!["/a/1", "/b", "/a/*"], vec!["/a/2", "/ab", "/a/x*", "/a/1"]]);
    let lines = pool.pack();
    assert_eq!(sent(&lines), ["/b", "/ab", "/a/*"]);
    let covered: BTreeSet<PathRef> = lines[2].covered.iter().copied().collect();
    assert_eq!(covered, [item(0, 0), item(1, 0), item(1, 2), item(1, 3)].into());
    assert_eq!(lines[2].items, [item(0, 2)]);
}

#[test]
fn slots_that_a_wildcard_frees_are_filled_again() {
    let mut first: Vec<String> = (0..99).map(|n| format!("/a/{n}")).collect();
    first.push("/a*".to_owned());
    first.extend((0..99).map(|n| format!("/b/{n}")));
    let mut pool = pool(Sharing::Shared, &[first.iter().map(String::as_str).collect()]);
    let lines = pool.pack();
    assert_eq!(lines.len(), 100);
    assert!(pool.is_empty());
}

#[test]
fn a_request_takes_as_many_paths_and_wildcards_as_its_provider() {
    let capacity = Capacity { paths: 4, wildcards: 2 };
    let mut pool = PathPool::new(Sharing::Shared, capacity);
    let paths = ["/a*", "/b*", "/c*", "/d", "/c*", "/e", "/f", "/g", "/h"];
    pool.add(JobKey(0), paths.iter().zip(0..).map(|(path, index)| (index, Arc::from(*path))));
    let requests: Vec<_> = std::iter::from_fn(|| Some(pool.pack()).filter(|lines| !lines.is_empty())).collect();
    let requests: Vec<_> = requests.iter().map(|lines| sent(lines)).collect();
    assert_eq!(requests, [vec!["/a*", "/b*"], vec!["/c*", "/d", "/e", "/f"], vec!["/g", "/h"]]);
}

#[test]
fn a_wildcard_that_takes_over_another_leaves_room_for_one_more() {
    let mut pool = PathPool::new(Sharing::Shared, Capacity { paths: 9, wildcards: 2 });
    let paths = ["/a/b*", "/a/c*", "/a*", "/d*"];
    pool.add(JobKey(0), paths.iter().zip(0..).map(|(path, index)| (index, Arc::from(*path))));
    assert_eq!(sent(&pool.pack()), ["/a/b*", "/a/c*"]);
    assert_eq!(sent(&pool.pack()), ["/a*", "/d*"]);
    let paths = ["/a/b*", "/a*", "/d*"];
    pool.add(JobKey(0), paths.iter().zip(0..).map(|(path, index)| (index, Arc::from(*path))));
    assert_eq!(sent(&pool.pack()), ["/a*", "/d*"]);
}

#[test]
fn jobs_that_do_not_share_get_a_request_each_in_turn() {
    let many: Vec<String> = (0..150).map(|n| format!("/many/{n}")).collect();
    let mut pool = pool(Sharing::Apart, &[many.iter().map(String::as_str).collect(), vec!["/x", "/x"], vec!["/*"]]);
    let requests: Vec<_> = std::iter::from_fn(|| Some(pool.pack()).filter(|lines| !lines.is_empty())).collect();
    let jobs: Vec<_> =
        requests.iter().map(|lines| jobs_on(lines).into_iter().map(|key| key.0).collect::<Vec<_>>()).collect();
    assert_eq!(jobs, [[0], [1], [2], [0]]);
}

#[test]
fn a_body_stays_below_its_limit_in_bytes() {
    let paths: Vec<String> = (0..150).map(|n| format!("/{n:03}{}", "\"".repeat(2044))).collect();
    let mut pool = pool(Sharing::Shared, &[paths.iter().map(String::as_str).collect()]);
    let lines = pool.pack();
    let body = serde_json::json!({ "paths": sent(&lines) }).to_string();
    assert!(body.len() <= MAX_BODY_BYTES && lines.len() > 95 && lines.len() < 100, "{} {}", body.len(), lines.len());
    assert_eq!(lines.len() + pool.pack().len(), 150);
}

#[test]
fn what_is_taken_back_is_what_waits() {
    let mut pool = pool(Sharing::Shared, &[vec!["/a", "/b", "/x"], vec!["/x", "/c"]]);
    let back: Vec<u32> = pool.remove(JobKey(0)).into_iter().map(|(index, _)| index).collect();
    assert_eq!(back, [0, 1, 2]);
    assert_eq!(sent(&pool.pack()), ["/x", "/c"]);
    assert_eq!(pool.remove(JobKey(1)), []);
}

#[test]
fn what_rode_along_and_came_back_is_packed_once() {
    let mut pool = pool(Sharing::Shared, &[vec!["/a*"], vec!["/z", "/a1", "/a1"]]);
    let lines = pool.pack();
    assert!(lines.iter().any(|line| line.covered.len() == 2));
    pool.add(JobKey(1), [(1, Arc::from("/a1")), (2, Arc::from("/a1"))]);
    let lines = pool.pack();
    assert_eq!((lines.len(), lines[0].items.len()), (1, 2));
    assert!(pool.is_empty());
}

fn covers(wildcard: &str, path: &str) -> bool {
    wildcard.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
}

fn any_jobs() -> impl Strategy<Value = Vec<Vec<String>>> {
    let path = prop_oneof![4 => "/[ab]{1,3}", 1 => r"/[ab]{1,2}\*", 4 => "/c[0-9]{1,3}"];
    prop::collection::vec(prop::collection::vec(path, 0..150), 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_path_is_carried_once_and_no_request_is_too_large_or_says_a_thing_twice(jobs in any_jobs(), apart in any::<bool>()) {
        let sharing = if apart { Sharing::Apart } else { Sharing::Shared };
        let slices: Vec<Vec<&str>> = jobs.iter().map(|job| job.iter().map(String::as_str).collect()).collect();
        let mut pool = pool(sharing, &slices);
        let mut carried = HashSet::new();
        loop {
            let waiting = pool.distinct();
            let lines = pool.pack();
            if lines.is_empty() {
                break;
            }
            prop_assert!(lines.len() <= TUTORIAL.paths);
            prop_assert!(apart || lines.len() == TUTORIAL.paths || pool.is_empty(), "{} of {waiting}", lines.len());
            prop_assert!(!apart || jobs_on(&lines).len() == 1);
            for (at, line) in lines.iter().enumerate() {
                let others = lines.iter().enumerate().filter(|(other, _)| *other != at);
                prop_assert!(others.clone().all(|(_, other)| other.path != line.path && !covers(&other.path, &line.path)));
                for item in line.contents() {
                    let path = &jobs[usize::try_from(item.job.0).unwrap()][item.index as usize];
                    prop_assert!(path == &*line.path || covers(&line.path, path));
                    prop_assert!(carried.insert(item));
                }
                prop_assert!(line.items.iter().all(|item| jobs[usize::try_from(item.job.0).unwrap()][item.index as usize] == *line.path));
            }
        }
        prop_assert_eq!(carried.len(), jobs.iter().map(Vec::len).sum::<usize>());
        prop_assert!(pool.is_empty() && pool.distinct() == 0);
    }

    #[test]
    fn nobody_is_two_paths_ahead_of_a_job_that_still_waits(sizes in prop::collection::vec(1_u32..300, 1..40)) {
        let mut pool = PathPool::new(Sharing::Shared, TUTORIAL);
        for (key, size) in (0..).zip(&sizes) {
            pool.add(JobKey(key), (0..*size).map(|n| (n, Arc::from(format!("/{key}/{n}")))));
        }
        let mut taken = vec![0; sizes.len()];
        while !pool.is_empty() {
            for item in pool.pack().iter().flat_map(RequestLine::contents) {
                taken[usize::try_from(item.job.0).unwrap()] += 1;
            }
            let behind = taken.iter().zip(&sizes).filter(|(taken, size)| taken < size).map(|(taken, _)| *taken).min();
            if let Some(least) = behind {
                prop_assert!(taken.iter().all(|count| *count <= least + 1), "{taken:?}");
            }
        }
    }
}
