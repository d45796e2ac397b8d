//! The steps of a job: configuration, published version, deployment, verification. Each step creates at most one
//! object, and ends with a state that contains it. If a process dies between two requests, the next one looks for the
//! job's marker before it sends anything again.
#![expect(clippy::result_large_err, reason = "once per step, and it goes no further than the worker")]

use std::time::Duration;

use genfleet_core::{audit::Detail, error::JobError, genesys::STALE_ROUNDS, handler::JobContext};
use serde_json::Map;
use tokio::time::{Instant, sleep};

use super::{
    api::{GenesysWebDeployments, Object, text},
    edge::Edge,
    plan::DeploymentPlan,
    report::WebDeploymentReport,
    state::{ConfigurationState, WebDeploymentState, since},
};

mod configuration;
mod deployment;
mod proof;
mod rollback;
mod version;

/// Maximum time for which reads lag behind writes.
const READ_LAG: Duration = Duration::from_secs(15);
/// Minimum wait after a creation before the first check, because early reads are cached.
const SETTLING: Duration = Duration::from_secs(2);
/// Time for which a 400 on a call that names a new object may be caused by lagging reads.
const LAG_OF_REFERENCES: Duration = Duration::from_secs(30);
const TRY_EVERY: Duration = Duration::from_secs(3);

/// The result of a step that did not fail.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one at a time per job")]
pub(crate) enum DeploymentStep {
    /// The job is done.
    Done(WebDeploymentReport),
    /// The next step is due after this time.
    Again(Duration),
}

/// The time of the next check.
#[derive(Clone, Copy, Debug)]
enum NextCheck {
    Now,
    /// The next check is after this time in the queue.
    Later(Duration),
    /// The time is over.
    Never,
}

/// One attempt of a job.
#[derive(Debug)]
pub(crate) struct DeploymentSteps<'a> {
    job: &'a JobContext,
    plan: &'a DeploymentPlan,
    api: GenesysWebDeployments<'a>,
    edge: &'a Edge,
    /// Maximum time for which browsers may get another version.
    edge_timeout: Duration,
    /// The state that the job keeps.
    pub state: WebDeploymentState,
    /// True if an interrupted attempt may already have created the object of the next step.
    was_interrupted: bool,
    /// Time from which reads show everything that the interrupted attempt created.
    reads_settle_at: Instant,
}

impl<'a> DeploymentSteps<'a> {
    /// Creates an attempt at `plan` that continues from `state`.
    pub(crate) fn new(
        job: &'a JobContext,
        plan: &'a DeploymentPlan,
        edge: &'a Edge,
        edge_timeout: Duration,
        mut state: WebDeploymentState,
    ) -> Self {
        let left_no_state = job.may_have_run_before() && !state.begun;
        let was_interrupted = state.unanswered || job.was_redelivered() || left_no_state;
        (state.begun, state.unanswered) = (true, was_interrupted);
        let api = GenesysWebDeployments::new(job);
        let reads_settle_at = Instant::now() + READ_LAG;
        Self { job, plan, api, edge, edge_timeout, state, was_interrupted, reads_settle_at }
    }

    /// Runs the next step.
    pub(crate) async fn next(&mut self) -> Result<DeploymentStep, JobError> {
        if let Some(failure) = self.state.undoing.clone() {
            return Err(self.undo(failure).await);
        }
        let ended = match (self.state.deployment.clone(), self.state.configuration.clone()) {
            (Some(deployment), _) => self.prove(deployment).await,
            (None, Some(ConfigurationState { id, version: Some(version), .. })) => self.deploy(&id, &version).await,
            (None, Some(configuration)) => self.publish(configuration).await,
            (None, None) => self.provide_configuration().await,
        };
        ended.or_else(|error| self.handle_failure(error))
    }

    /// Returns true if a 400 may be caused by lagging reads, because it names an object that this job just changed.
    fn is_lag(&self, error: &JobError, configuration: &ConfigurationState) -> bool {
        error.status == Some(400) && since(configuration.changed_at_ms, self.job.now()) < LAG_OF_REFERENCES
    }

    fn reads_are_settled(&self) -> bool {
        !self.was_interrupted || Instant::now() >= self.reads_settle_at
    }

    /// Records that nothing was created, because reads now show everything that an earlier attempt may have created.
    fn record_nothing_created(&mut self) {
        (self.was_interrupted, self.state.unanswered) = (false, false);
    }

    /// Records that an object may be created, for the next attempt in case this one is interrupted.
    fn record_creation_begun(&mut self) {
        self.state.unanswered = true;
        self.job.record_progress(&self.state, Map::new());
    }

    fn record_found(&self, endpoint: &'static str, member: &'static str, object: &Object) {
        let id = text(object, "id").unwrap_or_default().to_owned();
        self.job.record_found(&Detail::default().with("endpoint", endpoint).with(member, id));
    }

    fn warn(&mut self, warning: String) {
        if !self.state.warnings.contains(&warning) {
            self.state.warnings.push(warning);
        }
    }

    async fn pause(&self, wait: Duration) -> Result<(), JobError> {
        self.job.unless_stopped(sleep(wait)).await
    }
}

fn conflict_error(refused: Option<JobError>, what: &str) -> JobError {
    let reason = refused.map(|error| error.message).unwrap_or_default();
    let message =
        format!("somebody else changed {what} {STALE_ROUNDS} times in a row: find out who keeps changing it; {reason}");
    JobError { status: Some(409), ..JobError::permanent("conflict", message) }
}
