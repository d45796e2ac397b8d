//! A job in the coalescer: its order, its progress and its outcome.

use std::{collections::BTreeSet, sync::Arc};

use genfleet_core::{
    error::{ErrorClass, JobError},
    job::JobId,
    trace_context::TraceContext,
};
use tokio::{sync::oneshot, time::Instant};

use super::{
    investigation::InvestigationId,
    request::{JobShare, RequestId},
    visits,
};
use crate::{
    cdn::PurgeAccepted,
    progress::{AcceptedPaths, PurgeProgress},
};

/// The paths of a job.
#[derive(Clone, Debug)]
pub(crate) struct PurgeOrder {
    pub(crate) job: JobId,
    /// The paths of the payload.
    pub(crate) paths: Arc<[Arc<str>]>,
    /// The paths that are already purged.
    pub(crate) progress: PurgeProgress,
    pub(crate) trace: Option<TraceContext>,
}

/// The end of a job's order.
#[derive(Clone, Debug)]
pub(crate) struct PurgeOutcome {
    pub(crate) progress: PurgeProgress,
    /// HTTP requests sent for it.
    pub(crate) requests: u32,
    /// The reason why it failed; `None` if all paths are purged.
    pub(crate) error: Option<JobError>,
    /// The trace contexts of the requests that it shared.
    pub(crate) shared: Vec<TraceContext>,
}

#[derive(Debug)]
pub(super) struct JobEntry {
    order: PurgeOrder,
    requests: u32,
    shared: Vec<TraceContext>,
    /// The requests in flight with its paths.
    in_flight: BTreeSet<RequestId>,
    /// The reason why it ends, as soon as none of its requests is in flight.
    ending: Option<JobError>,
    /// The investigations that suspect it.
    suspected_in: BTreeSet<InvestigationId>,
    /// Its waiting paths, while it is suspected and shares no requests.
    held: Option<Vec<(u32, Arc<str>)>>,
    /// Time since which its paths wait; `None` if they are not urgent.
    pub(super) waiting_since: Option<Instant>,
    reply: oneshot::Sender<PurgeOutcome>,
}

impl JobEntry {
    pub(super) fn new(order: PurgeOrder, reply: oneshot::Sender<PurgeOutcome>, now: Instant) -> Self {
        Self {
            order,
            requests: 0,
            shared: Vec::new(),
            in_flight: BTreeSet::new(),
            ending: None,
            suspected_in: BTreeSet::new(),
            held: None,
            waiting_since: Some(now),
            reply,
        }
    }

    pub(super) fn order(&self) -> &PurgeOrder {
        visits::count();
        &self.order
    }

    pub(super) fn remaining(&self) -> Vec<(u32, Arc<str>)> {
        self.order.progress.remaining().map(|index| self.path(index)).collect()
    }

    /// Returns a path of the payload in its waiting form.
    pub(super) fn path(&self, index: u32) -> (u32, Arc<str>) {
        (index, Arc::clone(&self.order.paths[index as usize]))
    }

    /// Returns true if it is to end, so that no further request carries it.
    pub(super) fn is_ending(&self) -> bool {
        visits::count();
        self.ending.is_some()
    }

    /// Lets it end with `error`. The first reason counts, unless a later one is permanent. True if it is the first.
    pub(super) fn end(&mut self, error: JobError) -> bool {
        visits::count();
        self.held = None;
        let is_permanent = |error: &JobError| error.class == ErrorClass::Permanent;
        let is_first = self.ending.is_none();
        if self.ending.as_ref().is_none_or(|first| is_permanent(&error) && !is_permanent(first)) {
            self.ending = Some(error);
        }
        is_first
    }

    pub(super) fn is_over(&self) -> bool {
        visits::count();
        self.order.progress.is_complete() || (self.ending.is_some() && self.in_flight.is_empty())
    }

    pub(super) fn answer(self) {
        let is_complete = self.order.progress.is_complete();
        let error = self.ending.filter(|_| !is_complete);
        // The receiver may be gone if the handler was dropped. Then the job is redelivered.
        let Self { requests, shared, .. } = self;
        let _ = self.reply.send(PurgeOutcome { progress: self.order.progress, requests, error, shared });
    }

    pub(super) fn begin_request(&mut self, id: RequestId) {
        visits::count();
        self.in_flight.insert(id);
    }

    /// Records that a request ended, after so many HTTP requests.
    pub(super) fn end_request(&mut self, id: RequestId, requests: u32) {
        visits::count();
        self.in_flight.remove(&id);
        self.requests += requests;
    }

    pub(super) fn in_flight(&self) -> impl Iterator<Item = RequestId> + '_ {
        self.in_flight.iter().copied()
    }

    /// Records the paths that an accepted request purged for it.
    pub(super) fn note_accepted(&mut self, share: &JobShare, is_shared: bool, accepted: &PurgeAccepted) {
        visits::count();
        self.shared.extend(accepted.trace.clone().filter(|_| is_shared));
        self.order.progress.note(&AcceptedPaths {
            indices: &share.indices,
            covered: share.covered,
            shared: is_shared,
            status: &accepted.status,
            request_ids: &accepted.request_ids,
        });
    }

    /// Removes its waiting paths from shared requests.
    pub(super) fn hold(&mut self, waiting: Vec<(u32, Arc<str>)>) {
        visits::count();
        self.held.get_or_insert_default().extend(waiting);
    }

    pub(super) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    pub(super) fn release(&mut self) -> Vec<(u32, Arc<str>)> {
        visits::count();
        self.held.take().unwrap_or_default()
    }

    pub(super) fn suspected_in(&self) -> &BTreeSet<InvestigationId> {
        visits::count();
        &self.suspected_in
    }

    pub(super) fn suspect(&mut self, id: InvestigationId) {
        visits::count();
        self.suspected_in.insert(id);
    }

    pub(super) fn clear(&mut self, id: InvestigationId) {
        visits::count();
        self.suspected_in.remove(&id);
    }
}
