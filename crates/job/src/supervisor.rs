//! Tasks that others depend on: one that ends while the process should go on, ends the process (SPEC 5.6).

use std::{future::Future, sync::Arc};

use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Spawns tasks and tells when one of them ended unasked.
#[derive(Clone, Debug)]
pub struct Tasks {
    tracker: TaskTracker,
    stopping: CancellationToken,
    ended: mpsc::UnboundedSender<String>,
}

/// Tells which task ended unasked.
#[derive(Debug)]
pub struct Ended {
    names: mpsc::UnboundedReceiver<String>,
    // Keeps the channel open for as long as somebody listens.
    _sender: mpsc::UnboundedSender<String>,
}

impl Tasks {
    /// A place for tasks, and where their ends are told.
    pub fn new() -> (Self, Ended) {
        let (sender, names) = mpsc::unbounded_channel();
        let tasks = Self { tracker: TaskTracker::new(), stopping: CancellationToken::new(), ended: sender.clone() };
        (tasks, Ended { names, _sender: sender })
    }

    /// Spawns `task`, dropped when the process stops; ending earlier, by return or panic, is told as a fault.
    pub fn spawn(&self, name: &str, task: impl Future<Output = ()> + Send + 'static) {
        let (stopping, ended, name): (_, _, Arc<str>) = (self.stopping.clone(), self.ended.clone(), name.into());
        let guard = EndGuard { name, stopping: stopping.clone(), ended };
        self.tracker.spawn(async move {
            let _guard = guard;
            stopping.run_until_cancelled(task).await;
        });
    }

    /// Stops all tasks and waits for their end.
    pub async fn stop(&self) {
        self.stopping.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

impl Ended {
    /// The next task that ended unasked; waits for ever where none does.
    pub async fn next(&mut self) -> String {
        match self.names.recv().await {
            Some(name) => name,
            None => std::future::pending().await,
        }
    }
}

/// Also runs when the task panics.
struct EndGuard {
    name: Arc<str>,
    stopping: CancellationToken,
    ended: mpsc::UnboundedSender<String>,
}

impl Drop for EndGuard {
    fn drop(&mut self) {
        if !self.stopping.is_cancelled() {
            // Nobody listens any more only when the process is ending.
            let _ = self.ended.send(self.name.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_is_told() {
        let (tasks, mut ended) = Tasks::new();
        tasks.spawn("coalescer", async { panic!("on purpose") });
        assert_eq!(ended.next().await, "coalescer");
    }

    #[tokio::test]
    async fn tasks_that_are_stopped_are_not_told() {
        let (tasks, mut ended) = Tasks::new();
        tasks.spawn("coalescer", std::future::pending());
        tasks.stop().await;
        assert!(ended.names.try_recv().is_err());
    }
}
