//! The configuration: an existing one, a changed draft, or a new one. The conditions for a deployment are checked
//! first.

use std::time::Duration;

use genfleet_core::{
    error::{ErrorClass, JobError},
    genesys::STALE_ROUNDS,
};
use tokio::time::Instant;

use super::{DeploymentStep, DeploymentSteps, READ_LAG, SETTLING, TRY_EVERY, conflict_error};
use crate::webdeployment::{
    api::{self, Changed, Object, Ordered},
    payload::Document,
    plan::ConfigurationSource,
    state::ConfigurationState,
    survey,
};

impl DeploymentSteps<'_> {
    /// Checks flow, names and limits, and then provides the configuration.
    pub(super) async fn provide_configuration(&mut self) -> Result<DeploymentStep, JobError> {
        self.check_flow().await?;
        let listed = loop {
            let deployments = self.api.deployments().await?;
            if let Some(own) = deployments.entities.iter().find(|one| self.plan.is_own(one)) {
                return self.adopt_deployment(own);
            }
            let configurations = match self.plan.configuration {
                ConfigurationSource::New(_) => Some(self.api.configurations().await?),
                ConfigurationSource::There { .. } | ConfigurationSource::Changed { .. } => None,
            };
            let entities = configurations.iter().flat_map(|listing| &listing.entities);
            if let Some(own) = entities.clone().find(|one| self.plan.is_own(one)) {
                return Ok(self.adopt_configuration(own));
            }
            if self.reads_are_settled() {
                break survey::Listed { deployments, configurations };
            }
            self.pause(TRY_EVERY).await?;
        };
        self.record_nothing_created();
        let target = survey::target(self.plan, &listed.deployments.entities)?;
        if target.is_some() && target != self.state.target {
            // This is a separate step, after which no other job works on that deployment in this process.
            self.check_target(target.as_deref()).await?;
            self.state.target = target;
            return Ok(DeploymentStep::Again(Duration::ZERO));
        }
        self.check_limits(&listed).await?;
        match &self.plan.configuration {
            ConfigurationSource::There { id, version } => self.choose_version(id, version.as_deref()).await,
            ConfigurationSource::Changed { id, document } => self.change_draft(id, document).await,
            ConfigurationSource::New(document) => self.make_configuration(document).await,
        }
    }

    async fn check_target(&self, target: Option<&str>) -> Result<(), JobError> {
        let Some(id) = target else { return Ok(()) };
        if self.api.deployment(id).await?.is_some() {
            return Ok(());
        }
        let message = format!("there is no deployment {id}: correct deploymentId, or leave it out");
        Err(JobError { status: Some(404), ..JobError::permanent("deployment_not_found", message) })
    }

    /// Checks that conversations can reach the queue of the job.
    async fn check_flow(&mut self) -> Result<(), JobError> {
        let flow = self.api.flow(&self.plan.flow_id).await?;
        let published = survey::published_flow(&self.plan.flow_id, flow.as_ref())?;
        let Some(queue) = &self.plan.queue_id else { return Ok(()) };
        if !self.api.has_queue(queue).await? {
            let message = format!("there is no routing queue {queue}: correct queueId, or leave it out");
            return Err(JobError { status: Some(404), ..JobError::permanent("queue_not_found", message) });
        }
        let uses = self.api.uses_queue(&self.plan.flow_id, &published, queue).await?;
        self.state.queue_verified = Some(uses == Some(true));
        match uses {
            Some(true) => {}
            Some(false) => self.warn(format!("version {published} of the flow does not use queue {queue}: see where the flow transfers conversations to")),
            None => self.warn("the platform does not report which queues the flow uses, so queueId was not compared".to_owned()),
        }
        Ok(())
    }

    async fn check_limits(&mut self, listed: &survey::Listed) -> Result<(), JobError> {
        let wanted = survey::count_added(self.state.target.is_none(), listed);
        if wanted.is_empty() {
            return Ok(());
        }
        let limits = self.api.limits().await?;
        for warning in survey::within_limits(&wanted, &limits)? {
            self.warn(warning);
        }
        Ok(())
    }

    /// Finds a version of an existing configuration.
    async fn choose_version(&mut self, id: &str, wanted: Option<&str>) -> Result<DeploymentStep, JobError> {
        let version = survey::choose_version(id, wanted, &self.api.published_versions(id).await?)?;
        self.state.configuration =
            Some(ConfigurationState { id: id.to_owned(), version: Some(version), ..ConfigurationState::default() });
        Ok(DeploymentStep::Again(Duration::ZERO))
    }

    /// Changes a draft. Sending the change twice has no further effect.
    async fn change_draft(&mut self, id: &str, document: &Document) -> Result<DeploymentStep, JobError> {
        let mut refused = None;
        for _ in 0..STALE_ROUNDS {
            let Some(draft) = self.api.draft(id).await? else {
                let message =
                    format!("there is no configuration {id}: correct configuration.id, or leave it out to make one");
                return Err(JobError { status: Some(404), ..JobError::permanent("configuration_not_found", message) });
            };
            // Versions that are published after this belong to this job if they have its marker.
            match self.api.put_draft(id, &self.plan.change_draft(document, draft)).await? {
                Changed::Done => {
                    let changed_at_ms = self.job.now().as_millisecond();
                    self.state.configuration =
                        Some(ConfigurationState { id: id.to_owned(), changed_at_ms, ..ConfigurationState::default() });
                    return Ok(DeploymentStep::Again(SETTLING));
                }
                Changed::Stale(error) => refused = Some(error),
            }
        }
        Err(conflict_error(refused, "the draft of the configuration"))
    }

    /// Creates a configuration.
    async fn make_configuration(&mut self, document: &Document) -> Result<DeploymentStep, JobError> {
        self.record_creation_begun();
        let error = match self.api.create_configuration(&self.plan.new_configuration(document)).await {
            Ordered::Made(made) => {
                self.set_configuration(&made, false);
                return Ok(DeploymentStep::Again(SETTLING));
            }
            Ordered::Refused(error) => {
                self.state.unanswered = self.was_interrupted;
                return Err(error);
            }
            Ordered::Lost(error) => error,
        };
        let until = Instant::now() + READ_LAG;
        loop {
            self.pause(SETTLING).await?;
            let listing = self.api.configurations().await?;
            if let Some(own) = listing.entities.iter().find(|one| self.plan.is_own(one)) {
                self.was_interrupted = false;
                return Ok(self.adopt_configuration(own));
            }
            if Instant::now() >= until {
                return Err(JobError { class: ErrorClass::Transient, ..error });
            }
        }
    }

    /// Returns a configuration with the job's marker, which an earlier attempt or a request with a lost answer created.
    fn adopt_configuration(&mut self, own: &Object) -> DeploymentStep {
        self.record_found(api::CONFIGURATIONS, "configurationId", own);
        self.set_configuration(own, self.was_interrupted);
        DeploymentStep::Again(Duration::ZERO)
    }

    fn set_configuration(&mut self, object: &Object, unanswered: bool) {
        let id = api::id(object).unwrap_or_default().to_owned();
        let changed_at_ms = self.job.now().as_millisecond();
        self.state.configuration = Some(ConfigurationState { id, version: None, made: true, changed_at_ms });
        self.state.unanswered = unanswered;
    }
}
