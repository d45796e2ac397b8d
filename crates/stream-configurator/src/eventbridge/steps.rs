//! The steps of a job: find the integration by its name or create it, configure it, switch it on or off, wait for it. Each
//! step looks before it writes, so that a job that comes again writes nothing twice.
//!
//! The platform takes no ids of ours and shows a new integration late. So a job that may have created one looks for its
//! name before it creates any; what was created is in the job's state before anything follows from it.

use std::time::Duration;

use genfleet_core::{error::JobError, genesys::ApiError, handler::JobContext};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;

use super::{api::Integrations, lately::LatelyCreated, payload::Payload};

mod activate;
mod configure;
mod find;

/// Reads lag writes by at most this.
const READ_LAG: Duration = Duration::from_secs(15);
/// Between two looks in memory.
const BETWEEN_LOOKS: Duration = Duration::from_secs(2);
/// The first wait in the queue; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_secs(5);

/// The state of a job that was started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(clippy::struct_excessive_bools, reason = "each says of another step whether it was done")]
pub struct State {
    /// The integration, once it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) integration_id: Option<String>,
    /// When this job, or another one of this process, created it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) created_at: Option<Timestamp>,
    /// This job created it.
    pub(crate) created: bool,
    /// This job has written something.
    pub(crate) wrote: bool,
    /// True if a creation request was sent and its result has not been checked.
    pub(crate) ordered: bool,
    /// A configuration was sent, and no answer came.
    pub(crate) unanswered: bool,
    /// The configuration is as it should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) configured: Option<Configured>,
    /// The intended state was set.
    pub(crate) intended: bool,
    /// Since when the reported state is waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) waiting_since: Option<Timestamp>,
    /// Waits in the queue so far.
    pub(crate) waits: u32,
}

/// A configuration that is as it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Configured {
    version: i64,
    conflicts: u32,
    properties_sha256: String,
}

/// An integration that is as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reached {
    pub id: String,
    pub created: bool,
    pub unchanged: bool,
    pub version: i64,
    pub conflicts: u32,
    pub reported: String,
    pub organization: String,
    pub properties_sha256: String,
}

/// Why the steps end before the last one.
#[derive(Debug)]
pub(crate) enum Halt {
    /// The job goes on after this wait in the queue.
    Again(Duration),
    /// The attempt failed.
    Failed(Box<JobError>),
}

impl From<JobError> for Halt {
    fn from(error: JobError) -> Self {
        Self::Failed(Box::new(error))
    }
}

impl From<ApiError> for Halt {
    fn from(error: ApiError) -> Self {
        JobError::from(error).into()
    }
}

/// One attempt.
#[derive(Debug)]
pub(crate) struct IntegrationSteps<'a> {
    job: &'a JobContext,
    api: Integrations<'a>,
    payload: &'a Payload,
    name: String,
    lately: &'a LatelyCreated,
    /// What the job takes to its next attempt.
    pub state: State,
    /// The intended state, as far as it is known.
    intended_state: Option<String>,
}

impl<'a> IntegrationSteps<'a> {
    /// An attempt of `job` that goes on from `state`.
    pub(crate) fn new(job: &'a JobContext, payload: &'a Payload, lately: &'a LatelyCreated, state: State) -> Self {
        Self { job, api: Integrations::new(job), payload, name: payload.name(), lately, state, intended_state: None }
    }

    /// Runs all remaining steps. Keeps the organisation's id in `organization` for later jobs.
    pub(crate) async fn run(&mut self, organization: &OnceCell<String>) -> Result<Reached, Halt> {
        let id = match self.state.integration_id.clone() {
            Some(id) => id,
            None => self.find_or_create().await?,
        };
        self.state.integration_id = Some(id.clone());
        let configured = if let Some(configured) = self.state.configured.clone() {
            configured
        } else {
            let configured = self.configure(&id).await?;
            self.state.waits = 0;
            configured
        };
        self.state.configured = Some(configured.clone());
        let reported = self.activate(&id).await?;
        let organization = organization.get_or_try_init(|| self.api.organization()).await?.clone();
        Ok(Reached {
            id,
            created: self.state.created,
            unchanged: !self.state.wrote,
            version: configured.version,
            conflicts: configured.conflicts,
            reported,
            organization,
            properties_sha256: configured.properties_sha256,
        })
    }

    /// Returns to the queue; each wait is twice as long as the one before.
    fn later(&mut self) -> Halt {
        let wait = FIRST_WAIT.saturating_mul(1 << self.state.waits.min(3));
        self.state.waits += 1;
        Halt::Again(wait)
    }

    fn since(&self, earlier: Timestamp) -> Duration {
        Duration::try_from(self.job.now().duration_since(earlier)).unwrap_or_default()
    }

    async fn pause(&self, wait: Duration) -> Result<(), Halt> {
        Ok(self.job.unless_stopped(tokio::time::sleep(wait)).await?)
    }
}
