//! The requests on their way: sending one, stopping one that a job withdrew from, and what each job has of its answer.
//!
//! A flight is several HTTP requests where the client repeats it, and waits between them. It is stopped (what is in
//! flight is finished, nothing further is begun) as soon as a job on board withdraws, or nobody on board wants more of
//! it. Who stays goes with the next request. So no job waits longer than for the HTTP request in flight, none is sent
//! on behalf of jobs that are gone, and a job that comes again meets nothing of its own that is still on its way.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use genfleet_core::{
    error::JobError,
    metric::{PURGE_BATCH_PATHS, PURGE_PATHS},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    driver::{Done, Driver},
    entry::{Entry, Share, shares},
    pack::{JobKey, Line, jobs_on},
    verdict::CaseId,
};
use crate::api::{Accepted, Cdn, Refusal};

/// What a request is sent for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The paths that wait.
    Pool,
    /// Finding who is guilty.
    Case(CaseId),
}

/// A request on its way.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) lines: Vec<Line>,
    pub(super) purpose: Purpose,
    aboard: BTreeSet<JobKey>,
    stop: CancellationToken,
}

impl<C: Cdn> Driver<C> {
    /// Sends `lines` in a sub-task. Where there are none any more, the permit goes back.
    pub(super) fn send(&mut self, permit: C::Permit, lines: Vec<Line>, purpose: Purpose) {
        if lines.is_empty() {
            return;
        }
        let jobs = jobs_on(&lines);
        for job in &jobs {
            self.entries.entry(*job).and_modify(Entry::departs);
        }
        let stop = CancellationToken::new();
        let (id, cdn, aboard) = (self.new_id(), self.cdn.clone(), self.aboard(jobs.iter().copied(), &stop));
        let paths: Vec<Arc<str>> = lines.iter().map(|line| Arc::clone(&line.path)).collect();
        #[expect(clippy::cast_precision_loss, reason = "at most 100")]
        metrics::histogram!(PURGE_BATCH_PATHS).record(paths.len() as f64);
        self.tasks.spawn(async move { Done::Answer(id, cdn.purge(permit, &paths, &aboard).await) });
        self.flights.insert(id, Flight { lines, purpose, aboard: jobs, stop });
    }

    pub(super) fn answered(&mut self, id: u64, answer: Result<Accepted, Refusal>) {
        let Some(flight) = self.flights.remove(&id) else { return };
        let shares = shares(&flight.lines);
        let requests = answer.as_ref().map_or_else(|refusal| refusal.requests, |accepted| accepted.requests);
        for job in shares.keys() {
            self.entries.entry(*job).and_modify(|entry| entry.returns(requests));
        }
        if shares.len() > 1 {
            self.linger.left_together(Instant::now());
        }
        match answer {
            Ok(accepted) => self.accepted(flight.purpose, &shares, &accepted),
            Err(refusal) => self.refused(flight, shares.into_keys().collect(), refusal),
        }
    }

    /// Notes for every job what the request did for it.
    pub(super) fn note(&mut self, shares: &BTreeMap<JobKey, Share>, accepted: &Accepted) {
        let is_shared = shares.len() > 1;
        for (job, share) in shares {
            self.entries.entry(*job).and_modify(|entry| entry.accepted(share, is_shared, accepted));
        }
        let paths: usize = shares.values().map(|share| share.indices.len()).sum();
        metrics::counter!(PURGE_PATHS).increment(paths as u64);
    }

    /// Lets `job` end as soon as its HTTP requests in flight did.
    pub(super) fn withdraw(&mut self, job: JobKey) {
        self.end(job, JobError::interrupted());
        self.flights.values().filter(|flight| flight.aboard.contains(&job)).for_each(|flight| flight.stop.cancel());
    }

    /// `job` is to end: stops what nobody else is on board of.
    pub(super) fn stop_deserted(&self, job: JobKey) {
        let stays = |job: &JobKey| self.entries.get(job).is_some_and(|entry| !entry.is_ending());
        let of_it = self.flights.values().filter(|flight| flight.aboard.contains(&job));
        of_it.filter(|flight| !flight.aboard.iter().any(stays)).for_each(|flight| flight.stop.cancel());
    }
}
