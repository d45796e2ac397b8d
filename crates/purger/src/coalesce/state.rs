//! The state of the coalescer: its jobs, their waiting paths, the permits asked for, the requests in flight, and the
//! investigations. Without I/O, which is the driver's. Everything is found by id or in a queue, so that an
//! event costs what it touches, however many jobs there are.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use genfleet_core::{
    error::JobError,
    metric::{PURGE_BATCH_PATHS, PURGE_PATHS},
    trace_context::TraceContext,
};
use tokio::{sync::oneshot, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    entry::{JobEntry, PurgeOrder, PurgeOutcome},
    investigation::{Investigation, InvestigationId},
    linger::{CloseTime, Linger, WaitingPaths},
    pack::{JobKey, PathPool, PathRef, RequestLine, Sharing, jobs_on},
    request::{InFlightRequest, JobShare, RequestId, RequestPurpose},
};
use crate::cdn::{Capacity, PurgeAccepted, RequestContext};

pub(super) type AskId = u64;

/// Maximum number of permits that are requested at the same time.
const MAX_ASKS: usize = 256;

#[derive(Debug)]
pub(super) struct PermitAsk {
    pub(super) id: AskId,
    pub(super) purpose: RequestPurpose,
    pub(super) context: RequestContext,
}

#[derive(Debug)]
pub(super) struct OutgoingRequest {
    pub(super) id: RequestId,
    pub(super) paths: Vec<Arc<str>>,
    pub(super) context: RequestContext,
}

#[derive(Debug)]
pub(super) struct CoalescerState {
    linger: Linger,
    pub(super) pool: PathPool,
    pub(super) entries: HashMap<JobKey, JobEntry>,
    /// The jobs in the pool whose paths are urgent, the one that has waited longest first.
    urgent: BTreeSet<(Instant, JobKey)>,
    not_urgent: BTreeSet<JobKey>,
    /// Jobs that may have ended since the last event.
    maybe_over: Vec<JobKey>,
    /// Permits that are requested for waiting paths, and the turn up to which they are requested.
    asks: BTreeMap<AskId, CancellationToken>,
    asked_until: Option<u64>,
    /// Permits that have to be requested.
    new_asks: Vec<PermitAsk>,
    pub(super) requests: HashMap<RequestId, InFlightRequest>,
    pub(super) investigations: BTreeMap<InvestigationId, Investigation>,
    pub(super) open_investigations: usize,
    next_id: u64,
}

impl CoalescerState {
    pub(super) fn new(capacity: Capacity, linger: Duration, now: Instant) -> Self {
        let sharing = if linger.is_zero() { Sharing::Apart } else { Sharing::Shared };
        Self {
            linger: Linger::new(capacity.paths, linger, now),
            pool: PathPool::new(sharing, capacity),
            entries: HashMap::new(),
            urgent: BTreeSet::new(),
            not_urgent: BTreeSet::new(),
            maybe_over: Vec::new(),
            asks: BTreeMap::new(),
            asked_until: None,
            new_asks: Vec::new(),
            requests: HashMap::new(),
            investigations: BTreeMap::new(),
            open_investigations: 0,
            next_id: 0,
        }
    }

    pub(super) fn submit(&mut self, job: JobKey, order: PurgeOrder, reply: oneshot::Sender<PurgeOutcome>) {
        let now = Instant::now();
        let entry = JobEntry::new(order, reply, now);
        let remaining = entry.remaining();
        self.entries.insert(job, entry);
        self.add_to_pool(job, remaining, Some(now));
        self.maybe_over.push(job);
        self.linger.note_arrival(now);
    }

    /// Ends `job` as soon as its HTTP requests in flight have ended.
    pub(super) fn withdraw(&mut self, job: JobKey) {
        self.end(job, JobError::interrupted());
        let Some(entry) = self.entries.get(&job) else { return };
        entry.in_flight().filter_map(|id| self.requests.get(&id)).for_each(InFlightRequest::stop);
    }

    pub(super) fn leave(&mut self, job: JobKey) {
        self.withdraw(job);
        self.answer(job);
    }

    /// Ends `job` with `error` as soon as its requests in flight have ended. No further request contains it.
    pub(super) fn end(&mut self, job: JobKey, error: JobError) {
        self.take_waiting(job);
        let Some(entry) = self.entries.get_mut(&job) else { return };
        if entry.end(error) {
            for id in entry.in_flight() {
                if let Some(request) = self.requests.get_mut(&id) {
                    request.lose_job();
                }
            }
        }
        self.maybe_over.push(job);
        self.drop_suspect(job);
    }

    pub(super) fn end_all(&mut self, jobs: impl IntoIterator<Item = JobKey>, error: &JobError) {
        for job in jobs {
            self.end(job, error.clone());
        }
    }

    pub(super) fn answer_finished(&mut self) {
        for job in std::mem::take(&mut self.maybe_over) {
            if self.entries.get(&job).is_some_and(JobEntry::is_over) {
                self.answer(job);
            }
        }
    }

    fn answer(&mut self, job: JobKey) {
        self.take_waiting(job);
        if let Some(entry) = self.entries.remove(&job) {
            entry.answer();
        }
    }

    /// Returns true if no further request takes `job` along.
    pub(super) fn is_leaving(&self, job: JobKey) -> bool {
        self.entries.get(&job).is_none_or(JobEntry::is_ending)
    }

    /// Adds paths of `job` to the pool. If none of them is there yet, they wait `since` then, or are not urgent.
    fn add_to_pool(&mut self, job: JobKey, paths: Vec<(u32, Arc<str>)>, since: Option<Instant>) {
        if paths.is_empty() {
            return;
        }
        let Some(entry) = self.entries.get_mut(&job) else { return };
        if !self.pool.has(job) {
            entry.waiting_since = since;
            match since {
                Some(since) => self.urgent.insert((since, job)),
                None => self.not_urgent.insert(job),
            };
        }
        self.pool.add(job, paths);
    }

    pub(super) fn take_waiting(&mut self, job: JobKey) -> Vec<(u32, Arc<str>)> {
        let waiting = self.pool.remove(job);
        self.remove_from_waiting(job);
        waiting
    }

    fn remove_from_waiting(&mut self, job: JobKey) {
        if self.pool.has(job) {
            return;
        }
        match self.entries.get(&job).and_then(|entry| entry.waiting_since) {
            Some(since) => self.urgent.remove(&(since, job)),
            None => self.not_urgent.remove(&job),
        };
    }

    /// Lets paths wait again: in the pool, or with their job while it is held.
    pub(super) fn put_back(&mut self, items: impl IntoIterator<Item = PathRef>) {
        // Not urgent during an investigation, so that they share a request with the paths that it releases.
        let since = (self.open_investigations == 0).then(Instant::now);
        for PathRef { job, index } in items {
            let Some(entry) = self.entries.get_mut(&job).filter(|entry| !entry.is_ending()) else { continue };
            let path = entry.path(index);
            if entry.is_held() {
                entry.hold(vec![path]);
            } else {
                self.add_to_pool(job, vec![path], since);
            }
        }
    }

    /// Makes all waiting paths urgent, because no investigation is open any more.
    pub(super) fn make_all_urgent(&mut self) {
        let now = Instant::now();
        for job in std::mem::take(&mut self.not_urgent) {
            if let Some(entry) = self.entries.get_mut(&job) {
                entry.waiting_since = Some(now);
                self.urgent.insert((now, job));
            }
        }
    }

    /// Requests one permit for each request that is due, and withdraws requests for permits that no job needs any more.
    /// Returns when the next request will be due, if none is.
    pub(super) fn ask_when_due(&mut self, now: Instant) -> Option<Instant> {
        let oldest = self.urgent.first().map(|(since, _)| *since);
        let waiting = WaitingPaths { distinct: self.pool.distinct(), jobs: self.entries.len(), oldest };
        let close_time = self.linger.close_time(waiting, now);
        let due = if close_time == CloseTime::Now { self.pool.full_requests().clamp(1, MAX_ASKS) } else { 0 };
        while self.asks.len() < due {
            self.ask_for_pool();
        }
        // A requested permit serves the paths that wait when it arrives.
        let wanted = due.max(usize::from(!self.pool.is_empty()));
        while self.asks.len() > wanted {
            if let Some((_, stop)) = self.asks.pop_last() {
                stop.cancel();
            }
        }
        match close_time {
            CloseTime::At(then) if self.asks.is_empty() => Some(then),
            CloseTime::At(_) | CloseTime::Now | CloseTime::Open => None,
        }
    }

    fn ask_for_pool(&mut self) {
        if self.asks.is_empty() {
            self.asked_until = None;
        }
        let (jobs, last) = self.pool.jobs_of_next_request(self.asked_until);
        self.asked_until = last;
        let (id, stop) = self.ask(RequestPurpose::Pool, jobs);
        self.asks.insert(id, stop);
    }

    pub(super) fn ask(
        &mut self,
        purpose: RequestPurpose,
        jobs: impl IntoIterator<Item = JobKey>,
    ) -> (AskId, CancellationToken) {
        let (id, stop) = (self.new_id(), CancellationToken::new());
        let context = self.context(jobs, stop.clone());
        self.new_asks.push(PermitAsk { id, purpose, context });
        (id, stop)
    }

    pub(super) fn take_new_asks(&mut self) -> Vec<PermitAsk> {
        std::mem::take(&mut self.new_asks)
    }

    /// Packs a request for a permit that was given; `None` if nobody needs it any more.
    pub(super) fn begin_request(&mut self, ask: AskId, purpose: RequestPurpose) -> Option<OutgoingRequest> {
        let lines = match purpose {
            RequestPurpose::Pool => {
                // A permit that is no longer asked for is returned.
                self.asks.remove(&ask)?;
                self.pack()
            }
            RequestPurpose::Investigation(id) => self.take_half(id),
        };
        if lines.is_empty() {
            return None;
        }
        let id = self.new_id();
        let request = InFlightRequest::new(lines, purpose);
        let jobs = request.jobs();
        for job in &jobs {
            self.entries.entry(*job).and_modify(|entry| entry.begin_request(id));
        }
        let context = self.context(jobs, request.stop_token());
        let paths: Vec<Arc<str>> = request.lines.iter().map(|line| Arc::clone(&line.path)).collect();
        #[expect(clippy::cast_precision_loss, reason = "at most some thousands")]
        metrics::histogram!(PURGE_BATCH_PATHS).record(paths.len() as f64);
        self.requests.insert(id, request);
        Some(OutgoingRequest { id, paths, context })
    }

    fn pack(&mut self) -> Vec<RequestLine> {
        let lines = self.pool.pack();
        for job in jobs_on(&lines) {
            self.remove_from_waiting(job);
        }
        lines
    }

    /// Ends the jobs that wait for a permit that is not given.
    pub(super) fn refuse_permit(&mut self, ask: AskId, purpose: RequestPurpose, error: &JobError) {
        match purpose {
            RequestPurpose::Pool => {
                // Jobs that were added after a cancelled request need a new one.
                if self.asks.remove(&ask).is_some() {
                    let waiting: Vec<_> = self.pool.jobs().collect();
                    self.end_all(waiting, error);
                }
            }
            RequestPurpose::Investigation(id) => {
                let suspects = self.suspects(id);
                self.end_all(suspects, error);
                self.proceed(id);
            }
        }
    }

    /// Takes a request that ended after so many HTTP requests, and the part of each job.
    pub(super) fn end_request(
        &mut self,
        id: RequestId,
        requests: u32,
    ) -> Option<(InFlightRequest, BTreeMap<JobKey, JobShare>)> {
        let request = self.requests.remove(&id)?;
        let shares = super::request::shares(&request.lines);
        for job in shares.keys() {
            self.entries.entry(*job).and_modify(|entry| entry.end_request(id, requests));
            self.maybe_over.push(*job);
        }
        if shares.len() > 1 {
            self.linger.note_shared_end(Instant::now());
        }
        Some((request, shares))
    }

    /// Records for every job the paths that an accepted request purged.
    pub(super) fn note_accepted(&mut self, shares: &BTreeMap<JobKey, JobShare>, accepted: &PurgeAccepted) {
        let is_shared = shares.len() > 1;
        for (job, share) in shares {
            self.entries.entry(*job).and_modify(|entry| entry.note_accepted(share, is_shared, accepted));
        }
        let paths: usize = shares.values().map(|share| share.indices.len()).sum();
        metrics::counter!(PURGE_PATHS).increment(paths as u64);
    }

    fn context(&self, jobs: impl IntoIterator<Item = JobKey>, stop: CancellationToken) -> RequestContext {
        let orders: Vec<_> = jobs.into_iter().filter_map(|job| self.entries.get(&job)).map(JobEntry::order).collect();
        RequestContext {
            traces: merge_contexts(orders.iter().filter_map(|order| order.trace.clone())),
            jobs: orders.into_iter().map(|order| order.job.clone()).collect(),
            stop,
        }
    }

    pub(super) fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

/// Merges the contexts of several jobs for work that is done for all of them: each once, the sampled ones first,
/// because the first becomes the parent of the work's span and an unsampled parent would drop it.
fn merge_contexts(contexts: impl IntoIterator<Item = TraceContext>) -> Vec<TraceContext> {
    let mut all: Vec<TraceContext> = Vec::new();
    for context in contexts {
        if !all.contains(&context) {
            all.push(context);
        }
    }
    all.sort_by_key(|context| !context.is_sampled());
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_places_a_kept_one_comes_first_and_each_once() {
        let place = |digit: &str, flags: &str| {
            TraceContext::parse(&format!("00-{}-b7ad6b7169203331-{flags}", digit.repeat(32)), None).unwrap()
        };
        let all = [place("1", "00"), place("2", "01"), place("1", "00"), place("3", "01")];
        assert_eq!(merge_contexts(all), [place("2", "01"), place("3", "01"), place("1", "00")]);
    }
}
