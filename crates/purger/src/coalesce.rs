//! The coalescer: one task of the process that packs the paths of all jobs into shared requests.
//!
//! Jobs hand in an [`Order`] and wait for its [`Outcome`]. Which paths share a request is decided by [`pack`], when
//! it is closed by [`linger`], who is guilty of a refused one by [`split`]; [`driver`] does what they decide,
//! [`flight`] sends and stops, and [`verdict`] says what an answer means to each job on board. What a job is told at
//! its end is the handler's part.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use genfleet_core::error::JobError;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use self::{
    driver::Driver,
    entry::{Order, Outcome},
    pack::JobKey,
};
use crate::api::Cdn;

mod driver;
pub mod entry;
mod flight;
pub mod linger;
pub mod pack;
pub mod split;
mod verdict;

/// How long a job that was stopped waits for its requests in flight. Each is over within one HTTP request, 15 s, since
/// none is begun any more (and no token is waited for); the worker and a drain (25 s) wait longer than this. What is
/// not known by then is purged once more.
const FLIGHT_PATIENCE: Duration = Duration::from_secs(17);

/// What jobs tell the coalescer.
#[derive(Debug)]
enum Command {
    /// A job came.
    Submit { key: JobKey, order: Order, reply: oneshot::Sender<Outcome> },
    /// It is to end as soon as its requests in flight did, and none of them is repeated.
    Withdraw(JobKey),
    /// It ends now.
    Leave(JobKey),
}

/// Where jobs hand in their paths.
#[derive(Clone, Debug)]
pub struct Coalescer {
    // Unbounded, since the worker's concurrency bounds how many jobs there are.
    commands: mpsc::UnboundedSender<Command>,
    next_key: Arc<AtomicU64>,
}

impl Coalescer {
    /// A coalescer that purges by `cdn`, and the task that has to run for it. A `linger` of zero keeps jobs apart.
    pub fn new<C: Cdn>(cdn: C, linger: Duration) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (commands, received) = mpsc::unbounded_channel();
        let coalescer = Self { commands, next_key: Arc::default() };
        (coalescer, Driver::new(cdn, linger, received).run())
    }

    /// Purges what is left of `order`. Once `stop` is cancelled nothing more is sent for it, and the outcome comes
    /// as soon as its requests in flight ended.
    pub async fn purge(&self, order: Order, stop: &CancellationToken) -> Outcome {
        let gone = Outcome {
            progress: order.progress.clone(),
            requests: 0,
            error: Some(JobError::interrupted()),
            shared: Vec::new(),
        };
        if stop.is_cancelled() {
            return gone;
        }
        let key = JobKey(self.next_key.fetch_add(1, Ordering::Relaxed));
        let (reply, mut outcome) = oneshot::channel();
        self.tell(Command::Submit { key, order, reply });
        // Also where this future is dropped.
        let _leaving = Leaving { coalescer: self, key };
        tokio::select! {
            outcome = &mut outcome => return outcome.unwrap_or(gone),
            () = stop.cancelled() => self.tell(Command::Withdraw(key)),
        }
        if let Ok(outcome) = tokio::time::timeout(FLIGHT_PATIENCE, &mut outcome).await {
            return outcome.unwrap_or(gone);
        }
        self.tell(Command::Leave(key));
        outcome.await.unwrap_or(gone)
    }

    /// A coalescer that is gone is noticed by the reply that never comes.
    fn tell(&self, command: Command) {
        let _ = self.commands.send(command);
    }
}

/// Takes a job out of the coalescer when its handler waits no more.
struct Leaving<'a> {
    coalescer: &'a Coalescer,
    key: JobKey,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.coalescer.tell(Command::Leave(self.key));
    }
}

#[cfg(test)]
mod tests;
