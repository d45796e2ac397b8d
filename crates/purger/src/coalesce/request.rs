//! A request in flight, and the share of each job in it.
//!
//! It is several HTTP requests if the client repeats it, and waits between them. It is stopped (the HTTP request in
//! flight is finished, no further one is begun) as soon as one of its jobs withdraws, or none of them wants more of it.
//! The other jobs go with the next request. So no job waits longer than for the HTTP request in flight, none is sent
//! for jobs that are gone, and a job that comes again meets nothing of its own that is still on its way.

use std::collections::{BTreeMap, BTreeSet};

use tokio_util::sync::CancellationToken;

use super::{
    investigation::InvestigationId,
    pack::{JobKey, PathRef, RequestLine, jobs_on},
    visits,
};

pub(super) type RequestId = u64;

/// The purpose of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestPurpose {
    Pool,
    /// Finding the rejected path of a refused request.
    Investigation(InvestigationId),
}

#[derive(Debug)]
pub(super) struct InFlightRequest {
    pub(super) lines: Vec<RequestLine>,
    pub(super) purpose: RequestPurpose,
    /// The number of its jobs that continue.
    staying: usize,
    stop: CancellationToken,
}

impl InFlightRequest {
    pub(super) fn new(lines: Vec<RequestLine>, purpose: RequestPurpose) -> Self {
        let staying = jobs_on(&lines).len();
        Self { lines, purpose, staying, stop: CancellationToken::new() }
    }

    pub(super) fn jobs(&self) -> BTreeSet<JobKey> {
        jobs_on(&self.lines)
    }

    /// Returns the token that is cancelled when the request is to stop.
    pub(super) fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    pub(super) fn stop(&self) {
        visits::count();
        self.stop.cancel();
    }

    /// Records that one of its jobs ends. Stops the request if no other job continues.
    pub(super) fn lose_job(&mut self) {
        visits::count();
        self.staying = self.staying.saturating_sub(1);
        if self.staying == 0 {
            self.stop.cancel();
        }
    }
}

/// The share of one job in a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct JobShare {
    pub(super) indices: Vec<u32>,
    /// The number of them that are not in the body themselves.
    pub(super) covered: u32,
}

pub(super) fn shares(lines: &[RequestLine]) -> BTreeMap<JobKey, JobShare> {
    let mut shares = BTreeMap::<JobKey, JobShare>::new();
    let mut add = |item: PathRef, covered: u32| {
        visits::count();
        let share = shares.entry(item.job).or_default();
        share.indices.push(item.index);
        share.covered += covered;
    };
    for line in lines {
        for (item, covered) in line.contents().zip([0].into_iter().chain(std::iter::repeat(1))) {
            add(item, covered);
        }
    }
    shares
}
