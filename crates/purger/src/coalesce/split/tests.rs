//! Splits played to their end.

use proptest::prelude::*;

use super::{super::pack::Item, *};

/// A hundred paths at most, `sizes[n]` of them of job `n`, in turns.
fn request(sizes: &[usize]) -> Vec<Line> {
    let mut lines = Vec::new();
    for index in 0..sizes.iter().copied().max().unwrap_or(0) {
        for (job, _) in (0..).zip(sizes).filter(|(_, size)| index < **size) {
            let item = Item { job: JobKey(job), index: u32::try_from(index).unwrap() };
            lines.push(Line { path: format!("/{job}/{index}").into(), items: vec![item], covered: vec![] });
        }
    }
    lines
}

#[derive(Debug, Default)]
struct Found {
    guilty: Option<Line>,
    purged: Vec<Line>,
    released: Vec<Line>,
    requests: usize,
}

/// Plays one split against an API that refuses what contains a bad path.
fn play(lines: Vec<Line>, bad: &BTreeSet<String>) -> Found {
    let is_bad = |lines: &[Line]| lines.iter().any(|line| bad.contains(&*line.path));
    let mut split = Split::new(lines, true);
    let mut found = Found::default();
    loop {
        match split.step() {
            Step::Over => return found,
            Step::Guilty => found.guilty = split.take_guilty(),
            Step::Ask => {
                let half = split.take_half();
                found.requests += 1;
                if is_bad(&half) {
                    found.released.extend(split.rejected(half, true));
                } else {
                    split.accepted();
                    found.purged.extend(half);
                }
            }
        }
    }
}

fn any_request() -> impl Strategy<Value = Vec<usize>> {
    let even = prop::collection::vec(1_usize..8, 1..100);
    let uneven = prop::collection::vec(prop_oneof![9 => Just(1_usize), 1 => 1_usize..60], 1..100);
    prop_oneof![even, uneven].prop_map(|mut sizes| {
        while sizes.iter().sum::<usize>() > 100 {
            sizes.pop();
        }
        sizes
    })
}

#[test]
fn whichever_one_path_is_bad_it_is_named_within_13_requests() {
    let one_large = |large: usize| std::iter::repeat_n(1, 100 - large).chain([large]).collect::<Vec<_>>();
    let shapes =
        (0..=100).map(one_large).chain([vec![1; 100], vec![2; 50], vec![50, 50], vec![33, 33, 34], vec![10; 10]]);
    let mut most = 0;
    for sizes in shapes {
        let lines = request(&sizes);
        for line in &lines {
            let found = play(lines.clone(), &BTreeSet::from([line.path.to_string()]));
            assert_eq!(found.guilty.as_ref(), Some(line), "{sizes:?}");
            assert_eq!(found.purged.len() + found.released.len(), lines.len() - 1);
            most = most.max(found.requests);
        }
    }
    assert!(most <= 13, "{most}");
}

#[test]
fn a_request_that_is_accepted_the_second_time_makes_nobody_guilty() {
    let found = play(request(&[30, 40, 30]), &BTreeSet::new());
    assert_eq!((found.guilty, found.purged.len(), found.released.len()), (None, 100, 0));
}

#[test]
fn a_single_path_that_was_refused_needs_no_further_request() {
    let found = play(request(&[1]), &BTreeSet::from(["/0/0".to_owned()]));
    assert_eq!((found.requests, found.guilty.map(|line| line.path)), (0, Some("/0/0".into())));
}

#[test]
fn a_path_is_condemned_only_by_a_request_of_its_own() {
    // The one that may have been guilty is gone: the other is asked for again.
    let mut split = Split::new(request(&[1, 1]), true);
    assert!(split.drop_job(JobKey(0)));
    assert_eq!(split.step(), Step::Ask);
    let half = split.take_half();
    assert_eq!(half.len(), 1);
    split.accepted();
    assert_eq!(split.step(), Step::Over);
}

#[test]
fn a_half_that_comes_back_unjudged_is_asked_for_again() {
    let mut split = Split::new(request(&[1, 1]), true);
    let half = split.take_half();
    split.returned(half.clone(), true);
    assert_eq!((split.step(), split.take_half()), (Step::Ask, half));
    // Who left it may have been the guilty one.
    split.returned(vec![], false);
    assert_eq!((split.step(), split.take_half().len()), (Step::Ask, 1));
}

#[test]
fn a_path_that_another_job_shares_stays_when_its_owner_goes() {
    let mut lines = request(&[1, 1]);
    lines[0].items.push(Item { job: JobKey(9), index: 4 });
    let mut split = Split::new(lines, true);
    assert!(!split.drop_job(JobKey(0)));
    assert!(split.suspects(JobKey(9)) && !split.suspects(JobKey(0)));
}

proptest! {
    /// The driver's loop in small: released paths go into the next request.
    #[test]
    fn every_guilty_job_is_named_and_every_innocent_one_purged(sizes in any_request(), chance in prop::collection::vec(0_u8..100, 100), percent in 0_u8..60) {
        let all = request(&sizes);
        let bad: BTreeSet<String> = all.iter().zip(&chance).filter(|(_, roll)| **roll < percent).map(|(line, _)| line.path.to_string()).collect();
        let guilty: BTreeSet<JobKey> = all.iter().filter(|line| bad.contains(&*line.path)).filter_map(Line::owner).collect();
        let mut purged = BTreeSet::new();
        let mut named = BTreeSet::new();
        let mut waiting = all.clone();
        let mut requests = 0;
        while !waiting.is_empty() {
            requests += 1;
            if !waiting.iter().any(|line| bad.contains(&*line.path)) {
                purged.extend(waiting.drain(..).map(|line| line.path));
                break;
            }
            let found = play(waiting, &bad);
            requests += found.requests;
            let line = found.guilty.unwrap();
            prop_assert!(bad.contains(&*line.path));
            let owner = line.owner().unwrap();
            prop_assert!(named.insert(owner));
            purged.extend(found.purged.into_iter().map(|line| line.path));
            waiting = found.released;
            without(&mut waiting, |job| job == owner);
        }
        prop_assert_eq!(&named, &guilty);
        prop_assert!(requests <= 1 + 14 * named.len(), "{} for {}", requests, named.len());
        let innocent = all.iter().filter(|line| !guilty.contains(&line.owner().unwrap()));
        for line in innocent {
            prop_assert!(purged.contains(&line.path), "{}", line.path);
        }
    }
}
