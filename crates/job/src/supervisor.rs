//! Background tasks that others depend on: the process ends when one of them ends unexpectedly (SPEC 5.6).

use std::future::Future;

use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Spawns background tasks and reports each that exits unexpectedly to [`TaskExits`].
#[derive(Clone, Debug)]
pub struct Supervisor {
    tracker: TaskTracker,
    stopping: CancellationToken,
    exits: mpsc::UnboundedSender<String>,
}

/// Receives the names of tasks that exited unexpectedly.
#[derive(Debug)]
pub struct TaskExits {
    names: mpsc::UnboundedReceiver<String>,
    // Keeps the channel open for as long as somebody listens.
    _sender: mpsc::UnboundedSender<String>,
}

impl Supervisor {
    /// Creates a supervisor and the receiver of its tasks' unexpected exits.
    pub fn new() -> (Self, TaskExits) {
        let (sender, names) = mpsc::unbounded_channel();
        let supervisor =
            Self { tracker: TaskTracker::new(), stopping: CancellationToken::new(), exits: sender.clone() };
        (supervisor, TaskExits { names, _sender: sender })
    }

    /// Spawns `task` and drops it when the process stops. An earlier exit, by return or panic, is reported.
    pub fn spawn(&self, name: &str, task: impl Future<Output = ()> + Send + 'static) {
        let stopping = self.stopping.clone();
        let guard = ExitGuard { name: name.to_owned(), stopping: stopping.clone(), exits: self.exits.clone() };
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

impl TaskExits {
    /// Waits for the next task that exits unexpectedly.
    pub async fn next(&mut self) -> String {
        match self.names.recv().await {
            Some(name) => name,
            None => std::future::pending().await,
        }
    }
}

/// Reports the end of a task, also when it panics.
struct ExitGuard {
    name: String,
    stopping: CancellationToken,
    exits: mpsc::UnboundedSender<String>,
}

impl Drop for ExitGuard {
    fn drop(&mut self) {
        if !self.stopping.is_cancelled() {
            // Nobody listens any more only when the process is ending.
            let _ = self.exits.send(std::mem::take(&mut self.name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_is_told() {
        let (supervisor, mut exits) = Supervisor::new();
        supervisor.spawn("coalescer", async { panic!("on purpose") });
        assert_eq!(exits.next().await, "coalescer");
    }

    #[tokio::test]
    async fn tasks_that_are_stopped_are_not_told() {
        let (supervisor, mut exits) = Supervisor::new();
        supervisor.spawn("coalescer", std::future::pending());
        supervisor.stop().await;
        assert!(exits.names.try_recv().is_err());
    }
}
