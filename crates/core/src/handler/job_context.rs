//! One attempt of a job as its handler sees it.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use tokio::{sync::OwnedSemaphorePermit, time::Instant};
use tokio_util::sync::CancellationToken;

use super::Services;
use crate::outside::{OutsideAnswer, OutsideClient, OutsideError, OutsideRequest};
use genfleet_audit::{Detail, Intent, Unwritten};
use genfleet_genesys::{ApiAnswer, ApiError, ApiRequest, Caller, GenesysClient, Listed, Listing};
use genfleet_job::{
    DEFAULT_MAX_ATTEMPTS, JobId, Kind, clock::SharedClock, derive_id, error::JobError, lease::Lease,
    trace_context::TraceContext,
};

/// One attempt of one job.
#[derive(Debug)]
pub struct JobContext {
    /// The job's id.
    pub id: JobId,
    pub(crate) kind: Kind,
    /// Attempts that ended before this one.
    pub(crate) attempts: u32,
    /// The attempt after which the job fails for good.
    pub max_attempts: u32,
    /// True if a handler ran the job before: it comes from the resume queue or the suspect queue.
    pub(crate) started: bool,
    /// Number of times that this very message was delivered and came back unsettled.
    pub(crate) delivery_count: u32,
    /// Time from which reads show everything that another process wrote before this one took over, for a kind that only
    /// one process at a time works. What must not be created twice waits for it.
    pub reads_settled_at: Option<Instant>,
    /// Length of the job's message in bytes. Large ones are processed [off the executor](crate::worker::offload).
    pub body_bytes: usize,
    /// SHA-256 of the payload as canonical JSON.
    pub(crate) payload_sha256: String,
    /// Longest wait until something that was just created, ordered or uploaded can be found (`--settle-timeout`).
    pub settle_timeout: Duration,
    /// Longest wait until a created object is active (`--activate-timeout`).
    pub activate_timeout: Duration,
    /// Time at which the job was first handed to a handler.
    pub started_at: Timestamp,
    /// Place of the attempt in a trace; the API's requests carry it on.
    pub trace: Option<TraceContext>,
    /// Token that is cancelled when the attempt's time is over, when the process drains, and, for a kind that only one
    /// process at a time works, when this process may have lost its lock.
    pub stop: CancellationToken,
    pub(crate) clock: SharedClock,
    pub(crate) genesys: GenesysClient,
    pub(crate) lease: Option<Lease>,
    pub(crate) record: Mutex<AttemptRecord>,
}

/// Record of an attempt so far, apart from its result.
#[derive(Debug, Default)]
pub(crate) struct AttemptRecord {
    /// HTTP requests sent for the job.
    pub(crate) requests: u64,
    /// Kept until the job is settled.
    permits: Vec<OwnedSemaphorePermit>,
    /// Requests in other traces that were sent for this job, too.
    pub(crate) shared_requests: Vec<TraceContext>,
    /// State from which the next attempt continues if the handler does not return.
    pub(crate) state: Option<Value>,
    /// Details for the event's `error`, should the handler not return.
    pub(crate) details: Map<String, Value>,
}

impl JobContext {
    /// Creates the context of a first attempt outside a worker, for tests of a handler with a real client.
    pub fn first(id: JobId, kind: Kind, services: &Services) -> Self {
        Self {
            id,
            kind,
            attempts: 0,
            max_attempts: DEFAULT_MAX_ATTEMPTS,
            started: false,
            delivery_count: 0,
            reads_settled_at: None,
            body_bytes: 0,
            payload_sha256: String::new(),
            settle_timeout: Duration::from_secs(120),
            activate_timeout: Duration::from_secs(180),
            started_at: services.clock.now(),
            trace: None,
            stop: CancellationToken::new(),
            clock: services.clock.clone(),
            genesys: services.genesys.clone(),
            lease: None,
            record: Mutex::default(),
        }
    }

    /// Makes it a later delivery of the job, for tests.
    #[must_use]
    pub fn with_history(self, started: bool, delivery_count: u32) -> Self {
        Self { started, delivery_count, ..self }
    }

    /// The marker of this job, for the free text (`description`, `notes`) of what it creates, if the platform takes no
    /// id of the client's choice: an attempt that repeats the job finds its own object by it. Another payload has another
    /// marker.
    pub fn marker(&self) -> String {
        let id = derive_id(&format!("marker:{}:{}", self.id, self.payload_sha256)).simple().to_string();
        format!("[genfleet:{}]", id.get(..16).unwrap_or(&id))
    }

    /// Returns true if a handler may have worked this job before, here or in another process: look before you create.
    pub fn may_have_run_before(&self) -> bool {
        self.started || self.was_redelivered()
    }

    /// Returns true if this very message was delivered before and came back unsettled, so that an attempt that left no
    /// state may have sent requests.
    pub fn was_redelivered(&self) -> bool {
        self.delivery_count > 0
    }

    /// Returns true if the job fails for good when this attempt fails: the time to undo what must not stay.
    pub fn is_last_attempt(&self) -> bool {
        self.attempts + 1 >= self.max_attempts
    }

    /// Waits for `work`, unless [`stop`](Self::stop) is cancelled first: then `work` is dropped, and the error ends the
    /// attempt.
    pub async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Result<T, JobError> {
        self.stop.run_until_cancelled(work).await.ok_or_else(JobError::interrupted)
    }

    /// The time of day.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The job on whose behalf requests are sent.
    fn caller(&self) -> Caller<'_> {
        Caller {
            kind: self.kind,
            jobs: std::slice::from_ref(&self.id),
            traces: self.trace.as_slice(),
            stop: &self.stop,
            lease: self.lease.as_ref(),
        }
    }

    /// Sends one request to a host that is not the API's for this job.
    pub async fn send_outside(
        &self,
        client: &OutsideClient,
        request: OutsideRequest,
    ) -> Result<OutsideAnswer, OutsideError> {
        let result = client.send(request, &self.caller(), self.genesys.audit()).await;
        self.count_requests(result.as_ref().map_or_else(OutsideError::requests, |_| 1));
        result
    }

    /// Sends one request for this job. Waits until it is admitted (token, pauses, budget). A request that is safe to
    /// repeat is retried for a short time.
    pub async fn send(&self, request: ApiRequest) -> Result<ApiAnswer, ApiError> {
        let result = self.genesys.send(request, &self.caller()).await;
        self.count_requests(match &result {
            Ok(answer) => answer.requests,
            Err(error) => error.requests,
        });
        result
    }

    /// Records in the audit that this job is about to change something by other means than [`send`](Self::send), and
    /// waits until the record is written. Call [`Intent::mark_sent`] right before the change and [`Intent::effect`] after
    /// it. `detail` describes the change without payloads and secrets.
    pub async fn intend(&self, detail: &Detail) -> Result<Intent, JobError> {
        let jobs = std::slice::from_ref(&self.id);
        let intended = self.genesys.audit().intend(self.kind, jobs, detail, &self.stop).await;
        intended.map_err(|Unwritten| JobError::interrupted())
    }

    /// Records in the audit that a change which an earlier attempt intended is already made, so that nothing is sent
    /// for it. `detail` describes the change without payloads and secrets.
    pub fn record_found(&self, detail: &Detail) {
        self.genesys.audit().record_found(self.kind, &self.id, detail);
    }

    /// Records the progress of this attempt, in case the handler does not return (it panics or is given up): the next
    /// attempt continues from `state`; if there is none, `details` go into the event's `error`.
    pub fn record_progress(&self, state: &impl Serialize, details: Map<String, Value>) {
        let mut record = self.record();
        record.state = serde_json::to_value(state).ok();
        record.details = details;
    }

    /// Keeps `permit` until the result of this attempt is recorded in the queue or its delivery is lost. That bounds
    /// what a crash could repeat by the number of permits.
    pub fn keep_until_recorded(&self, permit: OwnedSemaphorePermit) {
        self.record().permits.push(permit);
    }

    /// Counts HTTP requests that were sent on behalf of this job by other means than [`send`](Self::send), and links the
    /// job's trace to those that were sent in the trace of another one.
    pub fn count_shared(&self, sent: u32, elsewhere: Vec<TraceContext>) {
        self.count_requests(sent);
        let is_elsewhere =
            |request: &TraceContext| self.trace.as_ref().is_none_or(|trace| trace.trace_id() != request.trace_id());
        self.record().shared_requests.extend(elsewhere.into_iter().filter(is_elsewhere));
    }

    pub(crate) fn count_requests(&self, sent: u32) {
        self.record().requests += u64::from(sent);
    }

    /// Reads a list to its end, one request a page.
    pub async fn list<T: DeserializeOwned>(&self, mut listing: Listing<T>) -> Result<Listed<T>, ApiError> {
        while let Some(request) = listing.next() {
            listing.take(&self.send(request).await?)?;
        }
        Ok(listing.into_listed())
    }

    /// Ends the attempt; the permits are to be kept until its result is recorded.
    pub(crate) fn into_permits(self) -> Vec<OwnedSemaphorePermit> {
        self.record.into_inner().unwrap_or_else(PoisonError::into_inner).permits
    }

    pub(crate) fn record(&self) -> MutexGuard<'_, AttemptRecord> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A handler's attempt has to be one that can move between threads.
    fn assert_send<T: Send>(_: T) {}

    fn uses(job: &JobContext, client: &OutsideClient, request: OutsideRequest) {
        assert_send(job.list(Listing::<Value>::by_number(ApiRequest::get("/api/v2/things"))));
        assert_send(job.send_outside(client, request));
    }

    #[test]
    fn every_way_to_send_can_be_used_by_a_handler() {
        let _: fn(&JobContext, &OutsideClient, OutsideRequest) = uses;
    }
}
