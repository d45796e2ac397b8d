//! Verifies that a deployment is as requested, and that browsers get it.

use std::time::Duration;

use genfleet_core::{
    error::{ErrorClass, JobError},
    retry::NextLook,
};

use super::{DeploymentStep, DeploymentSteps, NextCheck};
use crate::webdeployment::{
    api::{self, Object, published_version},
    payload::WantedStatus,
    report::WebDeploymentReport,
    state::{ConfigurationState, DeploymentState, WaitedFor},
    survey,
};

impl DeploymentSteps<'_> {
    /// Waits until the deployment is as requested, and browsers get it.
    pub(super) async fn prove(&mut self, deployment: DeploymentState) -> Result<DeploymentStep, JobError> {
        let (settle, activate) = (self.job.settle_timeout, self.job.activate_timeout);
        let id = &deployment.id;
        let read = loop {
            let read = self.api.deployment(id).await?;
            match (survey::status(read.as_ref()), self.plan.status) {
                (Some("active"), WantedStatus::Active | WantedStatus::Unknown)
                | (Some("inactive"), WantedStatus::Inactive) => {
                    break read.unwrap_or_default();
                }
                (Some("error"), _) => {
                    let message = format!(
                        "the platform puts deployment {id} into the status Error; it stays: see what the platform's user interface says about it"
                    );
                    return Err(JobError::permanent("deployment_error", message));
                }
                _ => {}
            }
            match self.look_again(WaitedFor::Status, activate).await? {
                NextCheck::Now => {}
                NextCheck::Later(wait) => return Ok(DeploymentStep::Again(wait)),
                NextCheck::Never => {
                    let wanted = if self.plan.status == WantedStatus::Inactive { "inactive" } else { "active" };
                    return Err(self.not_active(&format!("deployment {id} is there and not {wanted}"), activate));
                }
            }
        };
        self.read_configuration(&read);
        let configuration = self.state.configuration.clone().unwrap_or_default();
        let version = configuration.version.unwrap_or_default();
        if self.plan.status != WantedStatus::Inactive {
            while !survey::serves(self.api.served_version(id).await?.as_ref(), &configuration.id, &version) {
                match self.look_again(WaitedFor::Version, settle).await? {
                    NextCheck::Now => {}
                    NextCheck::Later(wait) => return Ok(DeploymentStep::Again(wait)),
                    NextCheck::Never => {
                        let what = format!(
                            "deployment {id} does not serve version {version} of configuration {}",
                            configuration.id
                        );
                        return Err(self.not_active(&what, settle));
                    }
                }
            }
        }
        let edge_verified = match self.edge_shows(id, &version).await? {
            Some(false) => match self.look_again(WaitedFor::Edge, self.edge_timeout).await? {
                NextCheck::Later(wait) => return Ok(DeploymentStep::Again(wait)),
                NextCheck::Now | NextCheck::Never => Some(false),
            },
            shown => shown,
        };
        if edge_verified == Some(false) {
            let address = self.edge.address(id).map(String::from).unwrap_or_default();
            self.warn(format!("browsers are not given version {version} yet: {address} does not show it"));
        }
        Ok(DeploymentStep::Done(WebDeploymentReport::new(
            self.plan,
            &self.state,
            &deployment,
            &read,
            edge_verified,
            self.edge.domain(),
        )))
    }

    /// Reads the configuration of an adopted deployment, if the list did not show it.
    fn read_configuration(&mut self, read: &Object) {
        let known = self.state.configuration.as_ref().is_some_and(|one| one.version.is_some() && !one.id.is_empty());
        if let Some(shown) = read.get("configuration").and_then(|one| one.as_object()).filter(|_| !known) {
            let id = api::id(shown).unwrap_or_default().to_owned();
            let made = self.state.configuration.as_ref().is_some_and(|one| one.made);
            let version = published_version(shown);
            self.state.configuration = Some(ConfigurationState { id, version, made, changed_at_ms: 0 });
        }
    }

    /// Checks whether browsers get this version; `None` if the job does not request this check.
    async fn edge_shows(&mut self, id: &str, version: &str) -> Result<Option<bool>, JobError> {
        if !self.plan.verify_edge || self.plan.status == WantedStatus::Inactive {
            return Ok(None);
        }
        if self.edge.address(id).is_none() {
            let message = "what browsers are given was not checked: the workers know no content delivery network; see --genesys-cdn-url";
            self.warn(message.to_owned());
            return Ok(None);
        }
        Ok(Some(self.edge.version(self.job, id).await?.as_deref() == Some(version)))
    }

    /// Creates the error for a deployment or draft that reads do not show yet. The next attempt waits as long again.
    pub(super) fn not_active(&mut self, what: &str, timeout: Duration) -> JobError {
        self.state.wait = None;
        let message = format!("{what} after {} s: the job looks again with its next attempt", timeout.as_secs());
        JobError::new(ErrorClass::Transient, "not_active", message)
    }

    /// Decides when to check again.
    pub(super) async fn look_again(&mut self, of: WaitedFor, timeout: Duration) -> Result<NextCheck, JobError> {
        match self.state.next_check(of, self.job.now(), timeout) {
            Some(NextLook::Here(wait)) => self.pause(wait).await.map(|()| NextCheck::Now),
            Some(NextLook::InQueue(wait)) => Ok(NextCheck::Later(wait)),
            None => Ok(NextCheck::Never),
        }
    }
}
