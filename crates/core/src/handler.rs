//! The interface between the runtime and a worker: the trait [`JobHandler`], what a handler is given ([`JobContext`],
//! [`Services`]) and what it returns ([`Progress`] or a [`JobError`]).

use std::{fmt, future::Future, time::Duration};

use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};

pub use self::job_context::JobContext;
use crate::terms::ContractTerms;
use genfleet_genesys::{GenesysClient, Rights};
use genfleet_job::{
    Kind, Violation, clock::SharedClock, error::JobError, options::ConfigError, retry::RetryPolicy,
    supervisor::Supervisor,
};

mod job_context;

/// A worker: its kind of job, the types of its payload and report, and the code that runs a job.
pub trait JobHandler: Send + Sync + Sized + 'static {
    /// The kind: the routing key, part of the queue names, and a metric label.
    const KIND: Kind;
    /// `action` of a successful event.
    const ACTION: &'static str;
    /// `action` of its intents, effects and successful outcomes in the audit.
    const AUDIT_ACTION: &'static str = Self::ACTION;
    /// `action` of its other outcomes in the audit.
    const AUDIT_FAILURE: &'static str = Self::AUDIT_ACTION;
    /// OAuth scopes that its API calls need, for the endpoints of the tutorials; they are asked for with the token.
    const SCOPES: &'static [&'static str] = &[];
    /// Permissions that its API calls need, for endpoints of the platform: the roles of the OAuth client have them.
    const PERMISSIONS: &'static [&'static str] = &[];
    /// Default number of jobs in flight; also the prefetch.
    const CONCURRENCY: usize;

    /// Settings of this worker. Their names are unique over all workers, since one process can run all of them.
    type Options: clap::Args + Clone + fmt::Debug + Send + Sync;
    /// Payload of a job. Its JSON Schema is the validator, so that all violations are found at once.
    type Payload: DeserializeOwned + JsonSchema + Send;
    /// State that a started job takes to its next attempt, at most 16 KiB as JSON. Only optional fields may be added.
    type State: Serialize + DeserializeOwned + Default + Send;
    /// `report` of a successful event.
    type Report: Serialize + JsonSchema + Send;

    /// The rights that the OAuth client needs for its API calls.
    fn rights() -> Rights {
        Rights { scopes: Self::SCOPES, permissions: Self::PERMISSIONS }
    }

    /// Returns the reason why jobs of this kind are not worked with these settings, with the setting that is missing.
    /// `None`, the default, if they are worked.
    fn why_not_worked(_options: &Self::Options) -> Option<String> {
        None
    }

    /// Finds mistakes in the settings that show without a request, so that the process does not start with them.
    fn check(_options: &Self::Options) -> Result<(), ConfigError> {
        Ok(())
    }

    /// Returns true if jobs of this kind call Genesys Cloud with these settings: the default. A process none of whose
    /// kinds does needs no credentials for it.
    fn calls_genesys(_options: &Self::Options) -> bool {
        true
    }

    /// Looks for `genfleet doctor` whether the services that this kind needs besides Genesys Cloud can be used. Changes
    /// nothing.
    fn examine(_options: Self::Options) -> impl Future<Output = Vec<ServiceCheck>> + Send {
        std::future::ready(Vec::new())
    }

    /// Creates the handler and starts its background tasks.
    fn new(options: Self::Options, services: &Services) -> Result<Self, ConfigError>;

    /// Checks the rules that the schema cannot express. Pure: no I/O, no clock. Pointers start at `/payload`. `options`
    /// are the worker's, or those that were given to the tool.
    fn validate(payload: &Self::Payload, options: &Self::Options) -> Vec<Violation>;

    /// Chooses the waits between attempts; `general` is the policy that the settings set for all kinds.
    fn retries(&self, general: RetryPolicy) -> RetryPolicy {
        general
    }

    /// Describes this kind in the published contract: rules, examples, error codes. Tests check it for every kind.
    fn terms() -> ContractTerms {
        ContractTerms::default()
    }

    /// Runs one attempt. It may run more than once for one message, so it must be safe to repeat. Once
    /// [`JobContext::stop`] is cancelled, send no further request, finish the one in flight and return
    /// [`JobError::interrupted`] with the state to continue from.
    fn handle(
        &self,
        job: &JobContext,
        payload: Self::Payload,
        state: Self::State,
    ) -> impl Future<Output = Result<Progress<Self>, JobError>> + Send;
}

/// A check by a worker for `genfleet doctor`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceCheck {
    /// The name of the check, for programs.
    pub check: &'static str,
    /// The subject of the check.
    pub looked_at: String,
    /// The result: good, or a problem with its remedy.
    pub found: Result<String, (String, String)>,
}

/// Result of a successful attempt.
#[derive(Debug)]
pub enum Progress<H: JobHandler> {
    /// The job is done.
    Done(H::Report),
    /// The job made a step and comes back through the resume queue with this state.
    Begun {
        /// State to continue from.
        state: H::State,
        /// Delay until the next attempt.
        again_in: Duration,
    },
}

/// Services of the process that a handler may use.
#[derive(Clone, Debug)]
pub struct Services {
    /// Client of the Genesys Cloud API.
    pub genesys: GenesysClient,
    /// Runs background tasks; the process ends when one of them does.
    pub supervisor: Supervisor,
    /// The time of day.
    pub clock: SharedClock,
}
