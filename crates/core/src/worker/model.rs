//! A model of several processes on one broker, which uses the decisions of the worker itself: [`judge`], [`step`],
//! [`InFlightJobs`], [`Unsettled`] and [`Recent`]. Sessions are lost and processes killed between any two steps, written
//! acknowledgements are worked off or lost, confirms are lost and their publications sent again, messages come again to
//! any process; producers send the same message again. After every step nothing may be lost; once the faults end, every job
//! has to end soon.
//!
//! A failure is: a job that is nowhere and has no event; a message that is acknowledged unrun because another one is
//! alike; an innocent job that is convicted although no process was killed; an effect that happened more often than there
//! were faults; publications out of proportion; a job that does not end.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use proptest::prelude::*;
use tokio::time::Instant;

use super::{
    in_flight::{Claim, ClaimResult, InFlightJobs},
    settlement::{SettlementStep, step},
    suspect::{SESSION_LOST_LATELY, SurvivedSuspects, SuspectVerdict, judge},
    unsettled::Unsettled,
};
use genfleet_job::{
    JobId,
    message::{Lane, Message},
};
use genfleet_queue::rabbit::{Recent, RecentDelivery};

/// A job takes so many attempts: each has one effect and records it, the last one ends it.
const STEPS: u32 = 3;
/// Deliveries of a lane that a process holds at once.
const PREFETCH: usize = 4;
/// Between two steps.
const TICK: Duration = Duration::from_millis(50);

/// A message of the model.
#[derive(Clone, Debug)]
struct Sent {
    job: usize,
    lane: Lane,
    /// Effects that are recorded in it.
    done: u32,
    number: Option<i64>,
    delivery_count: u32,
    redelivered: bool,
}

impl Sent {
    fn of_producer(job: usize) -> Self {
        Self { job, lane: Lane::Jobs, done: 0, number: None, delivery_count: 0, redelivered: false }
    }

    fn message(&self) -> Message {
        let headers = [("genfleet-state".to_owned(), i64::from(self.done).into())].into();
        Message { body: self.body(), message_id: Some(self.job.to_string()), headers, ..Message::default() }
    }

    fn body(&self) -> Bytes {
        self.job.to_string().into()
    }
}

/// A copy in the hands of a process.
#[derive(Clone, Debug)]
struct Handed {
    copy: Sent,
    held: RecentDelivery,
    session: u64,
    tag: u64,
}

/// How an attempt ended: so much is done.
type Done = u32;

/// An attempt, in its handler or after it.
#[derive(Debug)]
struct Attempt {
    claim: Claim<Handed>,
    job: usize,
    began_with: Option<Handed>,
    result: Option<Arc<Done>>,
    answered: bool,
}

#[derive(Debug, Default)]
struct Process {
    alive: bool,
    /// Unlike that of any other process, and of those killed before it.
    number: u64,
    session: Option<u64>,
    shelf: VecDeque<Handed>,
    in_flight: Arc<InFlightJobs<Handed>>,
    unsettled: Unsettled<Done>,
    recent: Recent,
    survived: SurvivedSuspects,
    attempts: Vec<Attempt>,
    /// Written; whether the broker works them off is open.
    acks: Vec<u64>,
}

/// Broker, API and processes.
#[derive(Debug)]
struct World {
    now: Instant,
    processes: Vec<Process>,
    ready: BTreeMap<Lane, VecDeque<Sent>>,
    unsettled: BTreeMap<u64, (u64, Sent)>,
    lock: Option<u64>,
    exclusive: bool,
    jobs: usize,
    poison: Option<usize>,
    effects: BTreeMap<(usize, u32), u32>,
    events: BTreeMap<usize, u32>,
    /// How often something was published for a producer's message of this job, or for one that it ran with.
    answers: BTreeMap<usize, usize>,
    /// The processes that gave back or lost producers' messages of this job.
    left_by: BTreeMap<usize, BTreeSet<u64>>,
    /// Of these jobs a message was taken for a settled one that another process may have lost: see [`Recent`].
    mistakable: BTreeSet<usize>,
    convicted: Vec<usize>,
    /// By job.
    produced: BTreeMap<usize, u32>,
    published: u32,
    losses: u32,
    kills: u32,
    given_back: u32,
    next: u64,
}

#[derive(Clone, Copy, Debug)]
enum Part {
    /// Takes what the broker hands over.
    Take,
    /// Begins what it took.
    Begin,
    /// Goes on with what it began: an effect, or a settlement.
    Advance,
}

#[derive(Clone, Debug)]
enum Op {
    /// The process starts or connects, or does a part of its work.
    Work(usize, Part),
    /// The broker works off what the process wrote.
    Acknowledge(usize),
    /// The session is lost; every acknowledgement not worked off is, where the bit is set.
    Lose(usize, u64),
    Kill(usize, u64),
    /// The process gives back what it took and did not begin.
    GiveBack(usize),
    /// A producer sends the message of this job again.
    Produce(usize),
    /// A confirm is lost: what was published last is published again.
    PublishAgain,
}

impl World {
    fn new(jobs: usize, processes: usize, exclusive: bool, poison: Option<usize>) -> Self {
        let ready = BTreeMap::from([(Lane::Jobs, (0..jobs).map(Sent::of_producer).collect())]);
        let processes = (0..processes).map(|_| Process::default()).collect();
        Self {
            now: Instant::now(),
            processes,
            ready,
            unsettled: BTreeMap::new(),
            lock: None,
            exclusive,
            jobs,
            poison,
            effects: BTreeMap::new(),
            events: BTreeMap::new(),
            answers: BTreeMap::new(),
            left_by: BTreeMap::new(),
            mistakable: BTreeSet::new(),
            convicted: Vec::new(),
            produced: (0..jobs).map(|job| (job, 1)).collect(),
            published: 0,
            losses: 0,
            kills: 0,
            given_back: 0,
            next: 1,
        }
    }

    fn apply(&mut self, op: &Op) {
        self.now += TICK;
        let count = self.processes.len();
        match *op {
            Op::Work(process, part) => self.work(process % count, part),
            Op::Acknowledge(process) => self.acknowledge(process % count),
            Op::Lose(process, worked_off) => self.lose(process % count, worked_off),
            Op::Kill(process, worked_off) => self.kill(process % count, worked_off),
            Op::GiveBack(process) => self.give_back(process % count),
            Op::Produce(job) => {
                let job = job % self.jobs;
                *self.produced.entry(job).or_default() += 1;
                self.ready.entry(Lane::Jobs).or_default().push_back(Sent::of_producer(job));
            }
            Op::PublishAgain => {
                let resume = self.ready.entry(Lane::Resume).or_default();
                if let Some(last) = resume.back().filter(|copy| copy.delivery_count == 0).cloned() {
                    self.losses += 1;
                    resume.push_back(last);
                }
            }
        }
    }

    fn next(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn work(&mut self, at: usize, part: Part) {
        if !self.processes[at].alive {
            self.processes[at] = Process { alive: true, number: self.next(), ..Process::default() };
        } else if self.processes[at].session.is_none() {
            let session = self.next();
            self.processes[at].session = Some(session);
        } else {
            match part {
                Part::Take => self.hand_over(at),
                Part::Begin => self.begin(at),
                Part::Advance => self.advance(at),
            }
        }
    }

    /// Hands over a message of every lane that has room.
    fn hand_over(&mut self, at: usize) {
        let Some(session) = self.processes[at].session else { return };
        if self.exclusive && *self.lock.get_or_insert(session) != session {
            return;
        }
        for (lane, prefetch) in [(Lane::Jobs, PREFETCH), (Lane::Resume, PREFETCH), (Lane::Suspect, 1)] {
            let held = self.unsettled.values().filter(|(of, copy)| *of == session && copy.lane == lane).count();
            if held < prefetch
                && let Some(copy) = self.ready.entry(lane).or_default().pop_front()
            {
                let tag = self.next();
                self.unsettled.insert(tag, (session, copy.clone()));
                let recent = &self.processes[at].recent;
                let held = recent.record_delivery(&copy.body(), copy.number, copy.redelivered);
                self.processes[at].shelf.push_back(Handed { copy, held, session, tag });
            }
        }
    }

    /// As [`KindProcessor::process`](super::process::KindProcessor) and what comes before it.
    fn begin(&mut self, at: usize) {
        let now = self.now;
        let process = &mut self.processes[at];
        let Some(handed) = process.shelf.pop_front() else { return };
        if process.session != Some(handed.session) {
            return process.recent.record_given_back(&handed.held, now);
        }
        let copy = &handed.copy;
        if process.recent.was_settled(&handed.held, now) {
            let mut left_by = self.left_by.get(&copy.job).into_iter().flatten().copied();
            if left_by.any(|number| number != process.number) {
                self.mistakable.insert(copy.job);
            }
            return self.acknowledge_later(at, &handed);
        }
        let (lane, delivery_count, message) = (copy.lane, copy.delivery_count, copy.message());
        let survived = lane == Lane::Suspect && process.survived.contains(&message);
        let sessions_lost = process.recent.lost_within(SESSION_LOST_LATELY, now);
        match judge(lane, delivery_count, survived, sessions_lost) {
            SuspectVerdict::Run => self.enter(at, handed),
            SuspectVerdict::ResetCount => self.settle_with(at, &handed, Some((lane, handed.copy.done))),
            SuspectVerdict::Isolate => self.settle_with(at, &handed, Some((Lane::Suspect, handed.copy.done))),
            SuspectVerdict::CrashLoop => {
                self.convicted.push(handed.copy.job);
                self.settle_with(at, &handed, None);
            }
        }
    }

    fn enter(&mut self, at: usize, handed: Handed) {
        let (job, now) = (handed.copy.job, self.now);
        let id = JobId::parse(&job.to_string()).unwrap();
        let process = &mut self.processes[at];
        let (mut claim, handed) = match process.in_flight.claim(&id, &handed.copy.body(), 0, handed) {
            ClaimResult::Claimed(claim, handed) => (claim, handed),
            ClaimResult::Attached => return,
            ClaimResult::Busy(handed, _) => return process.shelf.push_back(handed),
        };
        let kept = handed.copy.redelivered.then(|| process.unsettled.take(&id, &handed.copy.message(), now)).flatten();
        let runs = kept.is_none();
        if kept.as_ref().is_some_and(|done| **done < STEPS) {
            claim.close();
        }
        process.attempts.push(Attempt { claim, job, began_with: Some(handed), result: kept, answered: false });
        if runs && self.poison == Some(job) {
            self.kill(at, u64::MAX);
        }
    }

    /// One step of one attempt: its handler ends, or one of its deliveries is settled.
    fn advance(&mut self, at: usize) {
        if self.processes[at].attempts.is_empty() {
            return;
        }
        let mut attempt = self.processes[at].attempts.remove(0);
        let Some(result) = attempt.result.clone() else {
            let done = attempt.began_with.as_ref().map_or(0, |handed| handed.copy.done);
            *self.effects.entry((attempt.job, done)).or_default() += 1;
            if let Some(handed) = attempt.began_with.as_ref().filter(|handed| handed.copy.lane == Lane::Suspect) {
                self.processes[at].survived.insert(&handed.copy.message());
            }
            attempt.result = Some(Arc::new(done + 1));
            if done + 1 < STEPS {
                attempt.claim.close();
            }
            return self.processes[at].attempts.push(attempt);
        };
        let Some(handed) = attempt.began_with.take().or_else(|| attempt.claim.take_attached()) else {
            assert!(attempt.claim.release(), "nothing is attached");
            return;
        };
        let (copy, now) = (&handed.copy, self.now);
        let is_stale = self.processes[at].session != Some(handed.session);
        match step(is_stale, copy.redelivered || copy.lane != Lane::Jobs, attempt.answered) {
            SettlementStep::Keep => {
                let id = JobId::parse(&attempt.job.to_string()).unwrap();
                self.processes[at].unsettled.keep(&id, copy.message(), &result, now);
                self.processes[at].recent.record_given_back(&handed.held, self.now);
            }
            SettlementStep::Acknowledge => {
                *self.answers.entry(copy.job).or_default() += usize::from(copy.number.is_none());
                self.acknowledge_later(at, &handed);
            }
            SettlementStep::Publish => {
                attempt.answered = true;
                self.settle_with(at, &handed, (*result < STEPS).then_some((Lane::Resume, *result)));
            }
        }
        self.processes[at].attempts.push(attempt);
    }

    /// Publishes the next round of `handed`, or the event in which its job ends, then acknowledges.
    fn settle_with(&mut self, at: usize, handed: &Handed, round: Option<(Lane, u32)>) {
        self.published += 1;
        let job = handed.copy.job;
        *self.answers.entry(job).or_default() += usize::from(handed.copy.number.is_none());
        match round {
            Some((lane, done)) => {
                let number = Some(self.next().cast_signed());
                let copy = Sent { lane, done, number, ..Sent::of_producer(job) };
                self.ready.entry(lane).or_default().push_back(copy);
            }
            None => *self.events.entry(job).or_default() += 1,
        }
        self.acknowledge_later(at, handed);
    }

    fn acknowledge_later(&mut self, at: usize, handed: &Handed) {
        let process = &mut self.processes[at];
        process.recent.record_settled(&handed.held, self.now);
        process.acks.push(handed.tag);
    }

    fn acknowledge(&mut self, at: usize) {
        for tag in std::mem::take(&mut self.processes[at].acks) {
            self.unsettled.remove(&tag);
        }
    }

    fn lose(&mut self, at: usize, worked_off: u64) {
        let Some(session) = self.processes[at].session.take() else { return };
        self.losses += 1;
        self.session_ends(at, session, worked_off);
        self.processes[at].recent.record_session_loss(self.now);
        for handed in std::mem::take(&mut self.processes[at].shelf) {
            self.processes[at].recent.record_given_back(&handed.held, self.now);
        }
    }

    fn give_back(&mut self, at: usize) {
        let Some(handed) = self.processes[at].shelf.pop_front() else { return };
        self.processes[at].recent.record_given_back(&handed.held, self.now);
        self.given_back += 1;
        if let Some((_, copy)) = self.unsettled.remove(&handed.tag) {
            self.returned(at, copy);
        }
    }

    fn returned(&mut self, at: usize, mut copy: Sent) {
        (copy.delivery_count, copy.redelivered) = (copy.delivery_count + 1, true);
        self.left_by.entry(copy.job).or_default().insert(self.processes[at].number);
        self.ready.entry(copy.lane).or_default().push_front(copy);
    }

    fn kill(&mut self, at: usize, worked_off: u64) {
        self.kills += u32::from(self.processes[at].alive);
        if let Some(session) = self.processes[at].session {
            self.session_ends(at, session, worked_off);
        }
        self.processes[at] = Process::default();
    }

    fn session_ends(&mut self, at: usize, session: u64, worked_off: u64) {
        for (index, tag) in std::mem::take(&mut self.processes[at].acks).into_iter().enumerate() {
            if worked_off >> (index % 64) & 1 == 1 {
                self.unsettled.remove(&tag);
            }
        }
        self.lock.take_if(|of| *of == session);
        let back: Vec<u64> = self.unsettled.iter().filter(|(_, (of, _))| *of == session).map(|(tag, _)| *tag).collect();
        for tag in back.into_iter().rev() {
            let Some((_, copy)) = self.unsettled.remove(&tag) else { continue };
            self.returned(at, copy);
        }
    }

    /// What must hold at any time.
    fn check(&self, jobs: usize) -> Result<(), TestCaseError> {
        let faults = self.losses + self.kills;
        // A fault gives back each message, and each round of it whose acknowledgement was on its way.
        let expected = |job: &usize, effect: u32| self.produced.get(job).unwrap_or(&0) * (1 + faults * (effect + 1));
        for job in 0..jobs {
            let waits = self.ready.values().flatten().any(|copy| copy.job == job);
            let held = self.unsettled.values().any(|(_, copy)| copy.job == job);
            prop_assert!(waits || held || self.events.contains_key(&job), "job {job} is lost");
            prop_assert!(
                self.events.get(&job).is_none_or(|events| *events <= expected(&job, STEPS)),
                "job {job} is told too often"
            );
        }
        for ((job, effect), times) in &self.effects {
            prop_assert!(
                *times <= expected(job, *effect),
                "effect {effect} of job {job} happened {times} times, {faults} faults"
            );
        }
        let bound = self.produced.values().sum::<u32>() * (STEPS + 1)
            + (1 + faults + self.given_back) * 8 * u32::try_from(PREFETCH).unwrap() * STEPS;
        prop_assert!(self.published <= bound, "{} publications, expected at most {bound}", self.published);
        for job in &self.convicted {
            // Somebody who kills from outside, or a process that gives back, whatever runs alone, makes it look guilty.
            let looks_guilty = self.kills + self.given_back > 0 && faults + self.given_back >= 6;
            prop_assert!(Some(*job) == self.poison || looks_guilty, "innocent job {job} is convicted");
        }
        Ok(())
    }

    fn is_quiet(&self) -> bool {
        self.ready.values().all(VecDeque::is_empty) && self.unsettled.is_empty()
    }
}

fn part() -> impl Strategy<Value = Part> {
    prop_oneof![Just(Part::Take), Just(Part::Begin), Just(Part::Advance), Just(Part::Advance)]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        30 => (0..3_usize, part()).prop_map(|(process, part)| Op::Work(process, part)),
        4 => (0..3_usize).prop_map(Op::Acknowledge),
        2 => (0..3_usize, any::<u64>()).prop_map(|(process, bits)| Op::Lose(process, bits)),
        1 => (0..3_usize, any::<u64>()).prop_map(|(process, bits)| Op::Kill(process, bits)),
        1 => (0..3_usize).prop_map(Op::GiveBack),
        1 => any::<usize>().prop_map(Op::Produce),
        1 => Just(Op::PublishAgain),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn nothing_is_lost_or_wedged_whatever_sessions_and_processes_do(
        (jobs, processes, exclusive, is_poison) in (1..8_usize, 1..4_usize, any::<bool>(), any::<bool>()),
        ops in prop::collection::vec(op(), 0..250),
    ) {
        let poison = is_poison.then_some(0);
        let mut world = World::new(jobs, processes, exclusive, poison);
        for op in &ops {
            world.apply(op);
            world.check(jobs)?;
        }
        // No more faults, but those that the poison causes.
        world.now += SESSION_LOST_LATELY;
        let mut rounds = 0;
        while !world.is_quiet() {
            rounds += 1;
            prop_assert!(rounds < 400, "not quiet after {rounds} rounds: {:?} {:?}", world.ready, world.unsettled);
            for process in 0..processes {
                for part in [Part::Take, Part::Begin, Part::Advance, Part::Advance] {
                    world.apply(&Op::Work(process, part));
                }
                world.apply(&Op::Acknowledge(process));
            }
            world.check(jobs)?;
        }
        for job in 0..jobs {
            prop_assert!(world.events.contains_key(&job), "job {job} has no event");
            let (produced, answers) = (world.produced[&job] as usize, world.answers[&job]);
            prop_assert!(produced <= answers || world.mistakable.contains(&job), "a message of job {job} never ran");
        }
        if let Some(poison) = poison {
            prop_assert!(world.convicted.contains(&poison) || world.effects.contains_key(&(poison, 0)));
        }
    }
}
