//! The jobs that run in this process. A job runs once at a time: a second delivery with the id and body of a running job
//! attaches to it; the same id with another body waits for its end (SPEC 5.1), and so does the job's own next round.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use genfleet_job::JobId;
use genfleet_queue::Delivery;

/// The running jobs of one kind.
#[derive(Debug)]
pub(crate) struct InFlightJobs<D = Delivery> {
    jobs: Mutex<HashMap<JobId, InFlightJob<D>>>,
}

#[derive(Debug)]
struct InFlightJob<D> {
    body: Bytes,
    generation: u32,
    attached: Vec<D>,
    /// Nothing may attach any more.
    closed: bool,
    ended: CancellationToken,
}

/// Result of [`InFlightJobs::claim`].
#[derive(Debug)]
pub(crate) enum ClaimResult<D = Delivery> {
    /// The delivery may run its job.
    Claimed(Claim<D>, D),
    /// The job runs already; the delivery is settled with it.
    Attached,
    /// Another job with this id runs, or this job is about to go on. Claim again when the token is cancelled.
    Busy(D, CancellationToken),
}

/// The right to run one job. It ends with [`Claim::release`] or when it is dropped.
#[derive(Debug)]
pub(crate) struct Claim<D = Delivery> {
    in_flight: Arc<InFlightJobs<D>>,
    id: JobId,
    released: bool,
}

impl<D> Default for InFlightJobs<D> {
    fn default() -> Self {
        Self { jobs: Mutex::default() }
    }
}

impl<D> ClaimResult<D> {
    /// Returns the claim and its delivery, if there is one.
    pub(crate) fn into_claim(self) -> Option<(Claim<D>, D)> {
        match self {
            Self::Claimed(claim, delivery) => Some((claim, delivery)),
            Self::Attached => {
                debug!("attached to the delivery of this job that runs here");
                None
            }
            Self::Busy(..) => None,
        }
    }
}

impl<D> InFlightJobs<D> {
    /// Claims the job with this id and body for `delivery`. The same job in another generation (redriven more or less
    /// often) is another job.
    pub(crate) fn claim(self: &Arc<Self>, id: &JobId, body: &Bytes, generation: u32, delivery: D) -> ClaimResult<D> {
        let mut jobs = self.lock();
        match jobs.get_mut(id) {
            Some(job) if job.body == *body && job.generation == generation && !job.closed => {
                job.attached.push(delivery);
                ClaimResult::Attached
            }
            Some(job) => ClaimResult::Busy(delivery, job.ended.clone()),
            None => {
                let ended = CancellationToken::new();
                let job = InFlightJob { body: body.clone(), generation, attached: Vec::new(), closed: false, ended };
                jobs.insert(id.clone(), job);
                ClaimResult::Claimed(Claim { in_flight: Arc::clone(self), id: id.clone(), released: false }, delivery)
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<JobId, InFlightJob<D>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<D> Claim<D> {
    /// Takes one of the deliveries that attached.
    pub(crate) fn take_attached(&mut self) -> Option<D> {
        self.in_flight.lock().get_mut(&self.id)?.attached.pop()
    }

    /// Stops further deliveries from attaching. Called before the job's next round is published: that round comes back
    /// at once and must not be taken for a message of this round.
    pub(crate) fn close(&mut self) {
        if let Some(job) = self.in_flight.lock().get_mut(&self.id) {
            job.closed = true;
        }
    }

    /// Releases the job and returns true, unless another delivery has attached meanwhile.
    pub(crate) fn release(&mut self) -> bool {
        let mut jobs = self.in_flight.lock();
        if jobs.get(&self.id).is_some_and(|job| !job.attached.is_empty()) {
            return false;
        }
        if let Some(job) = jobs.remove(&self.id) {
            job.ended.cancel();
        }
        self.released = true;
        true
    }
}

impl<D> Drop for Claim<D> {
    fn drop(&mut self) {
        if self.released {
            return;
        }
        let job = self.in_flight.lock().remove(&self.id);
        // Deliveries that attached and were not settled (the process stops) go back to the queue when they are dropped.
        if let Some(job) = job {
            job.ended.cancel();
        }
    }
}
