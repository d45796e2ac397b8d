//! A job runs once at a time in a process: a second delivery with the id and body of a running one attaches to
//! it; the same id with another body waits for its end (SPEC 5.1), and so does the job's own next round.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use genfleet_job::JobId;
use genfleet_queue::Delivery;

/// The jobs that run in this process, of one kind.
#[derive(Debug)]
pub struct Running<D = Delivery> {
    jobs: Mutex<HashMap<JobId, Entry<D>>>,
}

#[derive(Debug)]
struct Entry<D> {
    body: Bytes,
    generation: u32,
    attached: Vec<D>,
    /// Nothing attaches any more.
    closed: bool,
    ended: CancellationToken,
}

/// What became of a delivery that wants to run.
#[derive(Debug)]
pub enum Entered<D = Delivery> {
    /// It runs; the right to run ends with [`Run::finish`] or when it is dropped.
    Run(Run<D>, D),
    /// It waits for the outcome of the one that runs.
    Attached,
    /// Another job with this id runs, or this one is about to go on: come again when the token is cancelled.
    Busy(D, CancellationToken),
}

/// The right to run one job.
#[derive(Debug)]
pub struct Run<D = Delivery> {
    running: Arc<Running<D>>,
    id: JobId,
    finished: bool,
}

impl<D> Default for Running<D> {
    fn default() -> Self {
        Self { jobs: Mutex::default() }
    }
}

impl<D> Running<D> {
    /// Enters `delivery`, whose job has this id and body and was redriven so often: one of another generation is another
    /// job.
    pub fn enter(self: &Arc<Self>, id: &JobId, body: &Bytes, generation: u32, delivery: D) -> Entered<D> {
        let mut jobs = self.lock();
        match jobs.get_mut(id) {
            Some(entry) if entry.body == *body && entry.generation == generation && !entry.closed => {
                entry.attached.push(delivery);
                Entered::Attached
            }
            Some(entry) => Entered::Busy(delivery, entry.ended.clone()),
            None => {
                let ended = CancellationToken::new();
                let entry = Entry { body: body.clone(), generation, attached: Vec::new(), closed: false, ended };
                jobs.insert(id.clone(), entry);
                Entered::Run(Run { running: Arc::clone(self), id: id.clone(), finished: false }, delivery)
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<JobId, Entry<D>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, id: &JobId) -> Vec<D> {
        let Some(entry) = self.lock().remove(id) else { return Vec::new() };
        entry.ended.cancel();
        entry.attached
    }
}

impl<D> Run<D> {
    /// Takes one delivery that attached, if any.
    pub fn attached(&mut self) -> Option<D> {
        self.running.lock().get_mut(&self.id)?.attached.pop()
    }

    /// Lets nothing attach any more. To be called before the job's next round is published: that one comes back at once,
    /// and is not to be taken for a message of this round.
    pub fn close(&mut self) {
        if let Some(entry) = self.running.lock().get_mut(&self.id) {
            entry.closed = true;
        }
    }

    /// Ends the job, unless another delivery attached meanwhile; after this the next delivery runs.
    pub fn finish(&mut self) -> bool {
        let mut jobs = self.running.lock();
        if jobs.get(&self.id).is_some_and(|entry| !entry.attached.is_empty()) {
            return false;
        }
        if let Some(entry) = jobs.remove(&self.id) {
            entry.ended.cancel();
        }
        self.finished = true;
        true
    }
}

impl<D> Drop for Run<D> {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        // Deliveries that attached and were never settled (the process is stopping) go back by being dropped.
        drop(self.running.end(&self.id));
    }
}
