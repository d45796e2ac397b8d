//! A simulation of a whole fleet in virtual time: processes come, go, die and are replaced while they have more work
//! than the limit allows, and messages are delayed or lost. It checks the requests that the API counts, not the shares.

use std::{collections::BTreeMap, time::Duration};

use proptest::prelude::*;
use tokio::time::Instant;

use super::{MemberStatus, Members, OwnLimits};
use crate::membership::LATELY;
use genfleet_genesys::{Budget, LimitShare, SendTime};

mod scenarios;

const STEP: Duration = Duration::from_millis(100);
const MINUTE: Duration = Duration::from_secs(60);
const RUN: Duration = Duration::from_secs(240);
/// The interval between two computations of the share.
const LOOK: Duration = Duration::from_millis(250);
/// No token's limit is met here.
const TOKEN: u32 = 1_000_000;

/// The life of a process: its start, its end, and the times without work.
#[derive(Clone, Debug)]
struct Life {
    comes: Duration,
    goes: Duration,
    end: End,
    rests: Vec<(Duration, Duration)>,
}

#[derive(Clone, Copy, Debug)]
enum End {
    SaysGoodbye,
    IsKilled,
}

/// The transport of messages.
#[derive(Clone, Copy, Debug)]
struct Transport {
    longest: Duration,
    /// In percent.
    lost: u8,
}

struct Process {
    name: String,
    members: Members,
    budget: Budget,
    speaks: Instant,
    looks: Instant,
    /// The time of its last request.
    worked: Option<Instant>,
}

#[derive(Clone)]
enum Message {
    Heartbeat(Box<MemberStatus>),
    Leave,
    Query,
}

struct Fleet {
    limit: u32,
    way: Transport,
    start: Instant,
    now: Instant,
    processes: BTreeMap<usize, Process>,
    on_the_way: Vec<(Instant, usize, usize, Message)>,
    sent: Vec<Instant>,
    random: fastrand::Rng,
}

impl Life {
    fn new(comes: u64, goes: u64, end: End) -> Self {
        Self { comes: Duration::from_secs(comes), goes: Duration::from_secs(goes), end, rests: Vec::new() }
    }

    fn has_work(&self, since: Duration) -> bool {
        !self.rests.iter().any(|(from, to)| (*from..*to).contains(&since))
    }
}

impl Fleet {
    fn run(limit: u32, lives: &[Life], way: Transport, seed: u64) -> Self {
        let start = Instant::now();
        let mut fleet = Self {
            limit,
            way,
            start,
            now: start,
            processes: BTreeMap::new(),
            on_the_way: Vec::new(),
            sent: Vec::new(),
            random: fastrand::Rng::with_seed(seed),
        };
        while fleet.now < start + RUN {
            fleet.come_and_go(lives);
            fleet.hear();
            fleet.work(lives);
            fleet.now += STEP;
        }
        fleet
    }

    fn come_and_go(&mut self, lives: &[Life]) {
        let (now, since) = (self.now, self.now - self.start);
        for (number, life) in lives.iter().enumerate() {
            let lives = since >= life.comes && since < life.goes;
            if lives && !self.processes.contains_key(&number) {
                let (mut members, mut budget) = (Members::new(now), Budget::new(TOKEN, self.limit));
                members.begin(now);
                budget.set_limit_share(LimitShare::with_unknown_peers(self.limit), now);
                let name = number.to_string();
                self.processes.insert(number, Process { name, members, budget, speaks: now, looks: now, worked: None });
                self.send(number, &Message::Query);
            }
            if !lives
                && self.processes.remove(&number).is_some()
                && let End::SaysGoodbye = life.end
            {
                self.send(number, &Message::Leave);
            }
        }
    }

    /// Sends a copy to each process, which may be late or lost; a process always receives its own messages.
    fn send(&mut self, from: usize, message: &Message) {
        for to in self.processes.keys() {
            let arrives = self.now + self.way.longest.mul_f64(self.random.f64());
            if *to == from || self.random.u8(0..100) >= self.way.lost {
                self.on_the_way.push((arrives, from, *to, message.clone()));
            }
        }
    }

    fn hear(&mut self) {
        let now = self.now;
        let all = std::mem::take(&mut self.on_the_way);
        let (arrived, later): (Vec<_>, Vec<_>) = all.into_iter().partition(|(at, ..)| *at <= now);
        self.on_the_way = later;
        for (_, from, to, message) in arrived {
            let Some(process) = self.processes.get_mut(&to) else { continue };
            match message {
                _ if to == from => process.members.note_message(now),
                Message::Heartbeat(status) => process.members.update(*status, now),
                Message::Leave => process.members.leave(&from.to_string(), now),
                Message::Query => process.speaks = now,
            }
        }
    }

    /// Each process computes its share, sends what it may, and sends its heartbeat.
    fn work(&mut self, lives: &[Life]) {
        let (now, limit, mut heartbeats) = (self.now, self.limit, Vec::new());
        for (number, process) in &mut self.processes {
            if now >= process.looks {
                process.looks = now + LOOK;
                process.members.tick(now);
                let own = OwnLimits { process: &process.name, token_limit: TOKEN, client_limit: limit };
                process.budget.set_limit_share(process.members.share(own, now), now);
            }
            let worked = process.worked.is_some_and(|at| now < at + LATELY);
            while lives[*number].has_work(now - self.start) && process.budget.ready(now) == SendTime::Now {
                let _in_flight = process.budget.take(now);
                self.sent.push(now);
                process.worked = Some(now);
            }
            let working = lives[*number].has_work(now - self.start) || worked;
            if now >= process.speaks || (working && !worked) {
                process.speaks = now + Duration::from_secs(1);
                let process = process.name.clone();
                heartbeats
                    .push((*number, MemberStatus { process, working, token_limit: TOKEN, ..MemberStatus::default() }));
            }
        }
        for (number, status) in heartbeats {
            self.send(number, &Message::Heartbeat(Box::new(status)));
        }
    }

    /// The highest number of requests in any minute between these times.
    fn most(&self, from: Duration, to: Duration) -> usize {
        let sent: Vec<Instant> =
            self.sent.iter().copied().filter(|at| (self.start + from..self.start + to).contains(at)).collect();
        let until = |at: Instant| sent.partition_point(|other| *other < at);
        sent.iter().enumerate().map(|(first, at)| until(*at + MINUTE) - first).max().unwrap_or_default()
    }

    /// The number of requests between these seconds.
    fn count(&self, from: u64, to: u64) -> usize {
        let at = |seconds| self.start + Duration::from_secs(seconds);
        self.sent.iter().filter(|sent| (at(from)..at(to)).contains(sent)).count()
    }
}

fn lives() -> impl Strategy<Value = Vec<Life>> {
    let end = || any::<bool>().prop_map(|says| if says { End::SaysGoodbye } else { End::IsKilled });
    let later = (1_u64..200, 1_u64..200, end(), prop::collection::vec((0_u64..200, 1_u64..40), 0..4)).prop_map(
        |(comes, stays, end, rests)| {
            let seconds = Duration::from_secs;
            let rests = rests.into_iter().map(|(from, long)| (seconds(from), seconds(from + long))).collect();
            Life { rests, ..Life::new(comes, comes + stays, end) }
        },
    );
    let forever = Life::new(0, RUN.as_secs(), End::SaysGoodbye);
    (0_usize..4, prop::collection::vec(later, 0..4)).prop_map(move |(first, later)| {
        let first = std::iter::repeat_n(forever.clone(), first);
        first.chain(later).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn the_limit_holds_while_processes_come_go_die_and_rest(
        limit in 200_u32..900,
        lives in lives(),
        (longest, lost) in (10_u64..400, 0_u8..15),
        seed in any::<u64>(),
    ) {
        let way = Transport { longest: Duration::from_millis(longest), lost };
        let most = Fleet::run(limit, &lives, way, seed).most(Duration::ZERO, RUN);
        prop_assert!(most * 100 <= limit as usize * 105, "{most} of {limit} in a minute");
    }

    #[test]
    fn who_knows_of_each_other_uses_the_limit_and_keeps_to_it(
        limit in 200_u32..900,
        count in 1_u64..6,
        seed in any::<u64>(),
    ) {
        let lives: Vec<Life> = (0..count).map(|_| Life::new(0, RUN.as_secs(), End::SaysGoodbye)).collect();
        let way = Transport { longest: Duration::from_millis(150), lost: 5 };
        let fleet = Fleet::run(limit, &lives, way, seed);
        let (most, limit) = (fleet.most(Duration::ZERO, RUN), limit as usize);
        prop_assert!(most <= limit, "{most} of {limit} in a minute");
        let used = fleet.count(60, 240);
        prop_assert!(used * 100 >= 3 * limit * 95, "{used} in three minutes, of {limit} a minute");
    }
}
