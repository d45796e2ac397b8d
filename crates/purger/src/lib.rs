//! The purger works `cdn.purge` jobs, which invalidate CDN cache paths (SPEC 3.1).
//!
//! [`Purger`] is the handler, and [`Payload`] the job's payload. All jobs of a process share requests through the
//! coalescer. The API call is in `cdn.rs`, and the progress of a job in `progress.rs`.

use std::{sync::Arc, time::Duration};

use genfleet_core::{
    contract::ContractTerms,
    error::JobError,
    handler::{JobContext, JobHandler, Progress, ServiceCheck, Services},
    job::{Kind, Violation},
    metric,
    options::{self, ConfigError},
};
use serde_json::Value;

use crate::{
    cdn::{Cdn, genesys, options::CdnOptions},
    coalesce::{Coalescer, entry::PurgeOrder},
    payload::Payload,
    progress::{PurgeProgress, PurgeReport, PurgeState},
};

mod cdn;
mod coalesce;
mod contract;
mod payload;
mod progress;

/// The purger's own settings.
#[derive(Clone, Debug, clap::Args)]
pub struct PurgerOptions {
    /// The CDN
    #[command(flatten)]
    pub(crate) cdn: CdnOptions,

    /// Time for which a purge request that is not full waits for paths of further jobs after the last one; at most ten
    /// times this while jobs keep arriving. A job that is alone in the process is sent at once. 0ms disables sharing:
    /// each request contains the paths of one job
    #[arg(long, env = "GENFLEET_BATCH_LINGER", value_name = "DURATION", default_value = "20ms", value_parser = options::duration)]
    pub batch_linger: Duration,
}

impl PurgerOptions {
    /// Sends the purges of other CDNs to a stand-in at this address, without secrets.
    pub fn stand_in(&mut self, address: &str) {
        self.cdn.stand_in = address.parse().ok();
    }
}

/// Invalidates CDN cache paths.
#[derive(Debug)]
pub struct Purger {
    coalescer: Coalescer,
    /// Describes why the CDN cannot purge a path.
    refuses: fn(&str) -> Option<String>,
}

impl JobHandler for Purger {
    const KIND: Kind = Kind::CdnPurge;
    const ACTION: &'static str = "cache_invalidated";
    const AUDIT_ACTION: &'static str = "cdn_purge_executed";
    const SCOPES: &'static [&'static str] = &[genesys::SCOPE];
    const CONCURRENCY: usize = 512;

    type Options = PurgerOptions;
    type Payload = Payload;
    type State = PurgeState;
    type Report = PurgeReport;

    async fn examine(options: PurgerOptions) -> Vec<ServiceCheck> {
        cdn::examine(&options.cdn).await
    }

    fn new(options: PurgerOptions, services: &Services) -> Result<Self, ConfigError> {
        options.cdn.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
        // Creates the series at the start, because an increase from no value is not visible.
        metrics::counter!(metric::PURGE_PATHS).absolute(0);
        let _ = metrics::histogram!(metric::PURGE_BATCH_PATHS);
        cdn::start(options.cdn.choose()?, &options, services)
    }

    fn check(options: &PurgerOptions) -> Result<(), ConfigError> {
        options.cdn.check()
    }

    fn calls_genesys(options: &PurgerOptions) -> bool {
        options.cdn.is_genesys()
    }

    fn validate(payload: &Payload, _: &Self::Options) -> Vec<Violation> {
        payload.violations()
    }

    fn terms() -> ContractTerms {
        contract::terms()
    }

    async fn handle(&self, job: &JobContext, payload: Payload, state: PurgeState) -> Result<Progress<Self>, JobError> {
        let paths: Arc<[Arc<str>]> = payload.paths.into_iter().map(Arc::from).collect();
        if let Some(refused) = self.path_error(&paths, &state) {
            return Err(refused);
        }
        let order = PurgeOrder {
            job: job.id.clone(),
            paths: Arc::clone(&paths),
            progress: PurgeProgress::resume(state, paths.len()),
            trace: job.trace.clone(),
        };
        let outcome = self.coalescer.purge(order, &job.stop).await;
        job.count_shared(outcome.requests, outcome.shared);
        let report = outcome.progress.report(&paths);
        match outcome.error {
            None => Ok(Progress::Done(report)),
            Some(error) => Err(with_progress(error, &outcome.progress, &report)),
        }
    }
}

impl Purger {
    /// Creates a purger for `cdn`, and starts its tasks.
    fn of<C: Cdn>(cdn: C, refuses: fn(&str) -> Option<String>, linger: Duration, services: &Services) -> Self {
        let (coalescer, task) = Coalescer::new(cdn, linger);
        services.supervisor.spawn("coalescer", task);
        Self { coalescer, refuses }
    }

    /// Returns the error of a job with a path that the CDN cannot purge; nothing is sent for it.
    fn path_error(&self, paths: &[Arc<str>], state: &PurgeState) -> Option<JobError> {
        let (path, why) = paths.iter().find_map(|path| Some((path, (self.refuses)(path)?)))?;
        let mut error = JobError::permanent("rejected", format!("the path {path:?} cannot be purged: {why}"));
        error.details.insert("path".to_owned(), (&**path).into());
        let progress = PurgeProgress::resume(state.clone(), paths.len());
        Some(with_progress(error, &progress, &progress.report(paths)))
    }
}

/// Adds the report and the state for the next attempt to an error.
fn with_progress(error: JobError, progress: &PurgeProgress, report: &PurgeReport) -> JobError {
    let report = Some(serde_json::to_value(report).unwrap_or(Value::Null));
    let state = progress.state().and_then(|state| serde_json::to_value(state).ok());
    JobError { report, state: state.or(error.state), ..error }
}
