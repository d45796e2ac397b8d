//! The deployment, which is created, found or changed.

use std::time::Duration;

use genfleet_core::{
    error::{ErrorClass, JobError},
    genesys::STALE_ROUNDS,
};
use tokio::time::Instant;

use super::{DeploymentStep, DeploymentSteps, READ_LAG, SETTLING, TRY_EVERY, conflict_error};
use crate::webdeployment::{
    api::{self, Changed, Object, Ordered, published_version},
    plan::is_named,
    state::{ConfigurationState, DeploymentState, Provided},
    survey,
};

impl DeploymentSteps<'_> {
    /// Creates the deployment, or changes the existing one.
    pub(super) async fn deploy(&mut self, id: &str, version: &str) -> Result<DeploymentStep, JobError> {
        if let Some(target) = self.state.target.clone() {
            return self.change_deployment(&target, id, version).await;
        }
        loop {
            let listing = self.api.deployments().await?;
            if let Some(own) = listing.entities.iter().find(|one| self.plan.is_own(one)) {
                return self.adopt_deployment(own);
            }
            if self.reads_are_settled() {
                self.record_nothing_created();
                self.check_name(&listing.entities)?;
                break;
            }
            self.pause(TRY_EVERY).await?;
        }
        self.check_rivals().await?;
        self.record_creation_begun();
        let configuration = self.state.configuration.clone().unwrap_or_default();
        let body = self.plan.new_deployment(id, version);
        loop {
            match self.api.create_deployment(&body).await {
                Ordered::Made(made) => {
                    self.set_deployment(api::id(&made).unwrap_or_default(), Provided::Created);
                    return Ok(DeploymentStep::Again(SETTLING));
                }
                Ordered::Refused(error) => {
                    self.state.unanswered = self.was_interrupted;
                    if matches!(error.status, Some(400 | 409)) {
                        let listing = self.api.deployments().await?;
                        if let Some(own) = listing.entities.iter().find(|one| self.plan.is_own(one)) {
                            return self.adopt_deployment(own);
                        }
                        self.check_name(&listing.entities)?;
                    }
                    if !self.is_lag(&error, &configuration) {
                        return Err(error);
                    }
                    self.pause(TRY_EVERY).await?;
                    self.record_creation_begun();
                }
                Ordered::Lost(error) => return self.find_deployment(error).await,
            }
        }
    }

    /// Finds the deployment of a request whose answer was lost.
    async fn find_deployment(&mut self, error: JobError) -> Result<DeploymentStep, JobError> {
        let until = Instant::now() + READ_LAG;
        loop {
            self.pause(SETTLING).await?;
            let listing = self.api.deployments().await?;
            if let Some(own) = listing.entities.iter().find(|one| self.plan.is_own(one)) {
                return self.adopt_deployment(own);
            }
            if Instant::now() >= until {
                return Err(JobError { class: ErrorClass::Transient, ..error });
            }
        }
    }

    fn check_name(&self, deployments: &[Object]) -> Result<(), JobError> {
        let other = deployments.iter().find(|one| is_named(one, &self.plan.name));
        other.map_or(Ok(()), |other| Err(survey::name_taken(self.plan, other)))
    }

    /// Checks for other jobs with the same name in other processes. The job with the oldest configuration continues.
    async fn check_rivals(&self) -> Result<(), JobError> {
        let Some(own) = self.state.configuration.as_ref().filter(|one| one.made) else { return Ok(()) };
        let listing = self.api.configurations().await?;
        survey::first_of_rivals(self.plan, &own.id, &listing.entities)
    }

    pub(super) fn adopt_deployment(&mut self, own: &Object) -> Result<DeploymentStep, JobError> {
        let Some(id) = api::id(own) else {
            let message = "the list of deployments shows one of this job without an id";
            return Err(JobError::new(ErrorClass::Transient, "unexpected_response", message));
        };
        self.record_found(api::DEPLOYMENTS, "deploymentId", own);
        if self.state.configuration.is_none()
            && let Some(configuration) = own.get("configuration").and_then(|one| one.as_object())
        {
            let id = api::id(configuration).unwrap_or_default().to_owned();
            let version = published_version(configuration);
            self.state.configuration = Some(ConfigurationState { id, version, made: false, changed_at_ms: 0 });
        }
        let how = if self.plan.deployment_id.is_some() { Provided::Updated } else { Provided::Adopted };
        self.set_deployment(id, how);
        Ok(DeploymentStep::Again(Duration::ZERO))
    }

    fn set_deployment(&mut self, id: &str, how: Provided) {
        let at_ms = self.job.now().as_millisecond();
        self.state.deployment = Some(DeploymentState { id: id.to_owned(), how, at_ms });
        (self.state.unanswered, self.state.wait) = (false, None);
    }

    /// Reads an existing deployment, applies the plan, and sends it as a whole.
    async fn change_deployment(&mut self, target: &str, id: &str, version: &str) -> Result<DeploymentStep, JobError> {
        let configuration = self.state.configuration.clone().unwrap_or_default();
        let (mut rounds, mut refused) = (0, None);
        while rounds < STALE_ROUNDS {
            let Some(read) = self.api.deployment(target).await? else {
                let message = format!("there is no deployment {target} any more");
                return Err(JobError { status: Some(404), ..JobError::permanent("deployment_not_found", message) });
            };
            match self.api.put_deployment(target, &self.plan.change_deployment(read, id, version)).await {
                Ok(Changed::Done) => {
                    self.set_deployment(target, Provided::Updated);
                    return Ok(DeploymentStep::Again(SETTLING));
                }
                Ok(Changed::Stale(error)) => (rounds, refused) = (rounds + 1, Some(error)),
                Err(error) if self.is_lag(&error, &configuration) => self.pause(TRY_EVERY).await?,
                Err(error) => return Err(error),
            }
        }
        Err(conflict_error(refused, "the deployment"))
    }
}
