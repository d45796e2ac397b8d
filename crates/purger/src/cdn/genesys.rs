//! The CDN behind Genesys Cloud, as the tutorial has it.

use std::sync::Arc;

use genfleet_core::{
    error::{ErrorClass, HELD_SPREAD, JobError},
    genesys::{ApiAnswer, ApiError, ApiRequest, GenesysClient, Permit},
    job::{JobId, Kind},
};
use serde::Serialize;

use super::purge::{Capacity, Cdn, PurgeAccepted, PurgeRefusal, RefusalCause, RequestContext};
use crate::progress::PurgeStatus;

/// The scope that purging needs.
pub(crate) const SCOPE: &str = "purge:cdn:write";
const ENDPOINT: &str = "/api/v2/external/cdn/purge";
/// The status of a purge that was accepted.
const ACCEPTED: &[u16] = &[202];
/// Paths in one request, at most.
const MAX_PATHS: usize = 100;

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

impl Cdn for GenesysCdn {
    type Permit = Permit;

    fn capacity(&self) -> Capacity {
        Capacity::of(MAX_PATHS)
    }

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
        let request = ApiRequest::post(ENDPOINT).expect(ACCEPTED).allow_empty_body().safe_to_repeat().json(&body);
        let answer = self.client.send_with(permit, request, &context.caller()).await.map_err(|error| {
            let refusal = PurgeRefusal::from(error);
            // What a request of one job is forbidden, the client has judged already.
            let is_judged = refusal.cause == RefusalCause::Permission && context.jobs.len() == 1;
            if is_judged { PurgeRefusal { cause: RefusalCause::Other, ..refusal } } else { refusal }
        })?;
        let ApiAnswer { status, request_id, requests, trace, .. } = answer;
        let request_ids = request_id.into_iter().collect();
        Ok(PurgeAccepted { status: PurgeStatus::Code(status), request_ids, requests, trace })
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
