//! The one remote call of this worker, and the meaning of its answers. A CDN of another provider would be another [`Cdn`].

use std::{future::Future, sync::Arc};

use genfleet_core::{
    error::{ErrorClass, HELD_SPREAD, JobError},
    genesys::{ApiAnswer, ApiError, ApiRequest, Caller, GenesysClient, Permit},
    job::{JobId, Kind},
    trace_context::TraceContext,
};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

/// The scope that purging needs.
pub(crate) const SCOPE: &str = "purge:cdn:write";
const ENDPOINT: &str = "/api/v2/external/cdn/purge";
/// The status of a purge that was accepted.
const ACCEPTED: &[u16] = &[202];

/// The jobs that a request is sent for.
#[derive(Clone, Debug, Default)]
pub(crate) struct RequestContext {
    pub(crate) jobs: Vec<JobId>,
    pub(crate) traces: Vec<TraceContext>,
    /// Cancelled when it is not wanted any more: no further HTTP request is begun; one in flight is finished.
    pub(crate) stop: CancellationToken,
}

/// The paths are being purged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PurgeAccepted {
    pub(crate) status: u16,
    pub(crate) request_id: Option<String>,
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

    /// Returns the right to send one request where nothing has to be waited for.
    fn permit_now(&self, _: &RequestContext) -> Option<Self::Permit> {
        None
    }

    /// Waits until one request may go, or it is stopped.
    fn permit(&self, context: &RequestContext) -> impl Future<Output = Result<Self::Permit, JobError>> + Send;

    /// Purges at most 100 paths. Safe to repeat. Where it is stopped, it ends with what the request in flight came
    /// to, or is refused for [`RefusalCause::Stopped`].
    fn purge(
        &self,
        permit: Self::Permit,
        paths: &[Arc<str>],
        context: &RequestContext,
    ) -> impl Future<Output = Result<PurgeAccepted, PurgeRefusal>> + Send;

    /// Turns a missing permission into the error of `job`.
    fn forbidden(&self, error: &JobError, job: &JobId) -> JobError;
}

/// The CDN behind Genesys Cloud.
#[derive(Clone, Debug)]
pub(crate) struct GenesysCdn {
    client: GenesysClient,
}

#[derive(Serialize)]
struct Body<'a> {
    paths: Vec<&'a str>,
}

impl GenesysCdn {
    pub(crate) fn new(client: GenesysClient) -> Self {
        Self { client }
    }
}

impl RequestContext {
    fn caller(&self) -> Caller<'_> {
        Caller { kind: Kind::CdnPurge, jobs: &self.jobs, traces: &self.traces, stop: &self.stop, lease: None }
    }
}

impl Cdn for GenesysCdn {
    type Permit = Permit;

    fn permit_now(&self, context: &RequestContext) -> Option<Permit> {
        self.client.permit_now(&context.caller())
    }

    async fn permit(&self, context: &RequestContext) -> Result<Permit, JobError> {
        Ok(self.client.permit(&context.caller()).await?)
    }

    async fn purge(
        &self,
        permit: Permit,
        paths: &[Arc<str>],
        context: &RequestContext,
    ) -> Result<PurgeAccepted, PurgeRefusal> {
        let body = Body { paths: paths.iter().map(AsRef::as_ref).collect() };
        let request = ApiRequest::post(ENDPOINT).expect(ACCEPTED).may_say_nothing().safe_to_repeat().json(&body);
        let answer = self.client.send_with(permit, request, &context.caller()).await.map_err(|error| {
            let refusal = PurgeRefusal::from(error);
            // What a request of one job is forbidden, the client has judged already.
            let is_judged = refusal.cause == RefusalCause::Permission && context.jobs.len() == 1;
            if is_judged { PurgeRefusal { cause: RefusalCause::Other, ..refusal } } else { refusal }
        })?;
        let ApiAnswer { status, request_id, requests, trace, .. } = answer;
        Ok(PurgeAccepted { status, request_id, requests, trace })
    }

    fn forbidden(&self, error: &JobError, job: &JobId) -> JobError {
        match self.client.judge_forbidden(Kind::CdnPurge, ENDPOINT, job) {
            None => error.clone(),
            Some(until) => JobError { class: ErrorClass::Held { until, spread: HELD_SPREAD }, ..error.clone() },
        }
    }
}

impl From<ApiError> for PurgeRefusal {
    fn from(error: ApiError) -> Self {
        let cause = match (error.class, error.status) {
            (ErrorClass::Permanent, Some(400 | 413 | 422)) => RefusalCause::Content,
            (ErrorClass::Permanent, Some(403)) => RefusalCause::Permission,
            (ErrorClass::Interrupted, _) => RefusalCause::Stopped,
            _ => RefusalCause::Other,
        };
        Self { cause, requests: error.requests, error: error.into() }
    }
}
