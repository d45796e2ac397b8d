//! The coalescer's task: takes orders, asks for permits when a request is due, has sent what is packed at the moment
//! the permit comes, answers the jobs that are over. Decides nothing itself.

use std::{
    collections::{BTreeMap, HashMap},
    future::pending,
    time::Duration,
};

use genfleet_core::{error::JobError, trace_context};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    Command,
    entry::Entry,
    flight::{Flight, Purpose},
    linger::{Due, Linger, Waiting},
    pack::{Item, JobKey, Pool, Sharing},
    split::Step,
    verdict::{Case, CaseId, Refused},
};
use crate::api::{Aboard, Accepted, Cdn, Refusal};

/// Shared requests in flight at once.
const MAX_FLIGHTS: usize = 16;

/// What a sub-task comes back with.
pub(super) enum Done<P> {
    Permit(Purpose, Result<P, JobError>),
    Answer(u64, Result<Accepted, Refusal>),
}

/// The coalescer's task and its books.
pub(super) struct Driver<C: Cdn> {
    pub(super) cdn: C,
    commands: mpsc::UnboundedReceiver<Command>,
    pub(super) tasks: JoinSet<Done<C::Permit>>,
    pub(super) linger: Linger,
    pub(super) pool: Pool,
    pub(super) entries: BTreeMap<JobKey, Entry>,
    pub(super) flights: HashMap<u64, Flight>,
    pub(super) cases: BTreeMap<CaseId, Case>,
    /// Refused requests with a job that another case is about.
    pub(super) parked: Vec<Refused>,
    /// Stops the waiting for a permit for the pool, where there is any.
    asking: Option<CancellationToken>,
    next_id: u64,
}

impl<C: Cdn> Driver<C> {
    pub(super) fn new(cdn: C, linger: Duration, commands: mpsc::UnboundedReceiver<Command>) -> Self {
        let sharing = if linger.is_zero() { Sharing::Apart } else { Sharing::Shared };
        Self {
            cdn,
            commands,
            tasks: JoinSet::new(),
            linger: Linger::new(linger, Instant::now()),
            pool: Pool::new(sharing),
            entries: BTreeMap::new(),
            flights: HashMap::new(),
            cases: BTreeMap::new(),
            parked: Vec::new(),
            asking: None,
            next_id: 0,
        }
    }

    /// Ends only where a sub-task panicked.
    pub(super) async fn run(mut self) {
        loop {
            let now = Instant::now();
            let alarm = self.ask_when_due(now);
            tokio::select! {
                Some(command) = self.commands.recv() => self.obey_all(command),
                Some(done) = self.tasks.join_next() => match done {
                    Ok(Done::Permit(purpose, permit)) => self.permitted(purpose, permit),
                    Ok(Done::Answer(flight, answer)) => self.answered(flight, answer),
                    Err(error) => return tracing::error!(%error, "a request of the coalescer did not end"),
                },
                () = sleep_until(alarm.unwrap_or(now)), if alarm.is_some() => {}
                else => pending().await,
            }
            self.answer_those_over();
            self.stop_asking_for_nobody();
        }
    }

    /// Asks for a permit where a request is due; else says when one will be.
    fn ask_when_due(&mut self, now: Instant) -> Option<Instant> {
        let flights = self.flights.values().filter(|flight| flight.purpose == Purpose::Pool).count();
        if self.asking.is_some() || flights >= MAX_FLIGHTS {
            return None;
        }
        let since = |job| self.entries.get(&job)?.since;
        let oldest = self.pool.jobs().filter_map(since).min();
        let waiting = Waiting { distinct: self.pool.distinct(), jobs: self.entries.len(), oldest };
        match self.linger.due(waiting, now) {
            Due::Now => {
                let jobs: Vec<_> = self.pool.jobs().collect();
                self.asking = Some(self.ask(Purpose::Pool, jobs));
                None
            }
            Due::At(then) => Some(then),
            Due::Open => None,
        }
    }

    /// Waits for a permit in a sub-task, until the token is cancelled.
    pub(super) fn ask(&mut self, purpose: Purpose, jobs: impl IntoIterator<Item = JobKey>) -> CancellationToken {
        let stop = CancellationToken::new();
        let (cdn, aboard) = (self.cdn.clone(), self.aboard(jobs, &stop));
        self.tasks.spawn(async move { Done::Permit(purpose, cdn.permit(&aboard).await) });
        stop
    }

    /// A permit that others asked for serves whoever waits when it comes; where nobody does, none is waited for.
    fn stop_asking_for_nobody(&self) {
        if let Some(asking) = self.asking.as_ref().filter(|_| self.pool.is_empty()) {
            asking.cancel();
        }
        self.cases.values().filter(|case| case.split.step() == Step::Over).for_each(|case| case.asking.cancel());
    }

    fn permitted(&mut self, purpose: Purpose, permit: Result<C::Permit, JobError>) {
        match (purpose, permit) {
            (Purpose::Pool, permit) => {
                let is_stopped = self.asking.take().is_some_and(|asking| asking.is_cancelled());
                match permit {
                    Ok(permit) => {
                        let lines = self.pool.pack();
                        self.send(permit, lines, purpose);
                    }
                    // Who came since asks anew.
                    Err(_) if is_stopped => {}
                    Err(error) => self.end_all(self.pool.jobs().collect(), &error),
                }
            }
            (Purpose::Case(id), Ok(permit)) => match self.next_half(id) {
                Some(lines) => self.send(permit, lines, purpose),
                None => self.go_on(id),
            },
            (Purpose::Case(id), Err(error)) => {
                self.end_all(self.suspects_of(id), &error);
                self.go_on(id);
            }
        }
    }

    pub(super) fn aboard(&self, jobs: impl IntoIterator<Item = JobKey>, stop: &CancellationToken) -> Aboard {
        let orders: Vec<_> = jobs.into_iter().filter_map(|job| self.entries.get(&job)).map(Entry::order).collect();
        Aboard {
            traces: trace_context::merge_contexts(orders.iter().filter_map(|order| order.trace.clone())),
            jobs: orders.into_iter().map(|order| order.job.clone()).collect(),
            stop: stop.clone(),
        }
    }

    fn obey_all(&mut self, first: Command) {
        self.obey(first);
        while let Ok(command) = self.commands.try_recv() {
            self.obey(command);
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Submit { key, order, reply } => {
                let now = Instant::now();
                let entry = Entry::new(order, reply, now);
                self.pool.add(key, entry.remaining());
                self.entries.insert(key, entry);
                self.linger.arrived(now);
            }
            Command::Withdraw(key) => self.withdraw(key),
            Command::Leave(key) => {
                self.withdraw(key);
                self.answer(key);
            }
        }
    }

    fn answer_those_over(&mut self) {
        let over: Vec<_> = self.entries.iter().filter(|(_, entry)| entry.is_over()).map(|(job, _)| *job).collect();
        for job in over {
            self.answer(job);
        }
    }

    fn answer(&mut self, job: JobKey) {
        if let Some(entry) = self.entries.remove(&job) {
            entry.answer();
        }
    }

    /// Lets paths wait (again), with their job where it is held.
    pub(super) fn put_back(&mut self, items: impl IntoIterator<Item = Item>) {
        // In a hurry only where no case goes on: what it still releases shall go with these.
        let since = self.cases.is_empty().then(Instant::now);
        for item in items {
            let Some(entry) = self.entries.get_mut(&item.job).filter(|entry| !entry.is_ending()) else { continue };
            let path = entry.path(item.index);
            if entry.is_held() {
                entry.hold(vec![path]);
                continue;
            }
            if !self.pool.has(item.job) {
                entry.since = since;
            }
            self.pool.add(item.job, [path]);
        }
    }

    pub(super) fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}
