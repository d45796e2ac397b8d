//! Named scenarios: no minute has more than 105 % of the limit, and the limit is used before and after.

use super::*;

const LIMIT: u32 = 600;
const SWIFT: Transport = Transport { longest: Duration::from_millis(150), lost: 0 };

/// Checks the limit for several seeds, with and without lost messages.
fn never_above_105_percent(lives: &[Life]) {
    for seed in 0..20 {
        let fleet = Fleet::run(LIMIT, lives, Transport { lost: if seed % 2 == 0 { 0 } else { 10 }, ..SWIFT }, seed);
        let most = fleet.most(Duration::ZERO, RUN);
        assert!(most * 100 <= LIMIT as usize * 105, "{most} of {LIMIT} in a minute; seed {seed}");
    }
}

/// Checks that the limit is used between these seconds, in which nothing changes.
fn is_used(lives: &[Life], from: u64, to: u64) {
    let used = Fleet::run(LIMIT, lives, SWIFT, 1).count(from, to);
    let possible = LIMIT as usize * usize::try_from(to - from).unwrap() / 60;
    assert!(used * 100 >= possible * 95, "{used} of {possible} between {from} and {to}");
}

fn stays() -> Life {
    Life::new(0, 240, End::SaysGoodbye)
}

#[test]
fn a_rolling_restart_of_three() {
    for end in [End::SaysGoodbye, End::IsKilled] {
        let old = [60, 75, 90].map(|at| Life::new(0, at, end));
        let new = [61, 76, 91].map(|at| Life::new(at, 240, end));
        let lives = [old, new].concat();
        never_above_105_percent(&lives);
        is_used(&lives, 10, 60);
        is_used(&lives, 120, 240);
    }
}

#[test]
fn a_rolling_restart_where_each_new_one_comes_before_its_old_one_goes() {
    let old = [70, 80, 90].map(|at| Life::new(0, at, End::SaysGoodbye));
    let new = [65, 75, 85].map(|at| Life::new(at, 240, End::SaysGoodbye));
    let lives = [old, new].concat();
    never_above_105_percent(&lives);
    is_used(&lives, 120, 240);
}

#[test]
fn the_only_process_restarted_a_second_later() {
    for end in [End::SaysGoodbye, End::IsKilled] {
        let lives = [Life::new(0, 80, end), Life::new(81, 240, end)];
        never_above_105_percent(&lives);
        is_used(&lives, 10, 80);
        is_used(&lives, 90, 240);
    }
}

#[test]
fn the_only_process_that_gets_all_its_work_and_is_killed_the_next_moment() {
    let rested = Life { rests: vec![(Duration::ZERO, Duration::from_secs(78))], ..Life::new(0, 80, End::IsKilled) };
    never_above_105_percent(&[rested, Life::new(81, 240, End::SaysGoodbye)]);
}

#[test]
fn the_only_process_that_is_killed_over_and_over() {
    for every in [2, 3, 5, 10, 20] {
        let lives: Vec<Life> =
            (0..100).map(|number| Life::new(number * every, (number + 1) * every, End::IsKilled)).collect();
        never_above_105_percent(&lives);
    }
}

#[test]
fn one_of_two_replaced() {
    for end in [End::SaysGoodbye, End::IsKilled] {
        let lives = [stays(), Life::new(0, 80, end), Life::new(81, 240, end)];
        never_above_105_percent(&lives);
        is_used(&lives, 10, 80);
        is_used(&lives, 120, 240);
    }
}

#[test]
fn one_that_joins_and_one_that_leaves() {
    let lives = [stays(), Life::new(60, 150, End::SaysGoodbye)];
    never_above_105_percent(&lives);
    for (from, to) in [(10, 60), (70, 150), (160, 240)] {
        is_used(&lives, from, to);
    }
}

#[test]
fn ten_that_get_work_in_the_same_moment_and_again_and_again() {
    let rests: Vec<(Duration, Duration)> =
        (0..10).map(|number| (Duration::from_secs(20 * number), Duration::from_secs(20 * number + 12))).collect();
    let lives: Vec<Life> = (0..10).map(|_| Life { rests: rests.clone(), ..stays() }).collect();
    never_above_105_percent(&lives);
}
