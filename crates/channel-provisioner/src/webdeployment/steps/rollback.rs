//! The end of a job that fails: keeps or deletes the configuration that it created.

use std::time::Duration;

use genfleet_core::{
    error::{ErrorClass, JobError},
    failure::Failure,
};

use super::{DeploymentStep, DeploymentSteps, READ_LAG, TRY_EVERY};
use crate::webdeployment::{CODES, api::Deleted, state::since};

impl DeploymentSteps<'_> {
    /// Deletes the configuration, and fails the job.
    pub(super) async fn undo(&self, failure: Failure) -> JobError {
        let failed = failure.into_error(&CODES);
        let Some(configuration) = &self.state.configuration else { return failed };
        let deleted = loop {
            let young = since(configuration.changed_at_ms, self.job.now()) < READ_LAG;
            match self.api.delete_configuration(&configuration.id).await {
                Ok(Deleted::NotThere) if young => {}
                other => break other,
            }
            if let Err(interrupted) = self.pause(TRY_EVERY).await {
                return interrupted;
            }
        };
        match deleted {
            Ok(Deleted::Removed | Deleted::NotThere) => {
                with_outcome(failed, &configuration.id, true, "was removed again")
            }
            Err(error) => match error.class {
                ErrorClass::Held { .. } | ErrorClass::Credentials | ErrorClass::Interrupted => error,
                ErrorClass::Permanent | ErrorClass::Transient | ErrorClass::Ambiguous => {
                    let what = format!("could not be removed and stays: {}", error.message);
                    with_outcome(failed, &configuration.id, false, &what)
                }
            },
        }
    }

    /// Decides the consequence of an error: the job continues later, fails, or deletes its configuration in a separate
    /// step.
    pub(super) fn handle_failure(&mut self, error: JobError) -> Result<DeploymentStep, JobError> {
        let ends = match error.class {
            ErrorClass::Permanent => true,
            ErrorClass::Transient | ErrorClass::Ambiguous => self.job.is_last_attempt(),
            ErrorClass::Held { .. } | ErrorClass::Credentials | ErrorClass::Interrupted => false,
        };
        let own = self.state.configuration.clone().filter(|one| one.made && self.state.deployment.is_none());
        let (Some(configuration), true) = (own, ends) else { return Err(error) };
        if !self.plan.rollback {
            return Err(with_outcome(error, &configuration.id, false, "stays: rollback is false"));
        }
        if self.state.unanswered && configuration.version.is_some() {
            return Err(with_outcome(error, &configuration.id, false, "stays: a deployment may use it"));
        }
        self.state.undoing = Some(Failure::from(&error));
        Ok(DeploymentStep::Again(Duration::ZERO))
    }
}

/// Adds the fate of the configuration to `error`.
fn with_outcome(mut error: JobError, id: &str, rolled_back: bool, what: &str) -> JobError {
    error.message = format!("{}; configuration {id} {what}", error.message);
    error.details.insert("configurationId".to_owned(), id.into());
    error.details.insert("rolledBack".to_owned(), rolled_back.into());
    error
}
