//! Works `webdeployment.provision` jobs, each of which publishes one web messaging deployment on the real platform
//! (SPEC 3.7).
//!
//! [`WebDeploymentProvisioner`] is the handler. The job's payload is in [`payload`], the requested objects in [`plan`],
//! the meaning of the API's answers in [`survey`], the job's state in [`state`], and the steps in [`steps`]. The API
//! calls are in [`api`] and [`edge`].

use std::time::Duration;

use genfleet_core::{
    contract::ContractTerms,
    error::JobError,
    handler::{JobContext, JobHandler, Progress, Services},
    job::{Kind, Violation},
    options::{ConfigError, duration},
    turns::{Turn, Turns},
};

use self::{
    edge::Edge,
    plan::DeploymentPlan,
    steps::{DeploymentStep, DeploymentSteps},
};

mod api;
mod contract;
mod edge;
pub(crate) mod payload;
mod plan;
pub(crate) mod report;
pub(crate) mod state;
mod steps;
mod survey;

use self::{payload::WebDeploymentPayload, report::WebDeploymentReport, state::WebDeploymentState};

/// The codes with which a job can fail after its configuration exists.
const CODES: [&str; 18] = [
    "flow_not_found",
    "flow_wrong_type",
    "flow_not_published",
    "queue_not_found",
    "name_taken",
    "deployment_limit_reached",
    "deployment_not_found",
    "configuration_not_found",
    "configuration_error",
    "not_active",
    "rejected",
    "forbidden",
    "not_found",
    "conflict",
    "unexpected_response",
    "api_unavailable",
    "api_timeout",
    "throttled",
];

/// The settings of `webdeployment.provision`.
#[derive(Clone, Debug, clap::Args)]
pub struct WebDeploymentOptions {
    /// Maximum time for which browsers may get an older version of a web deployment before its job ends with a warning
    #[arg(long, env = "GENFLEET_EDGE_TIMEOUT", value_name = "DURATION", default_value = "5m", value_parser = duration)]
    pub edge_timeout: Duration,
}

/// Publishes web messaging deployments.
#[derive(Debug)]
pub struct WebDeploymentProvisioner {
    edge: Edge,
    edge_timeout: Duration,
    turns: Turns<Wanted>,
}

/// An object that one job at a time may change.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Wanted {
    Name(String),
    Deployment(String),
}

impl JobHandler for WebDeploymentProvisioner {
    const KIND: Kind = Kind::WebDeploymentProvision;
    const ACTION: &'static str = "webdeployment.published";
    const AUDIT_ACTION: &'static str = "WEBDEPLOYMENT_PUBLISHED";
    const PERMISSIONS: &'static [&'static str] = api::PERMISSIONS;
    const CONCURRENCY: usize = 8;

    type Options = WebDeploymentOptions;
    type Payload = WebDeploymentPayload;
    type State = WebDeploymentState;
    type Report = WebDeploymentReport;

    fn new(options: WebDeploymentOptions, services: &Services) -> Result<Self, ConfigError> {
        let edge = Edge::new(&services.genesys)?;
        Ok(Self { edge, edge_timeout: options.edge_timeout, turns: Turns::default() })
    }

    fn validate(payload: &WebDeploymentPayload, _: &WebDeploymentOptions) -> Vec<Violation> {
        payload.violations()
    }

    fn terms() -> ContractTerms {
        contract::terms()
    }

    async fn handle(
        &self,
        job: &JobContext,
        payload: WebDeploymentPayload,
        state: WebDeploymentState,
    ) -> Result<Progress<Self>, JobError> {
        let plan = DeploymentPlan::of(job.marker(), payload);
        let turns = self.turns(job, &plan, &state)?;
        let mut steps = DeploymentSteps::new(job, &plan, &self.edge, self.edge_timeout, state);
        match steps.next().await {
            Ok(DeploymentStep::Done(report)) => Ok(Progress::Done(report)),
            Ok(DeploymentStep::Again(again_in)) => {
                for turn in turns {
                    turn.keep(again_in);
                }
                Ok(Progress::Begun { state: steps.state, again_in })
            }
            Err(error) => Err(error.with_state(&steps.state)),
        }
    }
}

impl WebDeploymentProvisioner {
    /// The turns for the job's name, and for its deployment if that is known.
    #[expect(clippy::result_large_err, reason = "once per attempt")]
    fn turns(
        &self,
        job: &JobContext,
        plan: &DeploymentPlan,
        state: &WebDeploymentState,
    ) -> Result<Vec<Turn<Wanted>>, JobError> {
        let has_begun = *state != WebDeploymentState::default();
        let deployment = state.target.as_ref().or(plan.deployment_id.as_ref());
        let deployment = deployment.map(|id| Wanted::Deployment(id.to_ascii_lowercase()));
        let wanted = deployment.into_iter().chain([Wanted::Name(plan.name.clone())]);
        let message = || "another job works on a deployment of that name, or on that deployment".to_owned();
        wanted.map(|wanted| self.turns.enter(&wanted, job, has_begun, "name_busy", message)).collect()
    }
}
