//! The first step: the integration of the job's name is found, or created if there is none.

use std::time::Duration;

use genfleet_core::{
    audit::Detail,
    error::{ErrorClass, JobError},
};
use serde_json::Map;
use tokio::time::Instant;

use super::{
    super::{
        api::{self, Integration, Ordered},
        config::SourceIdentity,
    },
    BETWEEN_LOOKS, Halt, IntegrationSteps, READ_LAG,
};

/// Nothing is looked for sooner after it was created: an early read can keep it out of a cache.
const FIRST_LOOK: Duration = Duration::from_secs(2);

impl IntegrationSteps<'_> {
    /// Returns the id of the integration of this name, which is created if there is none.
    pub(super) async fn find_or_create(&mut self) -> Result<String, Halt> {
        let listed = self.api.list().await?;
        if let Some(found) = self.choose(&listed)? {
            if self.state.ordered {
                self.record_created(&found);
            }
            return Ok(found);
        }
        if let Some(id) = self.lately.find(&self.name) {
            self.state.created_at = Some(self.job.now());
            return Ok(id);
        }
        if self.state.ordered || self.job.was_redelivered() {
            // An earlier attempt may have created it, and lists may not show it yet: wait for READ_LAG, then look
            // again.
            self.state.ordered = false;
            return Err(Halt::Again(READ_LAG));
        }
        self.check_limit(listed.len()).await?;
        self.create().await
    }

    /// The integration of this name among those that are listed.
    fn choose(&mut self, listed: &[Integration]) -> Result<Option<String>, Halt> {
        let is_ours = |one: &&Integration| one.name.as_deref() == Some(self.name.as_str());
        let named: Vec<&Integration> = listed.iter().filter(is_ours).collect();
        if let [first, second, ..] = named.as_slice() {
            let message = format!(
                "{} integrations have the name {:?}, {} and {} among them: rename or delete all but one",
                named.len(),
                self.name,
                first.id,
                second.id
            );
            return Err(JobError::permanent("integration_ambiguous", message).into());
        }
        let wanted = SourceIdentity::of(self.payload);
        let ours = named.first();
        let feeds_it = |one: &Integration| one.identity().as_ref() == Some(&wanted);
        if !ours.is_some_and(|ours| feeds_it(ours))
            && let Some(other) = listed.iter().find(|one| !is_ours(one) && feeds_it(one))
        {
            let message = format!(
                "integration {} ({:?}) has this account, region and suffix already: choose another eventSourceSuffix, or \
                 name that integration",
                other.id,
                other.name.as_deref().unwrap_or_default()
            );
            return Err(JobError::permanent("source_taken", message).into());
        }
        self.intended_state = ours.and_then(|ours| ours.intended_state.clone());
        Ok(ours.map(|ours| ours.id.clone()))
    }

    async fn check_limit(&self, there: usize) -> Result<(), Halt> {
        let Some(most) = self.api.max_instances().await? else { return Ok(()) };
        if u64::try_from(there).is_ok_and(|there| there < most) {
            return Ok(());
        }
        let message = format!(
            "the organization has {there} Amazon EventBridge integrations, and may have {most}: delete one, or have the \
             limit raised"
        );
        Err(JobError::permanent("integration_limit_reached", message).into())
    }

    async fn create(&mut self) -> Result<String, Halt> {
        self.state.ordered = true;
        // Should the attempt be given up in the middle, the order may still arrive.
        self.job.record_progress(&self.state, Map::new());
        match self.api.create(&self.name).await {
            Ordered::Made(id) => {
                self.record_created(&id);
                // What was created is recorded before anything follows from it.
                Err(Halt::Again(FIRST_LOOK))
            }
            Ordered::Lost(error) => self.look_for_ordered(error).await,
            Ordered::Taken(error) => {
                self.state.ordered = false;
                let listed = self.api.list().await?;
                self.choose(&listed)?.ok_or_else(|| error.into())
            }
            Ordered::Refused(error) => {
                self.state.ordered = false;
                Err(error.into())
            }
        }
    }

    /// An order whose answer was lost: looked for by its name.
    async fn look_for_ordered(&mut self, error: JobError) -> Result<String, Halt> {
        let until = Instant::now() + READ_LAG;
        loop {
            self.pause(BETWEEN_LOOKS).await?;
            let listed = self.api.list().await?;
            if let Some(found) = self.choose(&listed)? {
                self.record_created(&found);
                let detail = Detail::default().with("integrationId", found.clone());
                self.job.record_found(&detail.with("endpoint", api::INTEGRATIONS));
                return Ok(found);
            }
            if Instant::now() >= until {
                self.state.ordered = false;
                return Err(JobError { class: ErrorClass::Transient, ..error }.into());
            }
        }
    }

    fn record_created(&mut self, id: &str) {
        self.lately.remember(&self.name, id);
        self.state.integration_id = Some(id.to_owned());
        self.state.created_at = Some(self.job.now());
        (self.state.created, self.state.wrote, self.state.ordered) = (true, true, false);
    }
}
