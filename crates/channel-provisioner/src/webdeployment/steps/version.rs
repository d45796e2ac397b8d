//! Publishes a version of the draft that the job created or changed.

use std::time::Duration;

use genfleet_core::error::{ErrorClass, JobError};
use tokio::time::Instant;

use super::{DeploymentStep, DeploymentSteps, NextCheck, READ_LAG, SETTLING, TRY_EVERY};
use crate::webdeployment::{
    api::{Ordered, published_version},
    state::{ConfigurationState, WaitedFor},
    survey,
};

impl DeploymentSteps<'_> {
    /// Publishes the draft that this job created or changed.
    pub(super) async fn publish(&mut self, configuration: ConfigurationState) -> Result<DeploymentStep, JobError> {
        let id = configuration.id.clone();
        while self.was_interrupted {
            if let Some(version) = self.own_version(&configuration).await? {
                return Ok(self.set_version(configuration, version));
            }
            if self.reads_are_settled() {
                self.record_nothing_created();
                break;
            }
            self.pause(TRY_EVERY).await?;
        }
        loop {
            let draft = self.api.draft(&id).await?;
            match survey::status(draft.as_ref()) {
                Some("active") => break,
                Some("error") => {
                    let message = format!(
                        "the platform puts configuration {id} into the status Error: correct its document, and send the job again"
                    );
                    return Err(JobError::permanent("configuration_error", message));
                }
                _ => {}
            }
            let settle = self.job.settle_timeout;
            match self.look_again(WaitedFor::Draft, settle).await? {
                NextCheck::Now => {}
                NextCheck::Later(wait) => return Ok(DeploymentStep::Again(wait)),
                NextCheck::Never => {
                    return Err(self.not_active(&format!("the draft of configuration {id} is not active"), settle));
                }
            }
        }
        self.record_creation_begun();
        loop {
            match self.api.publish(&id).await {
                Ordered::Made(version) => {
                    self.was_interrupted = false;
                    let version = published_version(&version).unwrap_or_default();
                    return Ok(self.set_version(configuration, version));
                }
                Ordered::Refused(error) if self.is_lag(&error, &configuration) => self.pause(TRY_EVERY).await?,
                Ordered::Refused(error) => {
                    self.state.unanswered = self.was_interrupted;
                    return match self.own_version(&configuration).await? {
                        Some(version) => Ok(self.set_version(configuration, version)),
                        None => Err(error),
                    };
                }
                Ordered::Lost(error) => return self.find_version(configuration, error).await,
            }
        }
    }

    /// Finds the version of a request whose answer was lost.
    async fn find_version(
        &mut self,
        configuration: ConfigurationState,
        error: JobError,
    ) -> Result<DeploymentStep, JobError> {
        let until = Instant::now() + READ_LAG;
        loop {
            self.pause(SETTLING).await?;
            if let Some(version) = self.own_version(&configuration).await? {
                return Ok(self.set_version(configuration, version));
            }
            if Instant::now() >= until {
                return Err(JobError { class: ErrorClass::Transient, ..error });
            }
        }
    }

    /// Returns the newest version that this job published.
    async fn own_version(&self, configuration: &ConfigurationState) -> Result<Option<String>, JobError> {
        let mut versions = self.api.published_versions(&configuration.id).await?;
        versions.retain(|version| configuration.made || self.plan.is_own(version));
        Ok(survey::newest(&versions))
    }

    pub(super) fn set_version(&mut self, configuration: ConfigurationState, version: String) -> DeploymentStep {
        let changed_at_ms = self.job.now().as_millisecond();
        self.state.configuration = Some(ConfigurationState { version: Some(version), changed_at_ms, ..configuration });
        self.state.unanswered = self.was_interrupted;
        self.state.wait = None;
        DeploymentStep::Again(Duration::ZERO)
    }
}
