//! Publishes the jobs of a run at their pace, with many unconfirmed at the same time. Reports when each was published
//! and when the queue has confirmed it.

use std::{ops::Range, sync::Arc};

use genfleet_core::{
    clock::{Clock, SystemClock},
    message::Message,
    queue::{Destination, Publication, Queue},
};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use super::{ledger::Ended, pace::Pace, source::JobSource};

/// Maximum number of jobs in a batch; in the embedded queue a batch is one transaction.
const BATCH: u32 = 100;
/// Maximum number of unconfirmed batches.
const BATCHES: usize = 32;

/// An event of a run.
#[derive(Debug)]
pub(super) enum LoadEvent {
    /// A job was passed to the queue.
    Sent(u32, Instant),
    /// The queue has confirmed these jobs.
    Confirmed(Range<u32>),
    /// All jobs were passed to the queue, with their number.
    AllSent(u32),
    /// An event of a job has arrived.
    Ended(Ended, Instant),
    /// An event of a job was read from past events. It may have arrived before.
    Found(Ended, Instant),
    /// A problem that does not end the run.
    Warning(String),
    /// An error that ends the run.
    Fault(anyhow::Error),
}

/// Starts the task that publishes at most `jobs` jobs, none after `until`.
pub(super) fn start(
    queue: Queue,
    source: JobSource,
    pace: Pace,
    (jobs, until): (u32, Option<Instant>),
    sender: mpsc::Sender<LoadEvent>,
) -> JoinHandle<()> {
    let task = PublishTask { queue, source, sender, unconfirmed: Arc::new(Semaphore::new(BATCHES)) };
    tokio::spawn(task.run(pace, jobs, until))
}

struct PublishTask {
    queue: Queue,
    source: JobSource,
    sender: mpsc::Sender<LoadEvent>,
    unconfirmed: Arc<Semaphore>,
}

impl PublishTask {
    async fn run(self, pace: Pace, jobs: u32, until: Option<Instant>) {
        let mut next = 0;
        while next < jobs && until.is_none_or(|until| pace.due(next).max(Instant::now()) < until) {
            sleep_until(pace.due(next)).await;
            let now = Instant::now();
            let mut end = next + 1;
            while end < jobs && end - next < BATCH && pace.due(end) <= now {
                end += 1;
            }
            if self.publish(next..end).await.is_none() {
                return;
            }
            next = end;
        }
        // It only fails if the run has ended.
        let _ = self.sender.send(LoadEvent::AllSent(next)).await;
    }

    /// Publishes a batch; `None` if the run has ended.
    async fn publish(&self, numbers: Range<u32>) -> Option<()> {
        let permit = Arc::clone(&self.unconfirmed).acquire_owned().await.ok()?;
        // Taken before the time in the messages' headers, so that the time in the queue is never longer than the whole.
        let sent = Instant::now();
        let publications = numbers.clone().map(|number| self.publication(number)).collect();
        for number in numbers.clone() {
            self.sender.send(LoadEvent::Sent(number, sent)).await.ok()?;
        }
        let (queue, sender) = (self.queue.clone(), self.sender.clone());
        tokio::spawn(async move {
            let event = match queue.publish(publications).await {
                Ok(()) => LoadEvent::Confirmed(numbers),
                Err(error) => LoadEvent::Fault(error.into()),
            };
            let _ = sender.send(event).await;
            drop(permit);
        });
        Some(())
    }

    fn publication(&self, number: u32) -> Publication {
        let job = self.source.make(number);
        let message = Message::new_job(job.body, job.id, SystemClock.now());
        Publication { to: Destination::Jobs(self.source.kind), message }
    }
}
