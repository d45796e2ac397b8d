//! The steps of a job: find the integration by its name or create it, configure it, switch it on or off, wait for it. Each
//! step looks before it writes, so that a job that comes again writes nothing twice.
//!
//! The platform takes no ids of ours and shows a new integration late. So a job that may have created one looks for its
//! name before it creates any; what was created is in the job's state before anything follows from it.

use std::time::Duration;

use genfleet_core::{
    audit::Detail,
    error::{ErrorClass, JobError},
    genesys::ApiError,
    handler::JobContext,
    retry,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Map;
use tokio::{sync::OnceCell, time::Instant};
use tracing::info;

use super::{
    api::{self, Integration, Integrations, Ordered, Replaced},
    config::{Config, Identity},
    lately::LatelyCreated,
    payload::Payload,
};
use crate::payload::OnConflict;

/// Reads lag writes by at most this.
const READ_LAG: Duration = Duration::from_secs(15);
/// Nothing is looked for sooner after it was created: an early read can keep it out of a cache.
const FIRST_LOOK: Duration = Duration::from_secs(2);
/// Between two looks in memory.
const BETWEEN_LOOKS: Duration = Duration::from_secs(2);
/// Looks at a state in memory; further ones wait in the queue.
const LOOKS: u32 = 10;
/// An integration that is not in its state after this fails the attempt.
const ACTIVATE_TIMEOUT: Duration = Duration::from_secs(180);
/// The first wait in the queue; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_secs(5);
/// Rounds of reading and sending again, at most.
const MOST_ROUNDS: u32 = 5;

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
    /// An order was sent, and nobody has looked what became of it.
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
pub(crate) struct Steps<'a> {
    job: &'a JobContext,
    api: Integrations<'a>,
    payload: &'a Payload,
    name: String,
    lately: &'a LatelyCreated,
    /// What the job takes to its next attempt.
    pub state: State,
    /// The intended state, as far as it is known.
    told: Option<String>,
}

impl<'a> Steps<'a> {
    /// An attempt of `job` that goes on from `state`.
    pub(crate) fn new(job: &'a JobContext, payload: &'a Payload, lately: &'a LatelyCreated, state: State) -> Self {
        Self { job, api: Integrations::new(job), payload, name: payload.name(), lately, state, told: None }
    }

    /// All steps that are left. `organization` is kept for the jobs to come.
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

    async fn find_or_create(&mut self) -> Result<String, Halt> {
        let listed = self.api.list().await?;
        if let Some(found) = self.choose(&listed)? {
            if self.state.ordered {
                self.made(&found);
            }
            return Ok(found);
        }
        if let Some(id) = self.lately.find(&self.name) {
            self.state.created_at = Some(self.job.now());
            return Ok(id);
        }
        if self.state.ordered || self.job.was_redelivered() {
            // An earlier life may have ordered it: it is given the time to be seen.
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
        let wanted = Identity::of(self.payload);
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
        self.told = ours.and_then(|ours| ours.intended_state.clone());
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
        self.job.reached(&self.state, Map::new());
        match self.api.create(&self.name).await {
            Ordered::Made(id) => {
                self.made(&id);
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
                self.made(&found);
                let detail = Detail::default().with("integrationId", found.clone());
                self.job.found(&detail.with("endpoint", api::INTEGRATIONS));
                return Ok(found);
            }
            if Instant::now() >= until {
                self.state.ordered = false;
                return Err(JobError { class: ErrorClass::Transient, ..error }.into());
            }
        }
    }

    fn made(&mut self, id: &str) {
        self.lately.remember(&self.name, id);
        self.state.integration_id = Some(id.to_owned());
        self.state.created_at = Some(self.job.now());
        (self.state.created, self.state.wrote, self.state.ordered) = (true, true, false);
    }

    /// Stores the configuration past what others change meanwhile.
    async fn configure(&mut self, id: &str) -> Result<Configured, Halt> {
        let (mut conflicts, mut waits) = (0, retry::rounds());
        let mut stale: Option<ApiError> = None;
        loop {
            let config = self.config(id).await?;
            let wanted = config.wanted(self.payload);
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
                    return Err(self.given_up(error, conflicts).into());
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
    async fn config(&mut self, id: &str) -> Result<Config, Halt> {
        let until = Instant::now() + READ_LAG;
        loop {
            if let Some(config) = self.api.config(id, &self.name).await? {
                return Ok(config);
            }
            let age = self.state.created_at.map(|at| self.since(at));
            match age {
                Some(age) if age < READ_LAG && Instant::now() < until => self.pause(BETWEEN_LOOKS).await?,
                Some(age) if age < self.job.settle_timeout() => return Err(self.later()),
                Some(_) | None => return Err(self.gone(id, age).into()),
            }
        }
    }

    /// It was listed, or created, and is not there: the next attempt looks for its name again.
    fn gone(&mut self, id: &str, age: Option<Duration>) -> JobError {
        self.lately.forget(&self.name);
        self.state = State::default();
        let since = age.map_or_else(
            || "although it is listed".to_owned(),
            |age| format!("{} s after it was created", age.as_secs()),
        );
        let message = format!("integration {id} is not there (404) {since}: somebody may have deleted it");
        JobError { status: Some(404), ..JobError::new(ErrorClass::Transient, "not_found", message) }
    }

    fn check_identity(&self, id: &str, config: &Config) -> Result<(), Halt> {
        let wanted = Identity::of(self.payload);
        let Some(there) = config.identity().filter(|there| *there != wanted) else { return Ok(()) };
        let message = format!(
            "integration {id} ({:?}) feeds another event source: {}. Its events would stop there: choose another name, or \
             delete that integration first",
            self.name,
            there.differences(&wanted)
        );
        Err(JobError::permanent("source_identity_changed", message).into())
    }

    fn check_version(&self, config: &Config) -> Result<(), Halt> {
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

    fn given_up(&self, stale: ApiError, conflicts: u32) -> JobError {
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

    /// Says which state is intended, and waits until it is reported.
    async fn activate(&mut self, id: &str) -> Result<String, Halt> {
        let (intended, reported) =
            if self.payload.enabled() { ("ENABLED", "ACTIVE") } else { ("DISABLED", "INACTIVE") };
        // A new integration is not enabled.
        let mut told = self.told.take().or_else(|| self.state.created.then(|| "DISABLED".to_owned()));
        let mut had_error = self.state.waits > 0;
        let mut looks = 0;
        loop {
            if !self.state.intended && told.as_deref().is_some_and(|told| told != intended) {
                self.api.intend(id, intended).await?;
                (self.state.intended, self.state.wrote) = (true, true);
            }
            let seen = self.api.look(id).await?.unwrap_or_default();
            told.clone_from(&seen.intended_state);
            if !self.state.intended && told.as_deref().is_some_and(|told| told != intended) {
                continue;
            }
            let code = seen.reported();
            if code == reported {
                return Ok(code);
            }
            // One look may still show what was wrong before this job changed something.
            if code == "ERROR" && had_error {
                let message = format!(
                    "integration {id} reports ERROR: {:.300}; correct the job or the AWS account, and send it again",
                    seen.reason()
                );
                return Err(JobError::permanent("integration_error", message).into());
            }
            had_error = code == "ERROR";
            looks += 1;
            if looks >= LOOKS || self.state.waits > 0 {
                return Err(self.not_yet(id, &code, reported));
            }
            self.state.waiting_since.get_or_insert_with(|| self.job.now());
            self.pause(BETWEEN_LOOKS).await?;
        }
    }

    fn not_yet(&mut self, id: &str, code: &str, wanted: &str) -> Halt {
        let since = *self.state.waiting_since.get_or_insert_with(|| self.job.now());
        let age = self.since(since);
        if age < ACTIVATE_TIMEOUT {
            return self.later();
        }
        // The next attempt begins with what is there then.
        self.state.configured = None;
        (self.state.intended, self.state.waits, self.state.waiting_since) = (false, 0, None);
        let code = if code.is_empty() { "nothing" } else { code };
        let message = format!("integration {id} reports {code}, not {wanted}, after {} s", age.as_secs());
        JobError::new(ErrorClass::Transient, "not_active", message).into()
    }

    /// On through the queue, each time after twice the wait.
    fn later(&mut self) -> Halt {
        let wait = FIRST_WAIT.saturating_mul(1 << self.state.waits.min(3));
        self.state.waits += 1;
        Halt::Again(wait)
    }

    fn since(&self, earlier: Timestamp) -> Duration {
        Duration::try_from(self.job.now().duration_since(earlier)).unwrap_or_default()
    }

    async fn pause(&self, wait: Duration) -> Result<(), Halt> {
        let slept = self.job.stop().run_until_cancelled(tokio::time::sleep(wait)).await;
        slept.ok_or_else(|| JobError::interrupted().into())
    }
}
