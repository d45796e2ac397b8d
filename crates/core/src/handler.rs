//! What a worker's author has to read: [`JobHandler`], what it is given ([`JobContext`], [`Services`]) and what
//! it answers ([`Progress`] or a [`JobError`]).

use std::{
    fmt,
    future::Future,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::SharedClock,
    error::JobError,
    genesys::{
        client::GenesysClient,
        error::ApiError,
        request::{ApiAnswer, ApiRequest, Caller},
    },
    job::{DEFAULT_MAX_ATTEMPTS, JobId, Kind, Violation},
    options::ConfigError,
    worker::tasks::Tasks,
};

/// What differs between workers before anybody sets anything; shown by `--help`.
#[derive(Clone, Copy, Debug)]
pub struct Defaults {
    /// Jobs in flight, also the prefetch.
    pub concurrency: usize,
}

/// One kind of job: what it asks for, what it does, what it tells.
pub trait JobHandler: Send + Sync + Sized + 'static {
    /// Routing key, queue, metric label.
    const KIND: Kind;
    /// `action` of a successful event.
    const ACTION: &'static str;
    /// OAuth scopes its calls need.
    const SCOPES: &'static [&'static str];
    /// See [`Defaults`].
    const DEFAULTS: Defaults;
    /// Codes of its own with which a job can fail for good, beside those of SPEC 2: in the metrics from the start.
    const CODES: &'static [&'static str] = &[];

    /// The worker's own settings; names are unique over all workers, since one process can run all.
    type Options: clap::Args + Clone + fmt::Debug + Send + Sync;
    /// What upstream sends. Its JSON Schema is the validator, so every violation is found at once.
    type Payload: DeserializeOwned + JsonSchema + Send;
    /// What a begun job remembers, at most 16 KiB as JSON. Changes only by optional fields.
    type State: Serialize + DeserializeOwned + Default + Send;
    /// What a successful event reports.
    type Report: Serialize + Send;

    /// The handler, with whatever it starts in the background.
    fn new(options: Self::Options, services: &Services) -> Result<Self, ConfigError>;

    /// What the schema cannot say. Pure: no I/O, no clock. Pointers start at `/payload`.
    fn validate(payload: &Self::Payload) -> Vec<Violation>;

    /// Works the job. May run more than once for one message: make it safe to repeat. Once
    /// [`JobContext::stop`] is cancelled, begin no further request, finish the one in flight and answer
    /// [`JobError::interrupted`] with the state to go on from.
    fn handle(
        &self,
        job: &JobContext,
        payload: Self::Payload,
        state: Self::State,
    ) -> impl Future<Output = Result<Progress<Self>, JobError>> + Send;
}

/// How far a job came.
#[derive(Debug)]
pub enum Progress<H: JobHandler> {
    /// Done.
    Done(H::Report),
    /// A durable step: the job comes back by the resume queue with this state.
    Begun {
        /// What to go on from.
        state: H::State,
        /// When.
        again_in: Duration,
    },
}

/// What a handler may use for as long as the process lives.
#[derive(Clone, Debug)]
pub struct Services {
    /// The API.
    pub genesys: GenesysClient,
    /// Background tasks that others depend on: one that ends, ends the process.
    pub tasks: Tasks,
    /// The time of day.
    pub clock: SharedClock,
}

/// One attempt of one job, as its handler sees it.
#[derive(Debug)]
pub struct JobContext {
    /// Whose attempt.
    pub id: JobId,
    /// Its kind.
    pub kind: Kind,
    /// Attempts that ended before this one.
    pub attempts: u32,
    /// After so many the job fails for good.
    pub max_attempts: u32,
    /// Redrives from the dead letters so far.
    pub generation: u32,
    /// Handed to a handler before, and back from the queue for begun jobs or for suspects.
    pub begun: bool,
    /// How often this very message came back unsettled: above 0, a life that ended early may have sent requests.
    pub returns: u32,
    /// When the job was first handed to a handler.
    pub started_at: Timestamp,
    /// W3C trace context, carried on to the API.
    pub traceparent: Option<String>,
    /// As above.
    pub tracestate: Option<String>,
    /// Cancelled when the attempt's time is over, the process drains, or, where one process at a time works this
    /// kind, when it is not known any more to be this one.
    pub stop: CancellationToken,
    pub(crate) clock: SharedClock,
    pub(crate) genesys: GenesysClient,
    pub(crate) requests: AtomicU64,
}

impl JobContext {
    /// The first attempt of a job outside a worker: for tests of a handler with a real client.
    pub fn first(id: JobId, kind: Kind, services: &Services) -> Self {
        Self {
            id,
            kind,
            attempts: 0,
            max_attempts: DEFAULT_MAX_ATTEMPTS,
            generation: 0,
            begun: false,
            returns: 0,
            started_at: services.clock.now(),
            traceparent: None,
            tracestate: None,
            stop: CancellationToken::new(),
            clock: services.clock.clone(),
            genesys: services.genesys.clone(),
            requests: 0.into(),
        }
    }

    /// Sends one request for this job: waits for token, gate and budget, retries briefly what is safe to repeat.
    pub async fn send(&self, request: ApiRequest) -> Result<ApiAnswer, ApiError> {
        let caller = Caller {
            kind: self.kind,
            jobs: std::slice::from_ref(&self.id),
            traceparent: self.traceparent.as_deref(),
            tracestate: self.tracestate.as_deref(),
            stop: &self.stop,
        };
        let result = self.genesys.send(request, &caller).await;
        self.count_requests(match &result {
            Ok(answer) => answer.requests,
            Err(error) => error.requests,
        });
        result
    }

    /// Whether the job fails for good if this attempt fails: the time to take back what must not stay.
    pub fn is_last_attempt(&self) -> bool {
        self.attempts + 1 >= self.max_attempts
    }

    /// The time of day.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Counts HTTP requests that were sent for this job by somebody else on its behalf.
    pub fn count_requests(&self, sent: u32) {
        self.requests.fetch_add(sent.into(), Ordering::Relaxed);
    }
}
