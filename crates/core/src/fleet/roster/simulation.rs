//! A whole fleet in virtual time: processes that come, go and die while all have more work than the limit allows, and
//! news that take their time. The API's count is looked at, not the parts.

use std::{collections::BTreeMap, time::Duration};

use proptest::prelude::*;
use tokio::time::Instant;

use super::{News, Own, Roster};
use crate::genesys::budget::{Budget, Ready};

const STEP: Duration = Duration::from_millis(100);
const MINUTE: Duration = Duration::from_secs(60);
const RUN: Duration = Duration::from_secs(420);
/// No token's limit is met here.
const TOKEN: u32 = 1_000_000;
/// After a change: until all have heard of it, and what was sent before it no longer counts.
const SETTLES: Duration = Duration::from_secs(75);

/// When a process comes, and when and how it goes.
#[derive(Clone, Debug)]
struct Life {
    comes: Duration,
    goes: Duration,
    says_goodbye: bool,
}

struct Process {
    name: String,
    life: Life,
    roster: Roster,
    budget: Budget,
    speaks: Instant,
}

enum Word {
    Here(Box<News>),
    Gone,
}

struct Fleet {
    limit: u32,
    start: Instant,
    now: Instant,
    processes: BTreeMap<usize, Process>,
    on_the_way: Vec<(Instant, usize, Word)>,
    sent: Vec<Instant>,
    random: fastrand::Rng,
}

impl Fleet {
    fn run(limit: u32, lives: &[Life], seed: u64) -> Self {
        let start = Instant::now();
        let random = fastrand::Rng::with_seed(seed);
        let mut fleet = Self {
            limit,
            start,
            now: start,
            processes: BTreeMap::new(),
            on_the_way: Vec::new(),
            sent: Vec::new(),
            random,
        };
        while fleet.now < start + RUN {
            fleet.come_and_go(lives);
            fleet.hear();
            fleet.work();
            fleet.now += STEP;
        }
        fleet
    }

    fn come_and_go(&mut self, lives: &[Life]) {
        let since = self.now - self.start;
        for (number, life) in lives.iter().enumerate() {
            let there = self.processes.contains_key(&number);
            if !there && since >= life.comes && since < life.goes {
                let (roster, budget) = (Roster::new(self.now), Budget::new(TOKEN, self.limit));
                let process =
                    Process { name: number.to_string(), life: life.clone(), roster, budget, speaks: self.now + STEP };
                self.processes.insert(number, process);
                // It asks, and all answer.
                self.processes.values_mut().for_each(|process| process.speaks = self.now + STEP);
            }
            if there
                && since >= life.goes
                && let Some(process) = self.processes.remove(&number)
                && process.life.says_goodbye
            {
                self.tell(number, || Word::Gone);
            }
        }
    }

    fn tell(&mut self, from: usize, word: impl Fn() -> Word) {
        let arrives = self.now + Duration::from_millis(self.random.u64(1..150));
        self.on_the_way.push((arrives, from, word()));
    }

    fn hear(&mut self) {
        let now = self.now;
        let (arrived, later) = std::mem::take(&mut self.on_the_way).into_iter().partition(|(at, ..)| *at <= now);
        self.on_the_way = later;
        let arrived: Vec<(Instant, usize, Word)> = arrived;
        for (_, from, word) in arrived {
            for (number, process) in &mut self.processes {
                match &word {
                    _ if *number == from => process.roster.hears(now),
                    Word::Here(news) => process.roster.told((**news).clone(), now),
                    Word::Gone => process.roster.left(&from.to_string(), now),
                }
            }
        }
    }

    /// Each computes its part, sends all that goes, and tells what it spent.
    fn work(&mut self) {
        let (now, limit, mut told) = (self.now, self.limit, Vec::new());
        for (number, process) in &mut self.processes {
            process.roster.tick(now);
            let own = Own { process: &process.name, token_limit: TOKEN, client_limit: limit };
            process.budget.allot(process.roster.part(own, now));
            while process.budget.ready(now) == Ready::Now {
                let _in_flight = process.budget.take(now);
                self.sent.push(now);
            }
            if now >= process.speaks {
                process.speaks = now + Duration::from_secs(1);
                let spent = process.budget.spending(now).last_minute;
                let news = News {
                    process: process.name.clone(),
                    working: true,
                    token_limit: TOKEN,
                    requests_last_minute: spent,
                    ..News::default()
                };
                told.push((*number, news));
            }
        }
        for (number, news) in told {
            self.tell(number, || Word::Here(Box::new(news.clone())));
        }
    }

    /// Requests of the minute that begins at `from`.
    fn in_minute(&self, from: Instant) -> usize {
        let first = self.sent.partition_point(|at| *at < from);
        self.sent.partition_point(|at| *at < from + MINUTE) - first
    }
}

fn lives() -> impl Strategy<Value = Vec<Life>> {
    let later = (60_u64..300, 60_u64..300, any::<bool>()).prop_map(|(comes, stays, says_goodbye)| Life {
        comes: Duration::from_secs(comes),
        goes: Duration::from_secs(comes + stays),
        says_goodbye,
    });
    let forever = Life { comes: Duration::ZERO, goes: RUN, says_goodbye: true };
    (1_usize..4, prop::collection::vec(later, 0..4)).prop_map(move |(first, later)| {
        let first = std::iter::repeat_n(forever.clone(), first);
        first.chain(later).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn the_limit_holds_while_processes_come_go_and_die_and_it_is_used(
        limit in 60_u32..600,
        lives in lives(),
        seed in any::<u64>(),
    ) {
        let fleet = Fleet::run(limit, &lives, seed);
        let changes: Vec<Instant> =
            lives.iter().flat_map(|life| [life.comes, life.goes]).map(|at| fleet.start + at).collect();
        let limit = limit as usize;
        for second in 0..RUN.as_secs() - 60 {
            let from = fleet.start + Duration::from_secs(second);
            let count = fleet.in_minute(from);
            let settled = changes.iter().all(|change| from >= *change + SETTLES || from + MINUTE <= *change);
            // A change is heard a moment later.
            let most = if settled { limit } else { limit + limit / 10 + 2 * lives.len() };
            prop_assert!(count <= most, "{count} of {limit} in the minute after {second} s; settled: {settled}");
        }
        // Of seven minutes.
        prop_assert!(fleet.sent.len() >= 5 * limit, "only {} were sent, of {limit} a minute", fleet.sent.len());
    }
}
