//! The coalescer: one task of the process that packs the paths of all jobs into shared requests.
//!
//! Jobs submit a [`PurgeOrder`] and wait for its [`PurgeOutcome`]. [`driver`] runs the requests; [`state`] holds the
//! data. [`pack`] decides which paths share a request, [`linger`] when it is closed, and [`search`] finds the rejected
//! path of a refused request by [`bisection`].

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
    driver::{Command, Driver},
    entry::{PurgeOrder, PurgeOutcome},
    pack::JobKey,
};
use crate::cdn::Cdn;

mod bisection;
mod driver;
pub(crate) mod entry;
mod investigation;
mod linger;
mod pack;
mod request;
mod search;
mod state;
mod visits;

/// The time that a stopped job waits for its requests in flight. Each is over within one HTTP request, 15 s, since none
/// is begun any more (and no token is waited for); the worker and a drain (25 s) wait longer than this. What is not
/// known by then is purged once more.
const LONGEST_REQUEST: Duration = Duration::from_secs(17);

/// The handle with which jobs submit their paths.
#[derive(Clone, Debug)]
pub(crate) struct Coalescer {
    // Unbounded: the worker's concurrency bounds how many jobs there are.
    commands: mpsc::UnboundedSender<Command>,
    next_key: Arc<AtomicU64>,
}

impl Coalescer {
    /// Creates a coalescer for `cdn`, and its task. With a `linger` of zero, jobs share no requests.
    pub(crate) fn new<C: Cdn>(cdn: C, linger: Duration) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (commands, received) = mpsc::unbounded_channel();
        let coalescer = Self { commands, next_key: Arc::default() };
        (coalescer, Driver::new(cdn, linger, received).run())
    }

    /// Purges what is left of `order`. Once `stop` is cancelled nothing more is sent for it, and the outcome comes
    /// as soon as its requests in flight ended.
    pub(crate) async fn purge(&self, order: PurgeOrder, stop: &CancellationToken) -> PurgeOutcome {
        let gone = PurgeOutcome {
            progress: order.progress.clone(),
            requests: 0,
            error: Some(JobError::interrupted()),
            shared: Vec::new(),
        };
        if stop.is_cancelled() {
            return gone;
        }
        let key = JobKey(self.next_key.fetch_add(1, Ordering::Relaxed));
        let (reply, outcome) = oneshot::channel();
        self.send(Command::Submit { key, order, reply });
        let mut submitted = SubmittedOrder { coalescer: self, key, outcome };
        tokio::select! {
            outcome = &mut submitted.outcome => return outcome.unwrap_or(gone),
            () = stop.cancelled() => self.send(Command::Withdraw(key)),
        }
        if let Ok(outcome) = tokio::time::timeout(LONGEST_REQUEST, &mut submitted.outcome).await {
            return outcome.unwrap_or(gone);
        }
        self.send(Command::Leave(key));
        (&mut submitted.outcome).await.unwrap_or(gone)
    }

    /// Sends a command. If the coalescer has ended, its reply never arrives, which the caller notices.
    fn send(&self, command: Command) {
        let _ = self.commands.send(command);
    }
}

/// A submitted order. If it is dropped before its outcome arrives, it removes the job from the coalescer.
struct SubmittedOrder<'a> {
    coalescer: &'a Coalescer,
    key: JobKey,
    outcome: oneshot::Receiver<PurgeOutcome>,
}

impl Drop for SubmittedOrder<'_> {
    fn drop(&mut self) {
        if !self.outcome.is_terminated() {
            self.coalescer.send(Command::Leave(self.key));
        }
    }
}

#[cfg(test)]
mod tests;
