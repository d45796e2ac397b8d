//! The consequences of a refused request for the jobs on it, and the search for its rejected path. A suspected job does
//! not travel with others until it is cleared.

use std::collections::BTreeSet;

use genfleet_core::error::JobError;
use tokio_util::sync::CancellationToken;

use super::{
    bisection::{Bisection, BisectionStep, remove_jobs},
    investigation::{Investigation, InvestigationId, RefusedLines, Stage},
    pack::{JobKey, PathRef, RequestLine, jobs_on},
    request::{InFlightRequest, RequestPurpose},
    state::CoalescerState,
};

impl CoalescerState {
    /// A half was accepted: the rejected path is in the other one.
    pub(super) fn clear_half(&mut self, purpose: RequestPurpose) {
        let RequestPurpose::Investigation(id) = purpose else { return };
        if let Some(bisection) = self.bisection(id) {
            bisection.note_accepted();
        }
        self.proceed(id);
    }

    /// A request was stopped: its paths go with the next one.
    pub(super) fn resend(&mut self, request: InFlightRequest) {
        let InFlightRequest { mut lines, purpose, .. } = request;
        match purpose {
            RequestPurpose::Pool => self.put_back(items(&lines)),
            RequestPurpose::Investigation(id) => {
                let is_whole = !remove_jobs(&mut lines, |job| self.is_leaving(job));
                if let Some(bisection) = self.bisection(id) {
                    bisection.put_back(lines, is_whole);
                }
                self.proceed(id);
            }
        }
    }

    /// The content of a request was refused: one of its paths is to be found.
    pub(super) fn investigate(&mut self, request: InFlightRequest, error: JobError) {
        let InFlightRequest { mut lines, purpose, .. } = request;
        let covered: Vec<PathRef> = lines.iter_mut().flat_map(|line| std::mem::take(&mut line.covered)).collect();
        self.put_back(covered);
        let is_whole = !remove_jobs(&mut lines, |job| self.is_leaving(job));
        match purpose {
            RequestPurpose::Pool => {
                let id = self.new_id();
                self.open_or_wait(id, RefusedLines { lines, is_whole }, error, Vec::new());
            }
            RequestPurpose::Investigation(id) => {
                let Some(investigation) = self.investigations.get_mut(&id) else { return };
                investigation.error = error;
                let unknown = investigation.bisection().map(|bisection| bisection.note_refused(lines, is_whole));
                self.put_back(items(&unknown.unwrap_or_default()));
                self.proceed(id);
            }
        }
    }

    /// Ends the investigation that a request belonged to, since it failed for another reason.
    pub(super) fn give_up(&mut self, purpose: RequestPurpose) {
        let RequestPurpose::Investigation(id) = purpose else { return };
        let unknown = self.bisection(id).map(Bisection::give_up).unwrap_or_default();
        self.put_back(items(&unknown));
        self.proceed(id);
    }

    /// Begins to look for the rejected path, unless another investigation concerns one of these jobs: then it waits.
    fn open_or_wait(
        &mut self,
        id: InvestigationId,
        refused: RefusedLines,
        error: JobError,
        waiters: Vec<InvestigationId>,
    ) {
        let jobs = jobs_on(&refused.lines);
        // A path that was refused alone needs no search.
        let is_found = refused.is_whole && refused.lines.len() == 1;
        let blocker = jobs.iter().filter(|_| !is_found).find_map(|job| self.find_blocker(*job, id));
        for job in &jobs {
            let waiting = self.take_waiting(*job);
            if let Some(entry) = self.entries.get_mut(job) {
                entry.hold(waiting);
                entry.suspect(id);
            }
        }
        let waiting = |refused| Investigation { stage: Stage::Waiting(refused), error, jobs, waiters };
        if let Some(blocker) = blocker {
            self.investigations.insert(id, waiting(refused));
            self.investigations.entry(blocker).and_modify(|blocker| blocker.waiters.push(id));
            return;
        }
        let RefusedLines { lines, is_whole } = refused;
        let mut investigation = waiting(RefusedLines { lines: Vec::new(), is_whole });
        tracing::info!(
            paths = lines.len(),
            status = investigation.error.status,
            request_id = investigation.error.request_id,
            "a purge was refused: looking for the path"
        );
        let bisection = Bisection::new(lines, is_whole);
        investigation.stage = Stage::Open { bisection, ask: CancellationToken::new() };
        self.investigations.insert(id, investigation);
        self.open_investigations += 1;
        self.proceed(id);
    }

    /// Finds another investigation that concerns `job` and is open or older: so none waits for one that waits for it.
    fn find_blocker(&self, job: JobKey, id: InvestigationId) -> Option<InvestigationId> {
        let entry = self.entries.get(&job)?;
        let blocks = |other: &&InvestigationId| {
            **other != id && (**other < id || self.investigations.get(other).is_some_and(Investigation::is_open))
        };
        entry.suspected_in().iter().find(blocks).copied()
    }

    pub(super) fn proceed(&mut self, id: InvestigationId) {
        let Some(bisection) = self.bisection(id) else { return };
        match bisection.step() {
            BisectionStep::SendHalf => {
                let jobs = bisection.jobs();
                let (_, stop) = self.ask(RequestPurpose::Investigation(id), jobs);
                if let Some(Stage::Open { ask, .. }) = self.investigations.get_mut(&id).map(|found| &mut found.stage) {
                    *ask = stop;
                }
                self.clear_unsuspected(id);
            }
            BisectionStep::Found => {
                let line = bisection.take_rejected();
                let error = self.investigations.get(&id).map(|investigation| investigation.error.clone());
                if let Some((line, error)) = line.zip(error) {
                    self.reject_path(&line, &error);
                }
                self.close(id);
            }
            BisectionStep::Over => self.close(id),
        }
        if self.open_investigations == 0 {
            self.make_all_urgent();
        }
    }

    /// Takes the lines to send with a permit; none if nothing is suspected any more.
    pub(super) fn take_half(&mut self, id: InvestigationId) -> Vec<RequestLine> {
        let Some(bisection) = self.bisection(id) else { return Vec::new() };
        if bisection.step() == BisectionStep::SendHalf {
            return bisection.take_half();
        }
        self.proceed(id);
        Vec::new()
    }

    /// Lists the jobs that are suspected now.
    pub(super) fn suspects(&mut self, id: InvestigationId) -> Vec<JobKey> {
        self.bisection(id).map(|bisection| bisection.jobs().into_iter().collect()).unwrap_or_default()
    }

    /// Fails every job that asked for exactly this path.
    fn reject_path(&mut self, line: &RequestLine, error: &JobError) {
        let mut rejected = error.clone();
        rejected.code = "rejected";
        rejected.message = format!("the API refuses the path {:?}: {}", line.path, error.message);
        rejected.details.insert("path".to_owned(), (&*line.path).into());
        self.end_all(line.items.iter().map(|item| item.job), &rejected);
    }

    /// Removes a job that ends from what it is suspected in.
    pub(super) fn drop_suspect(&mut self, job: JobKey) {
        let Some(entry) = self.entries.get(&job) else { return };
        for id in entry.suspected_in().clone() {
            match self.investigations.get_mut(&id).map(|investigation| &mut investigation.stage) {
                Some(Stage::Open { bisection, ask, .. }) => {
                    bisection.drop_job(job);
                    if bisection.step() == BisectionStep::Over {
                        // A permit is not waited for if nobody is suspected any more.
                        ask.cancel();
                    }
                }
                Some(Stage::Waiting(refused)) => {
                    refused.is_whole &= !remove_jobs(&mut refused.lines, |other| other == job);
                }
                None => {}
            }
        }
    }

    fn close(&mut self, id: InvestigationId) {
        let Some(closed) = self.investigations.remove(&id) else { return };
        self.open_investigations -= 1;
        self.finish(id, closed.jobs, closed.waiters);
    }

    /// Starts the investigations that waited for another one, and clears its jobs.
    fn finish(&mut self, id: InvestigationId, jobs: BTreeSet<JobKey>, waiters: Vec<InvestigationId>) {
        self.clear(id, jobs.iter().copied());
        for waiter in waiters {
            let Some(Investigation { stage: Stage::Waiting(refused), error, jobs, waiters }) =
                self.investigations.remove(&waiter)
            else {
                continue;
            };
            if refused.is_whole {
                self.open_or_wait(waiter, refused, error, waiters);
            } else {
                // A job that left it may have contained the rejected path.
                self.put_back(items(&refused.lines));
                self.finish(waiter, jobs, waiters);
            }
        }
        self.release_cleared(jobs);
    }

    /// Clears the jobs that an open investigation suspects no longer.
    fn clear_unsuspected(&mut self, id: InvestigationId) {
        let suspects = self.bisection(id).map(|bisection| bisection.jobs()).unwrap_or_default();
        let Some(investigation) = self.investigations.get_mut(&id) else { return };
        let before = std::mem::replace(&mut investigation.jobs, suspects.clone());
        let cleared: Vec<JobKey> = before.difference(&suspects).copied().collect();
        self.clear(id, cleared.iter().copied());
        self.release_cleared(cleared);
    }

    fn clear(&mut self, id: InvestigationId, jobs: impl IntoIterator<Item = JobKey>) {
        for job in jobs {
            self.entries.entry(job).and_modify(|entry| entry.clear(id));
        }
    }

    /// Lets jobs that no investigation suspects share requests again.
    fn release_cleared(&mut self, jobs: impl IntoIterator<Item = JobKey>) {
        for job in jobs {
            let Some(entry) = self.entries.get_mut(&job).filter(|entry| entry.is_held()) else { continue };
            if entry.suspected_in().is_empty() {
                let waiting = entry.release();
                self.put_back(waiting.into_iter().map(|(index, _)| PathRef { job, index }));
            }
        }
    }

    fn bisection(&mut self, id: InvestigationId) -> Option<&mut Bisection> {
        self.investigations.get_mut(&id).and_then(Investigation::bisection)
    }
}

fn items(lines: &[RequestLine]) -> impl Iterator<Item = PathRef> + '_ {
    lines.iter().flat_map(RequestLine::contents)
}
