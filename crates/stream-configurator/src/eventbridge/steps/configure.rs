//! The second step: the configuration is stored, unless it is as it should be.

use std::time::Duration;

use genfleet_core::{
    error::{ErrorClass, JobError},
    genesys::ApiError,
    retry,
};
use tokio::time::Instant;
use tracing::info;

use super::{
    super::{
        api::Replaced,
        config::{IntegrationConfig, SourceIdentity},
    },
    BETWEEN_LOOKS, Configured, Halt, IntegrationSteps, READ_LAG, State,
};
use crate::payload::OnConflict;

/// Rounds of reading and sending again, at most.
const MOST_ROUNDS: u32 = 5;

impl IntegrationSteps<'_> {
    /// Stores the configuration, also if others change it at the same time: then reads it again and repeats, at most
    /// [`MOST_ROUNDS`] times.
    pub(super) async fn configure(&mut self, id: &str) -> Result<Configured, Halt> {
        let (mut conflicts, mut waits) = (0, retry::rounds());
        let mut stale: Option<ApiError> = None;
        loop {
            let config = self.config(id).await?;
            let wanted = config.with_changes_of(self.payload);
            self.check_identity(id, &config)?;
            let properties_sha256 = wanted.properties_sha256();
            if config.is(&wanted) {
                self.state.wrote |= self.state.unanswered;
                return Ok(Configured { version: config.version, conflicts, properties_sha256 });
            }
            if let Some(error) = stale.take() {
                conflicts += 1;
                info!(integration_id = id, conflicts, "another version is there: {}", error.message);
                if self.payload.on_conflict != OnConflict::Overwrite || conflicts > MOST_ROUNDS {
                    return Err(self.conflict_error(error, conflicts).into());
                }
                if conflicts > 1 {
                    self.pause(waits.next().unwrap_or_default()).await?;
                }
            }
            self.check_version(&config)?;
            match self.api.replace(id, &wanted).await {
                Ok(Replaced::Done(version)) => {
                    (self.state.wrote, self.state.unanswered) = (true, false);
                    let version = version.unwrap_or(config.version);
                    return Ok(Configured { version, conflicts, properties_sha256 });
                }
                Ok(Replaced::Stale(error)) => {
                    // The version may be stale because of what this job sent itself.
                    self.state.unanswered |= error.requests > 1;
                    stale = Some(error);
                }
                Err(error) => {
                    self.state.unanswered |= error.requests > 0 && error.class != ErrorClass::Permanent;
                    return Err(error.into());
                }
            }
        }
    }

    /// The configuration; one that was created a moment ago is waited for.
    async fn config(&mut self, id: &str) -> Result<IntegrationConfig, Halt> {
        let until = Instant::now() + READ_LAG;
        loop {
            if let Some(config) = self.api.config(id, &self.name).await? {
                return Ok(config);
            }
            let age = self.state.created_at.map(|at| self.since(at));
            match age {
                Some(age) if age < READ_LAG && Instant::now() < until => self.pause(BETWEEN_LOOKS).await?,
                Some(age) if age < self.job.settle_timeout => return Err(self.later()),
                Some(_) | None => return Err(self.handle_missing(id, age).into()),
            }
        }
    }

    /// Creates the error for an integration that was listed or created but cannot be read (404). The next attempt looks
    /// for its name.
    fn handle_missing(&mut self, id: &str, age: Option<Duration>) -> JobError {
        self.lately.forget(&self.name);
        self.state = State::default();
        let since = age.map_or_else(
            || "although it is listed".to_owned(),
            |age| format!("{} s after it was created", age.as_secs()),
        );
        let message = format!("integration {id} is not there (404) {since}: somebody may have deleted it");
        JobError { status: Some(404), ..JobError::new(ErrorClass::Transient, "not_found", message) }
    }

    fn check_identity(&self, id: &str, config: &IntegrationConfig) -> Result<(), Halt> {
        let wanted = SourceIdentity::of(self.payload);
        let Some(there) = config.identity().filter(|there| *there != wanted) else { return Ok(()) };
        let message = format!(
            "integration {id} ({:?}) feeds another event source: {}. Its events would stop there: choose another name, or \
             delete that integration first",
            self.name,
            there.differences(&wanted)
        );
        Err(JobError::permanent("source_identity_changed", message).into())
    }

    fn check_version(&self, config: &IntegrationConfig) -> Result<(), Halt> {
        let is_bound = self.payload.on_conflict == OnConflict::Fail && !self.state.created && !self.state.unanswered;
        match self.payload.version {
            Some(version) if is_bound && version != config.version => {
                let message = format!(
                    "the configuration has version {}, not {version}, and onConflict is fail: read it, and send the job \
                     again with its version",
                    config.version
                );
                Err(JobError::permanent("conflict", message).into())
            }
            _ => Ok(()),
        }
    }

    fn conflict_error(&self, stale: ApiError, conflicts: u32) -> JobError {
        let mut error = JobError::from(stale);
        let why = if self.payload.on_conflict == OnConflict::Overwrite {
            format!("somebody else was first {conflicts} times in a row: find out who keeps changing it")
        } else {
            "onConflict is fail: read the configuration, and send the job again with its version".to_owned()
        };
        error.message = format!("{}; {why}", error.message);
        (error.class, error.code) = (ErrorClass::Permanent, "conflict");
        error.details.insert("conflicts".to_owned(), conflicts.into());
        error
    }
}
