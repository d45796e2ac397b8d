//! The one remote call of this worker, and what its answers mean to it. A CDN of another provider stands in as
//! another [`Cdn`]. Which paths go together, and what follows for whom, is not decided here.

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
pub const SCOPE: &str = "purge:cdn:write";
const ENDPOINT: &str = "/api/v2/external/cdn/purge";
/// What a purge is promised.
const ACCEPTED: &[u16] = &[202];

/// On whose behalf a request is sent.
#[derive(Clone, Debug, Default)]
pub struct Aboard {
    /// The jobs it is sent for.
    pub jobs: Vec<JobId>,
    /// Where in their traces they are.
    pub traces: Vec<TraceContext>,
    /// Cancelled when it is not wanted any more: no further HTTP request is begun; one in flight is finished.
    pub stop: CancellationToken,
}

/// The paths are being purged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// 202.
    pub status: u16,
    /// The API's id of the request.
    pub request_id: Option<String>,
    /// HTTP requests sent.
    pub requests: u32,
    /// Where in a trace the accepted one is, where traces are exported.
    pub trace: Option<TraceContext>,
}

/// Why they are not.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// What the API finds wrong with.
    pub with: RefusedFor,
    /// What a job is told that it concerns.
    pub error: JobError,
    /// HTTP requests sent.
    pub requests: u32,
}

/// What a refusal is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedFor {
    /// What is in the body: 400 or 422.
    Content,
    /// A permission: 403.
    Permission,
    /// Nothing: it was stopped between two HTTP requests.
    Nothing,
    /// Something else, or it is not the API's doing.
    Another,
}

/// Something that purges paths.
pub trait Cdn: Clone + Send + Sync + 'static {
    /// The right to send one request now. Dropped, it goes back.
    type Permit: Send + 'static;

    /// Waits until one request may go, or it is stopped.
    fn permit(&self, aboard: &Aboard) -> impl Future<Output = Result<Self::Permit, JobError>> + Send;

    /// Purges at most 100 paths. Safe to repeat. Where it is stopped, it ends with what the request in flight came
    /// to, or is refused for [`RefusedFor::Nothing`].
    fn purge(
        &self,
        permit: Self::Permit,
        paths: &[Arc<str>],
        aboard: &Aboard,
    ) -> impl Future<Output = Result<Accepted, Refusal>> + Send;

    /// What a missing permission means to `job`.
    fn forbidden(&self, error: &JobError, job: &JobId) -> JobError;
}

/// The CDN behind Genesys Cloud.
#[derive(Clone, Debug)]
pub struct GenesysCdn {
    client: GenesysClient,
}

#[derive(Serialize)]
struct Body<'a> {
    paths: Vec<&'a str>,
}

impl GenesysCdn {
    /// The CDN that `client` reaches.
    pub fn new(client: GenesysClient) -> Self {
        Self { client }
    }
}

impl Aboard {
    fn caller(&self) -> Caller<'_> {
        Caller { kind: Kind::CdnPurge, jobs: &self.jobs, traces: &self.traces, stop: &self.stop, lease: None }
    }
}

impl Cdn for GenesysCdn {
    type Permit = Permit;

    async fn permit(&self, aboard: &Aboard) -> Result<Permit, JobError> {
        Ok(self.client.permit(&aboard.caller()).await?)
    }

    async fn purge(&self, permit: Permit, paths: &[Arc<str>], aboard: &Aboard) -> Result<Accepted, Refusal> {
        let body = Body { paths: paths.iter().map(AsRef::as_ref).collect() };
        let request = ApiRequest::post(ENDPOINT).expect(ACCEPTED).may_say_nothing().safe_to_repeat().json(&body);
        let answer = self.client.send_with(permit, request, &aboard.caller()).await.map_err(|error| {
            let refusal = Refusal::from(error);
            // What a request of one job is forbidden, the client has judged already.
            let is_judged = refusal.with == RefusedFor::Permission && aboard.jobs.len() == 1;
            if is_judged { Refusal { with: RefusedFor::Another, ..refusal } } else { refusal }
        })?;
        let ApiAnswer { status, request_id, requests, trace, .. } = answer;
        Ok(Accepted { status, request_id, requests, trace })
    }

    fn forbidden(&self, error: &JobError, job: &JobId) -> JobError {
        match self.client.judge_forbidden(Kind::CdnPurge, ENDPOINT, job) {
            None => error.clone(),
            Some(until) => JobError { class: ErrorClass::Held { until, spread: HELD_SPREAD }, ..error.clone() },
        }
    }
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        let with = match (error.class, error.status) {
            (ErrorClass::Permanent, Some(400 | 413 | 422)) => RefusedFor::Content,
            (ErrorClass::Permanent, Some(403)) => RefusedFor::Permission,
            (ErrorClass::Interrupted, _) => RefusedFor::Nothing,
            _ => RefusedFor::Another,
        };
        Self { with, requests: error.requests, error: error.into() }
    }
}
