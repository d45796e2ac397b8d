//! `eventbridge.configure`: creates or updates the Amazon `EventBridge` integration of an organisation (SPEC 3.8).
//!
//! [`EventbridgeConfigurator`] is the handler. The job's payload is in [`payload`], the steps are in [`steps`], the
//! configuration to send in [`config`], the AWS side in [`render`], the API calls in [`api`], and new integrations that
//! lists may not show yet in [`lately`].

use genfleet_core::{
    contract::ContractTerms,
    error::{ErrorClass, JobError},
    handler::{JobContext, JobHandler, Progress, Services},
    job::{Kind, Violation},
    options::ConfigError,
    turns::Turns,
    worker::offload,
};
use tokio::sync::OnceCell;

use self::{
    lately::LatelyCreated,
    steps::{Halt, IntegrationSteps},
};

mod api;
mod config;
mod contract;
mod lately;
mod payload;
mod render;
mod report;
pub(crate) mod steps;

use self::{payload::Payload, report::EventbridgeReport, steps::State};

/// Configures Amazon `EventBridge` integrations.
#[derive(Debug)]
pub struct EventbridgeConfigurator {
    /// The turns of jobs by the name of the integration.
    turns: Turns<String>,
    lately: LatelyCreated,
    organization: OnceCell<String>,
}

impl JobHandler for EventbridgeConfigurator {
    const KIND: Kind = Kind::EventbridgeConfigure;
    const ACTION: &'static str = "eventbridge.integration.configured";
    const AUDIT_ACTION: &'static str = "INTEGRATION_CONFIGURED";
    const AUDIT_FAILURE: &'static str = "INTEGRATION_FAILURE";
    const PERMISSIONS: &'static [&'static str] = &api::PERMISSIONS;
    const CONCURRENCY: usize = 64;

    type Options = ();
    type Payload = Payload;
    type State = State;
    type Report = EventbridgeReport;

    fn new((): (), _services: &Services) -> Result<Self, ConfigError> {
        Ok(Self { turns: Turns::default(), lately: LatelyCreated::default(), organization: OnceCell::new() })
    }

    fn validate(payload: &Payload, (): &()) -> Vec<Violation> {
        payload.violations()
    }

    fn terms() -> ContractTerms {
        contract::terms()
    }

    async fn handle(&self, job: &JobContext, payload: Payload, state: State) -> Result<Progress<Self>, JobError> {
        let name = payload.name();
        let has_begun = state != State::default();
        let message = || format!("another job for the integration {name:?} is at work");
        let turn = self.turns.enter(&name, job, has_begun, "name_busy", message)?;
        let mut steps = IntegrationSteps::new(job, &payload, &self.lately, state);
        match steps.run(&self.organization).await {
            Ok(reached) => {
                drop(turn);
                let report = offload(job.body_bytes, move || EventbridgeReport::new(&payload, reached)).await;
                Ok(Progress::Done(report))
            }
            Err(Halt::Again(again_in)) => {
                turn.keep(again_in);
                Ok(Progress::Begun { state: steps.state, again_in })
            }
            Err(Halt::Failed(error)) => Err(add_state(*error, &steps.state)),
        }
    }
}

/// Adds the integration and the state for the next attempt to an error.
fn add_state(mut error: JobError, state: &State) -> JobError {
    if let Some(id) = &state.integration_id {
        error.details.insert("integrationId".to_owned(), id.as_str().into());
    }
    if error.class == ErrorClass::Permanent {
        return error;
    }
    error.with_state(state)
}
