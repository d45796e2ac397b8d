//! One job in the coalescer: what it asked for, how far it is, and what it is told at the end.

use std::{collections::BTreeMap, sync::Arc};

use genfleet_core::{
    error::{ErrorClass, JobError},
    job::JobId,
    trace_context::TraceContext,
};
use tokio::{sync::oneshot, time::Instant};

use super::pack::{Item, JobKey, Line};
use crate::{
    api::Accepted,
    progress::{JobHeaders, Progress},
};

/// What a job asks of the coalescer.
#[derive(Clone, Debug)]
pub struct Order {
    /// Whose.
    pub job: JobId,
    /// The payload's.
    pub paths: Arc<[Arc<str>]>,
    /// What of them is purged already.
    pub progress: Progress,
    /// Where in a trace it is.
    pub trace: Option<TraceContext>,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How far the job is now.
    pub progress: Progress,
    /// HTTP requests sent for it.
    pub requests: u32,
    /// Why it is not done; `None` where all paths are purged.
    pub error: Option<JobError>,
    /// Where in traces the requests are that others had a part in.
    pub shared: Vec<TraceContext>,
}

/// One job in the coalescer.
#[derive(Debug)]
pub struct Entry {
    order: Order,
    requests: u32,
    shared: Vec<TraceContext>,
    /// Requests in flight that carry its paths.
    flying: usize,
    /// Why it ends; it does as soon as nothing of it is in flight.
    ending: Option<JobError>,
    /// Its waiting paths, while the job is suspected and does not travel with others.
    held: Option<Vec<(u32, Arc<str>)>>,
    /// Since when its paths wait; `None` where they are in no hurry.
    pub since: Option<Instant>,
    reply: oneshot::Sender<Outcome>,
}

impl Entry {
    /// A job that has just come.
    pub fn new(order: Order, reply: oneshot::Sender<Outcome>, now: Instant) -> Self {
        Self { order, requests: 0, shared: Vec::new(), flying: 0, ending: None, held: None, since: Some(now), reply }
    }

    /// What it asked for.
    pub fn order(&self) -> &Order {
        &self.order
    }

    /// The paths that are left, all of them.
    pub fn remaining(&self) -> Vec<(u32, Arc<str>)> {
        self.order.progress.remaining().map(|index| self.path(index)).collect()
    }

    /// A path of the payload, as it waits.
    pub fn path(&self, index: u32) -> (u32, Arc<str>) {
        (index, Arc::clone(&self.order.paths[index as usize]))
    }

    /// Whether it is to end, so that no further request carries it.
    pub fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    /// It is to end with `error`. The first reason counts, but for one that says it will never go better.
    pub fn end(&mut self, error: JobError) {
        self.held = None;
        let is_permanent = |error: &JobError| error.class == ErrorClass::Permanent;
        if self.ending.as_ref().is_none_or(|first| is_permanent(&error) && !is_permanent(first)) {
            self.ending = Some(error);
        }
    }

    /// Whether it can be answered.
    pub fn is_over(&self) -> bool {
        self.order.progress.is_complete() || (self.is_ending() && self.flying == 0)
    }

    /// Answers it, with what is known by now.
    pub fn answer(self) {
        let is_complete = self.order.progress.is_complete();
        let error = self.ending.filter(|_| !is_complete);
        // Nobody listens any more where the handler was dropped: then the job comes again.
        let Self { requests, shared, .. } = self;
        let _ = self.reply.send(Outcome { progress: self.order.progress, requests, error, shared });
    }

    /// A request with paths of it goes.
    pub fn departs(&mut self) {
        self.flying += 1;
    }

    /// It came back, after so many HTTP requests.
    pub fn returns(&mut self, requests: u32) {
        self.flying -= 1;
        self.requests += requests;
    }

    /// What an accepted request did for it.
    pub fn accepted(&mut self, share: &Share, shared: bool, accepted: &Accepted) {
        self.shared.extend(accepted.trace.clone().filter(|_| shared));
        self.order.progress.note(&JobHeaders {
            indices: &share.indices,
            rode_along: share.rode_along,
            shared,
            status: accepted.status,
            request_id: accepted.request_id.as_deref(),
        });
    }

    /// Keeps its waiting paths from travelling with others.
    pub fn hold(&mut self, waiting: Vec<(u32, Arc<str>)>) {
        self.held.get_or_insert_default().extend(waiting);
    }

    /// Whether they are kept.
    pub fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Lets them go.
    pub fn release(&mut self) -> Vec<(u32, Arc<str>)> {
        self.held.take().unwrap_or_default()
    }
}

/// What a request carries of one job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Its paths.
    pub indices: Vec<u32>,
    /// How many of them are not in the body themselves.
    pub rode_along: u32,
}

/// What each job has on `lines`.
pub fn shares(lines: &[Line]) -> BTreeMap<JobKey, Share> {
    let mut shares = BTreeMap::<JobKey, Share>::new();
    let mut add = |item: Item, rode_along: u32| {
        let share = shares.entry(item.job).or_default();
        share.indices.push(item.index);
        share.rode_along += rode_along;
    };
    for line in lines {
        for (item, rode_along) in line.carried().zip([0].into_iter().chain(std::iter::repeat(1))) {
            add(item, rode_along);
        }
    }
    shares
}
