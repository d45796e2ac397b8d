//! What an answer means to each job on board, and the cases: one for every refused request whose guilty path is
//! being looked for. A job under suspicion does not travel with others until it is cleared, and at most one case
//! is about it, so that one guilty job spoils few requests.

use std::collections::BTreeMap;

use genfleet_core::error::JobError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    driver::Driver,
    entry::{Entry, Share},
    flight::{Flight, Purpose},
    pack::{Item, JobKey, Line, jobs_on},
    split::{Split, Step, without},
};
use crate::api::{Accepted, Cdn, Refusal, RefusedFor};

/// Names a case.
pub(super) type CaseId = u64;

/// One refused request under investigation. There is always either a permit being waited for or a half in flight.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) split: Split,
    /// Stops the waiting for a permit.
    pub(super) asking: CancellationToken,
    /// The last refusal.
    error: JobError,
}

/// A request whose content was refused, without what it merely covered.
#[derive(Debug)]
pub(super) struct Refused {
    lines: Vec<Line>,
    /// Whether these are all its lines.
    is_whole: bool,
    error: JobError,
}

impl<C: Cdn> Driver<C> {
    pub(super) fn accepted(&mut self, purpose: Purpose, shares: &BTreeMap<JobKey, Share>, accepted: &Accepted) {
        self.note(shares, accepted);
        if let Purpose::Case(id) = purpose {
            self.cases.entry(id).and_modify(|case| case.split.accepted());
            self.go_on(id);
        }
    }

    pub(super) fn refused(&mut self, flight: Flight, jobs: Vec<JobKey>, refusal: Refusal) {
        match refusal.with {
            RefusedFor::Content => return self.content_refused(flight, refusal.error),
            RefusedFor::Nothing => return self.stopped(flight),
            RefusedFor::Permission => {
                for job in jobs {
                    let Some(entry) = self.entries.get(&job) else { continue };
                    let error = self.cdn.forbidden(&refusal.error, &entry.order().job);
                    self.end(job, error);
                }
            }
            RefusedFor::Another => self.end_all(jobs, &refusal.error),
        }
        if let Purpose::Case(id) = flight.purpose {
            self.give_up(id);
        }
    }

    /// Who stays goes with the next request.
    fn stopped(&mut self, flight: Flight) {
        let Flight { mut lines, purpose, .. } = flight;
        match purpose {
            Purpose::Pool => self.put_back(items(&lines)),
            Purpose::Case(id) => {
                let is_whole = !without(&mut lines, |job| self.is_gone(job));
                if let Some(case) = self.cases.get_mut(&id) {
                    case.split.returned(lines, is_whole);
                }
                self.go_on(id);
            }
        }
    }

    fn content_refused(&mut self, flight: Flight, error: JobError) {
        let Flight { mut lines, purpose, .. } = flight;
        let covered: Vec<Item> = lines.iter_mut().flat_map(|line| std::mem::take(&mut line.covered)).collect();
        self.put_back(covered);
        let is_whole = !without(&mut lines, |job| self.is_gone(job));
        match purpose {
            Purpose::Pool => self.open(Refused { lines, is_whole, error }),
            Purpose::Case(id) => {
                let Some(case) = self.cases.get_mut(&id) else { return };
                case.error = error;
                let unjudged = case.split.rejected(lines, is_whole);
                self.put_back(items(&unjudged));
                self.go_on(id);
            }
        }
    }

    /// Begins to look for the guilty path, unless a case about one of these jobs goes on.
    fn open(&mut self, refused: Refused) {
        let jobs = jobs_on(&refused.lines);
        let is_clear = refused.is_whole && refused.lines.len() == 1;
        let is_parked = !is_clear && jobs.iter().any(|job| self.is_suspected(*job));
        for job in jobs {
            let waiting = self.pool.remove(job);
            self.entries.entry(job).and_modify(|entry| entry.hold(waiting));
        }
        if is_parked {
            return self.parked.push(refused);
        }
        let id = self.new_id();
        let Refused { lines, is_whole, error } = refused;
        tracing::info!(
            paths = lines.len(),
            status = error.status,
            request_id = error.request_id,
            "a purge was refused: looking for the path"
        );
        self.cases.insert(id, Case { split: Split::new(lines, is_whole), asking: CancellationToken::new(), error });
        self.go_on(id);
    }

    /// The case's next step.
    pub(super) fn go_on(&mut self, id: CaseId) {
        let Some(case) = self.cases.get_mut(&id) else { return };
        match case.split.step() {
            Step::Ask => {
                let asking = self.ask(Purpose::Case(id), self.suspects_of(id));
                self.cases.entry(id).and_modify(|case| case.asking = asking);
            }
            Step::Guilty => {
                let (line, error) = (case.split.take_guilty(), case.error.clone());
                if let Some(line) = line {
                    self.condemn(&line, &error);
                }
                self.close(id);
            }
            Step::Over => self.close(id),
        }
        self.release_cleared();
    }

    /// What to send now, where the case still has suspects.
    pub(super) fn next_half(&mut self, id: CaseId) -> Option<Vec<Line>> {
        let case = self.cases.get_mut(&id)?;
        (case.split.step() == Step::Ask).then(|| case.split.take_half())
    }

    pub(super) fn suspects_of(&self, id: CaseId) -> Vec<JobKey> {
        self.cases.get(&id).map(|case| case.split.jobs().into_iter().collect()).unwrap_or_default()
    }

    /// Every job that asked for exactly this path fails.
    fn condemn(&mut self, line: &Line, error: &JobError) {
        let mut told = error.clone();
        told.code = "rejected";
        told.message = format!("the API refuses the path {:?}: {}", line.path, error.message);
        told.details.insert("path".to_owned(), (&*line.path).into());
        self.end_all(line.items.iter().map(|item| item.job).collect(), &told);
    }

    fn give_up(&mut self, id: CaseId) {
        let unjudged = self.cases.get_mut(&id).map(|case| case.split.give_up()).unwrap_or_default();
        self.put_back(items(&unjudged));
        self.go_on(id);
    }

    fn close(&mut self, id: CaseId) {
        self.cases.remove(&id);
        for refused in std::mem::take(&mut self.parked) {
            if refused.is_whole {
                self.open(refused);
            } else {
                // Who left it may well have been the guilty one.
                self.put_back(items(&refused.lines));
            }
        }
    }

    /// Lets jobs travel again that no case is about. Once no case goes on at all, nobody waits for one.
    fn release_cleared(&mut self) {
        let held: Vec<_> = self.entries.iter().filter(|(_, entry)| entry.is_held()).map(|(job, _)| *job).collect();
        for job in held.into_iter().filter(|job| !self.is_suspected(*job)).collect::<Vec<_>>() {
            let waiting = self.entries.get_mut(&job).map(Entry::release).unwrap_or_default();
            self.put_back(waiting.into_iter().map(|(index, _)| Item { job, index }));
        }
        if self.cases.is_empty() {
            let now = Instant::now();
            for entry in self.entries.values_mut() {
                entry.since.get_or_insert(now);
            }
        }
    }

    fn is_gone(&self, job: JobKey) -> bool {
        self.entries.get(&job).is_none_or(Entry::is_ending)
    }

    fn is_suspected(&self, job: JobKey) -> bool {
        let asked_for = self.flights.values().filter(|flight| matches!(flight.purpose, Purpose::Case(_)));
        self.cases.values().any(|case| case.split.suspects(job))
            || self
                .parked
                .iter()
                .map(|refused| &refused.lines)
                .chain(asked_for.map(|flight| &flight.lines))
                .any(|lines| items(lines).any(|item| item.job == job))
    }

    pub(super) fn end_all(&mut self, jobs: Vec<JobKey>, error: &JobError) {
        for job in jobs {
            self.end(job, error.clone());
        }
    }

    /// Lets `job` end with `error` once its requests on their way did; no further one takes it along.
    pub(super) fn end(&mut self, job: JobKey, error: JobError) {
        let Some(entry) = self.entries.get_mut(&job) else { return };
        entry.end(error);
        self.pool.remove(job);
        for case in self.cases.values_mut() {
            case.split.drop_job(job);
        }
        for refused in &mut self.parked {
            refused.is_whole &= !without(&mut refused.lines, |other| other == job);
        }
        self.stop_deserted(job);
    }
}

fn items(lines: &[Line]) -> impl Iterator<Item = Item> + '_ {
    lines.iter().flat_map(Line::carried)
}
