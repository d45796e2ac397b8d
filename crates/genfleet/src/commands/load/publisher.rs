//! Sends the jobs of a run at their pace, many unconfirmed at a time. Says of each when it was sent, and of all when the
//! queue has them.

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

use super::{ledger::Ended, pace::Pace, source::Source};

/// Jobs confirmed together: in the embedded queue, one transaction.
const BATCH: u32 = 100;
/// Batches under way at a time.
const BATCHES: usize = 32;

/// What happened.
#[derive(Debug)]
pub(super) enum LoadEvent {
    /// A job was handed to the queue.
    Sent(u32, Instant),
    /// The queue has these.
    Confirmed(Range<u32>),
    /// All are sent, so many.
    AllSent(u32),
    /// A job of the run ended.
    Ended(Ended, Instant),
    /// A job of the run ended at some time before: read again, it says nothing new.
    Found(Ended, Instant),
    /// Somebody should hear of it.
    Warning(String),
    /// It cannot go on.
    Fault(anyhow::Error),
}

/// The task that sends.
#[derive(Debug)]
pub(super) struct Publisher {
    task: JoinHandle<()>,
}

impl Publisher {
    /// Sends at most so many jobs, none after the instant that is given.
    pub(super) fn start(
        queue: Queue,
        source: Source,
        pace: Pace,
        (jobs, until): (u32, Option<Instant>),
        details: mpsc::Sender<LoadEvent>,
    ) -> Self {
        let sending = Sending { queue, source, details, under_way: Arc::new(Semaphore::new(BATCHES)) };
        Self { task: tokio::spawn(sending.all(pace, jobs, until)) }
    }

    /// No more is sent.
    pub(super) fn stop(&self) {
        self.task.abort();
    }
}

struct Sending {
    queue: Queue,
    source: Source,
    details: mpsc::Sender<LoadEvent>,
    under_way: Arc<Semaphore>,
}

impl Sending {
    async fn all(self, pace: Pace, jobs: u32, until: Option<Instant>) {
        let mut next = 0;
        while next < jobs && until.is_none_or(|until| pace.due(next).max(Instant::now()) < until) {
            sleep_until(pace.due(next)).await;
            let now = Instant::now();
            let mut end = next + 1;
            while end < jobs && end - next < BATCH && pace.due(end) <= now {
                end += 1;
            }
            if self.batch(next..end).await.is_none() {
                return;
            }
            next = end;
        }
        // Nobody listens any more where this fails.
        let _ = self.details.send(LoadEvent::AllSent(next)).await;
    }

    /// `None` once nobody listens.
    async fn batch(&self, numbers: Range<u32>) -> Option<()> {
        let place = Arc::clone(&self.under_way).acquire_owned().await.ok()?;
        // Before their headers say so: a wait is never longer than the whole.
        let sent = Instant::now();
        let publications = numbers.clone().map(|number| self.publication(number)).collect();
        for number in numbers.clone() {
            self.details.send(LoadEvent::Sent(number, sent)).await.ok()?;
        }
        let (queue, details) = (self.queue.clone(), self.details.clone());
        tokio::spawn(async move {
            let report = match queue.publish(publications).await {
                Ok(()) => LoadEvent::Confirmed(numbers),
                Err(error) => LoadEvent::Fault(error.into()),
            };
            let _ = details.send(report).await;
            drop(place);
        });
        Some(())
    }

    fn publication(&self, number: u32) -> Publication {
        let made = self.source.make(number);
        let message = Message {
            body: made.body,
            message_id: Some(made.id),
            content_type: Some("application/json".to_owned()),
            ..Message::default()
        }
        .enqueued(SystemClock.now());
        Publication { to: Destination::Jobs(self.source.kind()), message }
    }
}
