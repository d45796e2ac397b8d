//! The interface of a CDN to the coalescer: what one request purges, and how it ended.

use std::{future::Future, sync::Arc};

use genfleet_core::{
    error::JobError,
    genesys::Caller,
    job::{JobId, Kind},
    trace_context::TraceContext,
};
use tokio_util::sync::CancellationToken;

use crate::progress::PurgeStatus;

/// What one request of a provider takes, at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Capacity {
    /// Paths, wildcards among them. Never 0.
    pub(crate) paths: usize,
    /// Paths that end in `*`. Never 0.
    pub(crate) wildcards: usize,
}

impl Capacity {
    pub(crate) const fn of(paths: usize) -> Self {
        Self { paths, wildcards: paths }
    }
}

/// The jobs that a request is sent for.
#[derive(Clone, Debug, Default)]
pub(crate) struct RequestContext {
    pub(crate) jobs: Vec<JobId>,
    pub(crate) traces: Vec<TraceContext>,
    /// Cancelled when it is not wanted any more: no further HTTP request is begun; one in flight is finished.
    pub(crate) stop: CancellationToken,
}

impl RequestContext {
    pub(crate) fn caller(&self) -> Caller<'_> {
        Caller { kind: Kind::CdnPurge, jobs: &self.jobs, traces: &self.traces, stop: &self.stop, lease: None }
    }
}

/// The paths are being purged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PurgeAccepted {
    pub(crate) status: PurgeStatus,
    /// The provider's ids.
    pub(crate) request_ids: Vec<String>,
    pub(crate) requests: u32,
    /// The trace context of the accepted one, where traces are exported.
    pub(crate) trace: Option<TraceContext>,
}

/// The reason why they are not.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PurgeRefusal {
    pub(crate) cause: RefusalCause,
    /// The error of a job that it concerns.
    pub(crate) error: JobError,
    pub(crate) requests: u32,
}

/// The cause of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefusalCause {
    /// The content of the body: 400, 413 or 422.
    Content,
    /// A permission: 403.
    Permission,
    /// None: it was stopped between two HTTP requests.
    Stopped,
    /// Something else, or no refusal of the API's.
    Other,
}

/// A CDN that purges paths.
pub(crate) trait Cdn: Clone + Send + Sync + 'static {
    /// The right to send one request now. Dropped, it goes back.
    type Permit: Send + 'static;

    /// Returns what one request takes.
    fn capacity(&self) -> Capacity;

    /// Returns the right to send one request where nothing has to be waited for.
    fn permit_now(&self, _: &RequestContext) -> Option<Self::Permit> {
        None
    }

    /// Waits until one request may go, or it is stopped.
    fn permit(&self, context: &RequestContext) -> impl Future<Output = Result<Self::Permit, JobError>> + Send;

    /// Purges as many paths as [`capacity`](Self::capacity) says, at most. Safe to repeat. Where it is stopped, it ends
    /// with what the request in flight came to, or is refused for [`RefusalCause::Stopped`].
    fn purge(
        &self,
        permit: Self::Permit,
        paths: &[Arc<str>],
        context: &RequestContext,
    ) -> impl Future<Output = Result<PurgeAccepted, PurgeRefusal>> + Send;

    /// Turns a missing permission into the error of `job`.
    fn forbidden(&self, error: &JobError, job: &JobId) -> JobError;
}
