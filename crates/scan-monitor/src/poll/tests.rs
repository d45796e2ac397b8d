use std::collections::{BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn pace(interval: u64, timeout: u64) -> Pace {
    Pace::new(seconds(interval), seconds(timeout)).unwrap()
}

#[test]
fn no_interval_at_all_is_a_mistake() {
    let error = Pace::new(Duration::ZERO, seconds(120)).unwrap_err();
    assert!(error.to_string().contains("--poll-interval"), "{error}");
}

#[test]
fn an_interval_longer_than_the_time_of_a_scan_still_gives_one_poll_at_its_end() {
    assert_eq!(pace(60, 20).wait(Duration::ZERO, 0.5), seconds(20));
}

#[test]
fn the_last_poll_before_the_end_comes_at_the_end() {
    let pace = pace(5, 120);
    assert_eq!(pace.wait(seconds(118), 0.5), seconds(2));
    assert_eq!(pace.wait(seconds(120), 0.5), seconds(5), "one that failed after the end goes on as before");
    assert!(pace.is_over(seconds(120)) && !pace.is_over(Duration::from_millis(119_999)));
}

#[test]
fn a_scan_may_be_unknown_for_fifteen_seconds() {
    assert!(Pace::may_be_unknown(Duration::from_millis(14_999)));
    assert!(!Pace::may_be_unknown(seconds(15)));
}

proptest! {
    #[test]
    fn the_wait_is_the_interval_within_a_tenth_and_never_nothing(
        interval_ms in 1_u64..600_000, age_ms in 0_u64..10_000_000, roll in 0.0..=1.0_f64,
    ) {
        let (interval, age) = (Duration::from_millis(interval_ms), Duration::from_millis(age_ms));
        let pace = Pace::new(interval, interval * 20).unwrap();
        let wait = pace.wait(age, roll);
        prop_assert!(wait > Duration::ZERO && wait <= interval.mul_f64(1.1001).max(SHORTEST));
        let is_cut = !pace.is_over(age) && age + interval.mul_f64(1.1) >= interval * 20;
        prop_assert!(is_cut || wait >= interval.mul_f64(0.8999));
    }

    #[test]
    fn short_of_budget_all_scans_are_polled_equally_often_and_the_budget_is_used(
        scans in 20_u32..200, per_second in 1_u32..8, seed in any::<u64>(),
    ) {
        let rolls = fastrand_like(seed);
        let line = Line::of(scans, per_second, rolls);
        let (rounds, stretched) = line.run(20);
        // Everybody has every round; the jitter lets one be a little before or behind after twenty of them.
        let (most, least) = (rounds.iter().max().unwrap(), rounds.iter().min().unwrap());
        prop_assert!(most - least <= 2, "{most} and {least}");
        // What is due at once was as much as all, so each round took as long as the budget needs for all.
        prop_assert!(stretched.as_secs_f64() >= f64::from(scans) / f64::from(per_second) * 0.95);
    }
}

/// Rolls of 0–1 from a seed, without a generator of random numbers among the dependencies.
fn fastrand_like(seed: u64) -> impl FnMut() -> f64 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        f64::from(u32::try_from(state >> 32).unwrap()) / f64::from(u32::MAX)
    }
}

/// The resume queue as the module tells it: what is due waits in one line, and leaves it at the budget's pace.
struct Line<R> {
    pace: Pace,
    rolls: R,
    due: BTreeSet<(Duration, usize)>,
    between: Duration,
}

impl<R: FnMut() -> f64> Line<R> {
    /// More scans than can be polled within an interval.
    fn of(scans: u32, per_second: u32, rolls: R) -> Self {
        let due = (0..scans as usize).map(|scan| (Duration::ZERO, scan)).collect();
        let interval = (f64::from(scans) / f64::from(per_second) / 2.0).max(0.5);
        let interval = Duration::from_secs_f64(interval);
        let pace = Pace::new(interval, interval * 10_000).unwrap();
        Self { pace, rolls, due, between: Duration::from_secs(1) / per_second }
    }

    /// Polls until so many rounds are over on average: how often each scan was polled, and the average gap.
    fn run(mut self, rounds: usize) -> (Vec<usize>, Duration) {
        let scans = self.due.len();
        let mut polled = vec![0_usize; scans];
        let mut line = VecDeque::new();
        let mut now = Duration::ZERO;
        for _ in 0..scans * rounds {
            let later = self.due.split_off(&(now, usize::MAX));
            line.extend(std::mem::replace(&mut self.due, later).into_iter().map(|(_, scan)| scan));
            let scan = line.pop_front().expect("more is due than the budget polls");
            polled[scan] += 1;
            now += self.between;
            self.due.insert((now + self.pace.wait(now, (self.rolls)()), scan));
        }
        (polled, now / u32::try_from(rounds).unwrap())
    }
}
