//! Bisections played to their end.

use proptest::prelude::*;

use super::{super::pack::PathRef, *};

/// A hundred paths at most, `sizes[n]` of them of job `n`, in turns.
fn request(sizes: &[usize]) -> Vec<RequestLine> {
    let mut lines = Vec::new();
    for index in 0..sizes.iter().copied().max().unwrap_or(0) {
        for (job, _) in (0..).zip(sizes).filter(|(_, size)| index < **size) {
            let item = PathRef { job: JobKey(job), index: u32::try_from(index).unwrap() };
            lines.push(RequestLine { path: format!("/{job}/{index}").into(), items: vec![item], covered: vec![] });
        }
    }
    lines
}

#[derive(Debug, Default)]
struct Played {
    rejected: Option<RequestLine>,
    purged: Vec<RequestLine>,
    released: Vec<RequestLine>,
    requests: usize,
}

/// Plays one bisection against an API that refuses what contains a bad path.
fn play(lines: Vec<RequestLine>, bad: &BTreeSet<String>) -> Played {
    let is_bad = |lines: &[RequestLine]| lines.iter().any(|line| bad.contains(&*line.path));
    let mut bisection = Bisection::new(lines, true);
    let mut found = Played::default();
    loop {
        match bisection.step() {
            BisectionStep::Over => return found,
            BisectionStep::Found => found.rejected = bisection.take_rejected(),
            BisectionStep::SendHalf => {
                let half = bisection.take_half();
                found.requests += 1;
                if is_bad(&half) {
                    found.released.extend(bisection.note_refused(half, true));
                } else {
                    bisection.note_accepted();
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
            assert_eq!(found.rejected.as_ref(), Some(line), "{sizes:?}");
            assert_eq!(found.purged.len() + found.released.len(), lines.len() - 1);
            most = most.max(found.requests);
        }
    }
    assert!(most <= 13, "{most}");
}

#[test]
fn a_request_that_is_accepted_the_second_time_rejects_nobody() {
    let found = play(request(&[30, 40, 30]), &BTreeSet::new());
    assert_eq!((found.rejected, found.purged.len(), found.released.len()), (None, 100, 0));
}

#[test]
fn a_single_path_that_was_refused_needs_no_further_request() {
    let found = play(request(&[1]), &BTreeSet::from(["/0/0".to_owned()]));
    assert_eq!((found.requests, found.rejected.map(|line| line.path)), (0, Some("/0/0".into())));
}

#[test]
fn a_path_is_rejected_only_by_a_request_of_its_own() {
    // The one that may have been rejected is gone: the other is asked for again.
    let mut bisection = Bisection::new(request(&[1, 1]), true);
    assert!(bisection.drop_job(JobKey(0)));
    assert_eq!(bisection.step(), BisectionStep::SendHalf);
    let half = bisection.take_half();
    assert_eq!(half.len(), 1);
    bisection.note_accepted();
    assert_eq!(bisection.step(), BisectionStep::Over);
}

#[test]
fn a_half_that_comes_back_unjudged_is_asked_for_again() {
    let mut bisection = Bisection::new(request(&[1, 1]), true);
    let half = bisection.take_half();
    bisection.put_back(half.clone(), true);
    assert_eq!((bisection.step(), bisection.take_half()), (BisectionStep::SendHalf, half));
    // Who left it may have been the rejected one.
    bisection.put_back(vec![], false);
    assert_eq!((bisection.step(), bisection.take_half().len()), (BisectionStep::SendHalf, 1));
}

#[test]
fn a_path_that_another_job_shares_stays_when_its_owner_goes() {
    let mut lines = request(&[1, 1]);
    lines[0].items.push(PathRef { job: JobKey(9), index: 4 });
    let mut bisection = Bisection::new(lines, true);
    assert!(!bisection.drop_job(JobKey(0)));
    assert_eq!(bisection.jobs(), [JobKey(1), JobKey(9)].into());
}

proptest! {
    /// The driver's loop in small: released paths go into the next request.
    #[test]
    fn every_rejected_job_is_named_and_every_innocent_one_purged(sizes in any_request(), chance in prop::collection::vec(0_u8..100, 100), percent in 0_u8..60) {
        let all = request(&sizes);
        let bad: BTreeSet<String> = all.iter().zip(&chance).filter(|(_, roll)| **roll < percent).map(|(line, _)| line.path.to_string()).collect();
        let rejected: BTreeSet<JobKey> = all.iter().filter(|line| bad.contains(&*line.path)).filter_map(RequestLine::owner).collect();
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
            let line = found.rejected.unwrap();
            prop_assert!(bad.contains(&*line.path));
            let owner = line.owner().unwrap();
            prop_assert!(named.insert(owner));
            purged.extend(found.purged.into_iter().map(|line| line.path));
            waiting = found.released;
            remove_jobs(&mut waiting, |job| job == owner);
        }
        prop_assert_eq!(&named, &rejected);
        prop_assert!(requests <= 1 + 14 * named.len(), "{} for {}", requests, named.len());
        let innocent = all.iter().filter(|line| !rejected.contains(&line.owner().unwrap()));
        for line in innocent {
            prop_assert!(purged.contains(&line.path), "{}", line.path);
        }
    }
}
