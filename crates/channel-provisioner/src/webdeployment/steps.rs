//! The steps of a job: configuration, published version, deployment, proof. Each begins with what the state knows,
//! makes at most one thing, and ends with a state that remembers it; a process that dies between two requests is
//! followed by one that looks for the job's marker before it sends anything again.
#![expect(clippy::result_large_err, reason = "once per step, and it goes no further than the worker")]

use std::time::Duration;

use genfleet_core::{audit::Detail, error::JobError, genesys::STALE_ROUNDS, handler::JobContext};
use serde_json::Map;
use tokio::time::{Instant, sleep};

use super::{
    api::{GenesysWebDeployments, Object, text},
    edge::Edge,
    plan::Plan,
    report::WebDeploymentReport,
    state::{ConfigurationState, WebDeploymentState, since},
};

mod configuration;
mod deployment;
mod proof;
mod rollback;
mod version;

/// Reads lag writes by at most this.
const READ_LAG: Duration = Duration::from_secs(15);
/// No look sooner after something was made: early reads are cached.
const SETTLING: Duration = Duration::from_secs(2);
/// How long a 400 on the call that names what was made a moment ago is lag, and how often that call is tried.
const LAG_OF_REFERENCES: Duration = Duration::from_secs(30);
const TRY_EVERY: Duration = Duration::from_secs(3);

/// How a step ended that did not fail.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one at a time per job")]
pub(crate) enum Step {
    /// The job is done.
    Done(WebDeploymentReport),
    /// The next step is due after this time.
    Again(Duration),
}

/// When a look follows one in vain.
#[derive(Clone, Copy, Debug)]
enum Look {
    Now,
    /// After this time in the queue.
    Later(Duration),
    /// The time is over.
    Never,
}

/// One attempt.
#[derive(Debug)]
pub(crate) struct Steps<'a> {
    job: &'a JobContext,
    plan: &'a Plan,
    api: GenesysWebDeployments<'a>,
    edge: &'a Edge,
    /// How long browsers may be given another version.
    edge_timeout: Duration,
    /// What is remembered.
    pub state: WebDeploymentState,
    /// What the next step makes may be there, made by an attempt that did not come to its end.
    was_interrupted: bool,
    /// From then on reads show what that attempt made.
    reads_settle_at: Instant,
}

impl<'a> Steps<'a> {
    /// An attempt at `plan`, from `state` on.
    pub(crate) fn new(
        job: &'a JobContext,
        plan: &'a Plan,
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

    /// The next step.
    pub(crate) async fn next(&mut self) -> Result<Step, JobError> {
        if let Some(failure) = self.state.undoing.clone() {
            return Err(self.undo(failure).await);
        }
        let ended = match (self.state.deployment.clone(), self.state.configuration.clone()) {
            (Some(deployment), _) => self.prove(deployment).await,
            (None, Some(ConfigurationState { id, version: Some(version), .. })) => self.deploy(&id, &version).await,
            (None, Some(configuration)) => self.publish(configuration).await,
            (None, None) => self.provide_configuration().await,
        };
        ended.or_else(|error| self.failed(error))
    }

    /// Returns true if a 400 may come from reads that lag: it names what this job made or changed a moment ago.
    fn is_lag(&self, error: &JobError, configuration: &ConfigurationState) -> bool {
        error.status == Some(400) && since(configuration.changed_at_ms, self.job.now()) < LAG_OF_REFERENCES
    }

    fn reads_are_settled(&self) -> bool {
        !self.was_interrupted || Instant::now() >= self.reads_settle_at
    }

    /// Reads show all that an earlier life may have made, and there is nothing.
    fn nothing_was_made(&mut self) {
        (self.was_interrupted, self.state.unanswered) = (false, false);
    }

    /// Should this attempt not come to its end, the next one knows that something may have been made.
    fn is_about_to_make(&mut self) {
        self.state.unanswered = true;
        self.job.reached(&self.state, Map::new());
    }

    fn found(&self, endpoint: &'static str, member: &'static str, object: &Object) {
        let id = text(object, "id").unwrap_or_default().to_owned();
        self.job.found(&Detail::default().with("endpoint", endpoint).with(member, id));
    }

    fn warn(&mut self, warning: String) {
        if !self.state.warnings.contains(&warning) {
            self.state.warnings.push(warning);
        }
    }

    async fn pause(&self, wait: Duration) -> Result<(), JobError> {
        self.job.stop().run_until_cancelled(sleep(wait)).await.ok_or_else(JobError::interrupted)
    }
}

fn given_up(refused: Option<JobError>, what: &str) -> JobError {
    let said = refused.map(|error| error.message).unwrap_or_default();
    let message =
        format!("somebody else changed {what} {STALE_ROUNDS} times in a row: find out who keeps changing it; {said}");
    JobError { status: Some(409), ..JobError::permanent("conflict", message) }
}
