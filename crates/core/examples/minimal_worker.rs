//! A complete worker in about sixty lines: it purges the paths of each `cdn.purge` job with one request.
//! `docs/ADDING-A-WORKER.md` explains every part of it.

use genfleet_core::{
    error::JobError,
    genesys::ApiRequest,
    handler::{JobContext, JobHandler, Progress, Services},
    job::{Kind, Violation},
    options::ConfigError,
    worker,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

struct MinimalWorker;

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Payload {
    #[schemars(length(min = 1, max = 100))]
    paths: Vec<String>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Report {
    status: u16,
    request_id: Option<String>,
}

impl JobHandler for MinimalWorker {
    const KIND: Kind = Kind::CdnPurge;
    const ACTION: &'static str = "cache_invalidated";
    const SCOPES: &'static [&'static str] = &["purge:cdn:write"];
    const CONCURRENCY: usize = 8;

    type Options = ();
    type Payload = Payload;
    type State = ();
    type Report = Report;

    fn new((): (), _services: &Services) -> Result<Self, ConfigError> {
        Ok(Self)
    }

    fn validate(payload: &Payload, (): &()) -> Vec<Violation> {
        let wrong = payload.paths.iter().enumerate().filter(|(_, path)| !path.starts_with('/'));
        wrong.map(|(n, _)| Violation::new(format!("/payload/paths/{n}"), "a path starts with /")).collect()
    }

    async fn handle(&self, job: &JobContext, payload: Payload, (): ()) -> Result<Progress<Self>, JobError> {
        let request = ApiRequest::post("/api/v2/external/cdn/purge").json(&payload).expect(&[202]).allow_empty_body();
        let answer = job.send(request.safe_to_repeat()).await?;
        Ok(Progress::Done(Report { status: answer.status, request_id: answer.request_id }))
    }
}

fn main() -> std::process::ExitCode {
    worker::main::<MinimalWorker>()
}
