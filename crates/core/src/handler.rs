//! What a worker's author has to read: [`JobHandler`], what it is given ([`JobContext`], [`Services`]) and what
//! it answers ([`Progress`] or a [`JobError`]).

use std::{
    fmt,
    future::Future,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use tokio::{sync::OwnedSemaphorePermit, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::terms::ContractTerms;
use genfleet_audit::{Detail, Intent, Unwritten};
use genfleet_genesys::{ApiAnswer, ApiError, ApiRequest, Caller, GenesysClient};
use genfleet_job::{
    DEFAULT_MAX_ATTEMPTS, JobId, Kind, Violation, clock::SharedClock, error::JobError, lease::Lease,
    options::ConfigError, retry::RetryPolicy, supervisor::Tasks, trace_context::TraceContext,
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
    /// Its word in the audit, for what it does and did.
    const AUDIT_ACTION: &'static str = Self::ACTION;
    /// The same for an outcome that is no success.
    const AUDIT_FAILURE: &'static str = Self::AUDIT_ACTION;
    /// OAuth scopes its calls need.
    const SCOPES: &'static [&'static str];
    /// See [`Defaults`].
    const DEFAULTS: Defaults;

    /// The worker's own settings; names are unique over all workers, since one process can run all.
    type Options: clap::Args + Clone + fmt::Debug + Send + Sync;
    /// What upstream sends. Its JSON Schema is the validator, so every violation is found at once.
    type Payload: DeserializeOwned + JsonSchema + Send;
    /// What a begun job remembers, at most 16 KiB as JSON. Changes only by optional fields.
    type State: Serialize + DeserializeOwned + Default + Send;
    /// What a successful event reports.
    type Report: Serialize + JsonSchema + Send;

    /// The handler, with whatever it starts in the background.
    fn new(options: Self::Options, services: &Services) -> Result<Self, ConfigError>;

    /// What the schema cannot say. Pure: no I/O, no clock. Pointers start at `/payload`. `options` are the worker's, or
    /// what the tool was told of them.
    fn validate(payload: &Self::Payload, options: &Self::Options) -> Vec<Violation>;

    /// How its jobs wait between attempts; `general` is what the settings say for all kinds.
    fn retries(&self, general: RetryPolicy) -> RetryPolicy {
        general
    }

    /// What upstream systems are told of these rules, and of what else is its own: examples, codes. Whether that is
    /// true is tested for every kind alike.
    fn terms() -> ContractTerms {
        ContractTerms::default()
    }

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
    pub started: bool,
    /// How often this very message came back unsettled: above 0, a life that ended early may have sent requests.
    pub delivery_count: u32,
    /// Of a kind that one process at a time works, where this process took over a moment ago: until then what another
    /// one changed before may be missing in what is read. What must not be made twice waits for it.
    pub reads_settled_at: Option<Instant>,
    /// How long its message is: what looks into a large one goes [aside](crate::worker::aside).
    pub bytes: usize,
    /// When the job was first handed to a handler.
    pub started_at: Timestamp,
    /// Where in a trace it is, carried on to the API.
    pub trace: Option<TraceContext>,
    /// Cancelled when the attempt's time is over, the process drains, or, where one process at a time works this
    /// kind, when it is not known any more to be this one.
    pub stop: CancellationToken,
    pub(crate) clock: SharedClock,
    pub(crate) genesys: GenesysClient,
    pub(crate) requests: AtomicU64,
    pub(crate) turns: Mutex<Vec<OwnedSemaphorePermit>>,
    pub(crate) shared: Mutex<Vec<TraceContext>>,
    pub(crate) lease: Option<Lease>,
    pub(crate) reached: Mutex<Reached>,
}

/// How far an attempt came, should its handler not come to an end: panic, or be given up.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reached {
    pub(crate) state: Option<Value>,
    pub(crate) details: Map<String, Value>,
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
            started: false,
            delivery_count: 0,
            reads_settled_at: None,
            bytes: 0,
            started_at: services.clock.now(),
            trace: None,
            stop: CancellationToken::new(),
            clock: services.clock.clone(),
            genesys: services.genesys.clone(),
            requests: 0.into(),
            turns: Mutex::default(),
            shared: Mutex::default(),
            lease: None,
            reached: Mutex::default(),
        }
    }

    /// Sends one request for this job: waits for token, gate and budget, retries briefly what is safe to repeat.
    pub async fn send(&self, request: ApiRequest) -> Result<ApiAnswer, ApiError> {
        let caller = Caller {
            kind: self.kind,
            jobs: std::slice::from_ref(&self.id),
            traces: self.trace.as_slice(),
            stop: &self.stop,
            lease: self.lease.as_ref(),
        };
        let result = self.genesys.send(request, &caller).await;
        self.count_requests(match &result {
            Ok(answer) => answer.requests,
            Err(error) => error.requests,
        });
        result
    }

    /// Writes down that this job is about to change something elsewhere than by [`send`](Self::send), and waits until
    /// that is in the audit. Say [`Intent::sent`] right before, and [`Intent::effect`] after. `detail` says what,
    /// without payloads and secrets.
    pub async fn intend(&self, detail: &Detail) -> Result<Intent, JobError> {
        let jobs = std::slice::from_ref(&self.id);
        let intended = self.genesys.audit().intend(self.kind, jobs, detail, &self.stop).await;
        intended.map_err(|Unwritten| JobError::interrupted())
    }

    /// Writes down that something an earlier life of this job was about to change is found changed: nothing is sent for
    /// it any more. `detail` says what, without payloads and secrets.
    pub fn found(&self, detail: &Detail) {
        self.genesys.audit().found(self.kind, &self.id, detail);
    }

    /// Says how far this attempt came, in case it comes to no end (it panics, or is given up): the next one goes on from
    /// `state`, and if there is none, `details` go into the event's `error`.
    pub fn reached(&self, state: &impl Serialize, details: Map<String, Value>) {
        let state = serde_json::to_value(state).ok();
        *self.reached.lock().unwrap_or_else(PoisonError::into_inner) = Reached { state, details };
    }

    /// Whether the job fails for good if this attempt fails: the time to take back what must not stay.
    pub fn is_last_attempt(&self) -> bool {
        self.attempts + 1 >= self.max_attempts
    }

    /// The time of day.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Keeps `turn` until what this attempt achieved is recorded in the queue, or the delivery is lost: what a crash
    /// could make be done again is then bounded by how many such turns there are.
    pub fn keep_until_recorded(&self, turn: OwnedSemaphorePermit) {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner).push(turn);
    }

    /// Says in the job's trace that `request` was sent for it, too, in the trace of another.
    pub fn note_shared(&self, request: TraceContext) {
        let elsewhere = self.trace.as_ref().is_none_or(|trace| trace.trace_id() != request.trace_id());
        if elsewhere {
            self.shared.lock().unwrap_or_else(PoisonError::into_inner).push(request);
        }
    }

    /// Counts HTTP requests that were sent for this job by somebody else on its behalf.
    pub fn count_requests(&self, sent: u32) {
        self.requests.fetch_add(sent.into(), Ordering::Relaxed);
    }
}
