//! The budget against an API that counts as the platform does, in virtual time: latency, answers out of order, lost
//! answers, windows that begin with a request or whenever they like, three ways to round.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use proptest::prelude::*;
use tokio::time::Instant;

use super::{Budget, BudgetReservation};
use crate::{limits::RateLimitHeaders, send_time::SendTime};

const WINDOW: Duration = Duration::from_secs(60);
const RUN: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug)]
enum Begins {
    WithFirstRequest,
    Every(Duration),
}

#[derive(Clone, Copy, Debug)]
enum Rounds {
    Up,
    Down,
    ToNextSecond,
}

/// The API's side.
#[derive(Clone, Debug)]
struct Api {
    limit: u32,
    begins: Begins,
    rounds: Rounds,
    /// Since the start of the run.
    window_ends: Option<Duration>,
    count: u32,
    refused: u32,
}

impl Api {
    fn count(&mut self, at: Duration) -> RateLimitHeaders {
        if self.window_ends.is_none_or(|end| at >= end) {
            self.count = 0;
            self.window_ends = Some(match self.begins {
                Begins::WithFirstRequest => at + WINDOW,
                Begins::Every(offset) => {
                    let windows = (at + WINDOW).saturating_sub(offset).as_nanos() / WINDOW.as_nanos();
                    offset + WINDOW * u32::try_from(windows).unwrap()
                }
            });
        }
        self.count += 1;
        self.refused += u32::from(self.count > self.limit);
        let left = self.window_ends.unwrap().saturating_sub(at).as_secs_f64();
        let reset = match self.rounds {
            Rounds::Up => left.ceil(),
            Rounds::Down => left.floor(),
            Rounds::ToNextSecond => left.floor() + 1.0,
        };
        let reset = Some(Duration::from_secs_f64(reset));
        RateLimitHeaders { allowed: Some(self.limit), count: Some(self.count), reset }
    }
}

#[derive(Clone, Debug)]
struct Run {
    ours: u32,
    api: Api,
    /// Requests in flight, at most.
    callers: u32,
    /// There and back, each way at most.
    latency: Duration,
    /// Lost messages in percent.
    lost: u8,
    seed: u64,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrives(usize),
    Answered(usize),
    Wake,
}

struct SimulatedRequest {
    share: Option<BudgetReservation>,
    sent: Duration,
    rates: Option<RateLimitHeaders>,
}

/// Counts of one run.
#[derive(Debug)]
struct Counts {
    sent: u32,
    refused: u32,
}

impl Run {
    fn go(mut self) -> Counts {
        let (start, mut random) = (Instant::now(), fastrand::Rng::with_seed(self.seed));
        let mut budget = Budget::new(self.ours, u32::MAX);
        let mut in_flight: Vec<SimulatedRequest> = Vec::new();
        let mut events = BinaryHeap::from([Reverse((Duration::ZERO, Event::Wake))]);
        let (mut flying, mut wake) = (0, Duration::ZERO);
        let way = |random: &mut fastrand::Rng| self.latency.mul_f64(0.02 + 0.98 * random.f64());
        while let Some(Reverse((now, event))) = events.pop() {
            if now >= RUN {
                break;
            }
            match event {
                Event::Arrives(number) => {
                    let rates = self.api.count(now);
                    in_flight[number].rates = (random.u8(0..100) >= self.lost).then_some(rates);
                    events.push(Reverse((now + way(&mut random), Event::Answered(number))));
                }
                Event::Answered(number) => {
                    flying -= 1;
                    let request = &mut in_flight[number];
                    let share = request.share.take().unwrap();
                    match request.rates {
                        Some(rates) => budget.record_answer(share, start + request.sent, start + now, rates),
                        None => budget.record_loss(share, start + now),
                    }
                }
                Event::Wake => {}
            }
            // As the client starts: one request, until the first answer.
            let callers = if in_flight.first().is_some_and(|first| first.share.is_none()) { self.callers } else { 1 };
            while flying < callers {
                match budget.ready(start + now) {
                    SendTime::Now => {
                        let share = Some(budget.take(start + now));
                        flying += 1;
                        in_flight.push(SimulatedRequest { share, sent: now, rates: None });
                        events.push(Reverse((now + way(&mut random), Event::Arrives(in_flight.len() - 1))));
                    }
                    SendTime::At(next) => {
                        assert!(next > start + now, "it would spin");
                        let next = next - start;
                        if wake <= now || next < wake {
                            wake = next;
                            events.push(Reverse((next, Event::Wake)));
                        }
                        break;
                    }
                }
            }
        }
        Counts { sent: u32::try_from(in_flight.len()).unwrap(), refused: self.api.refused }
    }
}

fn begins() -> impl Strategy<Value = Begins> {
    prop_oneof![
        Just(Begins::WithFirstRequest),
        (0_u64..60_000).prop_map(|offset| Begins::Every(Duration::from_millis(offset))),
    ]
}

fn rounds() -> impl Strategy<Value = Rounds> {
    prop_oneof![Just(Rounds::Up), Just(Rounds::Down), Just(Rounds::ToNextSecond)]
}

prop_compose! {
    fn run(lost: u8)(
        limit in 60_u32..=6000,
        ours_percent in prop_oneof![Just(100_u32), 50_u32..100, 100_u32..2000],
        begins in begins(),
        rounds in rounds(),
        latency in 1_u64..=800,
        seed in any::<u64>(),
    ) -> Run {
        let ours = (limit * ours_percent / 100).max(60);
        // Enough to use the limit up: six times what one way takes at its pace.
        let callers = u32::try_from(u64::from(limit.min(ours)) * latency * 6 / 60_000).unwrap() + 4;
        let latency = Duration::from_millis(latency);
        let api = Api { limit, begins, rounds, window_ends: None, count: 0, refused: 0 };
        Run { ours, api, callers, latency, lost, seed }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_saturated_budget_is_used_to_95_percent_without_a_429(run in run(0)) {
        let limit = run.ours.min(run.api.limit);
        let counts = run.go();
        prop_assert_eq!(counts.refused, 0);
        let possible = f64::from(limit) * RUN.as_secs_f64() / WINDOW.as_secs_f64();
        let used = f64::from(counts.sent) / possible;
        prop_assert!(used >= 0.95, "{used} of {limit} a minute");
    }

    #[test]
    fn lost_answers_make_no_429(run in run(30)) {
        prop_assert_eq!(run.go().refused, 0);
    }
}
