//! The handle by which asynchronous code asks the writer's thread, and the state that the writer publishes.

use std::{
    future,
    sync::{Arc, mpsc},
};

use metrics::gauge;
use tokio::{sync::watch, time::Instant};

use super::{
    changes::Changes,
    work::{Command, Reply, Work, request},
};
use crate::{
    message::{Health, QueueError},
    unsettled::UnsettledCounts,
};
use genfleet_job::{lease::PreviousHolder, metric};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StoreCondition {
    Usable,
    /// It cannot be written now, for this reason; the writer tries again.
    Unavailable(String),
    /// The writer ended unasked, for this reason.
    Failed(String),
    /// The writer ended as asked.
    Closed,
}

/// State of the store, published by the writer.
#[derive(Debug)]
pub(super) struct StoreState {
    /// The store's file, for messages.
    pub(super) path: String,
    /// Time of opening, where jobs were worked from the store before.
    pub(super) taken_over: Option<Instant>,
    /// Counts of what was added, for those who wait for rows.
    pub(super) changes: watch::Sender<Changes>,
    pub(super) condition: watch::Sender<StoreCondition>,
    /// Deliveries that this process holds.
    pub(super) unsettled: UnsettledCounts,
}

impl StoreState {
    /// The state of a store that was just opened.
    pub(super) fn new(path: String, before: PreviousHolder) -> Self {
        let (changes, condition) = (watch::Sender::new(Changes::default()), watch::Sender::new(StoreCondition::Usable));
        let taken_over = (before == PreviousHolder::Somebody).then(Instant::now);
        Self { path, taken_over, changes, condition, unsettled: UnsettledCounts::default() }
    }

    pub(super) fn set_condition(&self, condition: StoreCondition) {
        self.condition.send_replace(condition);
        self.gauge();
    }

    /// Sets the metrics of the broker's connections, for which the store stands in.
    pub(super) fn gauge(&self) {
        let usable = if *self.condition.borrow() == StoreCondition::Usable { 1.0 } else { 0.0 };
        gauge!(metric::BROKER_CONNECTED, "role" => "consume").set(usable);
        gauge!(metric::BROKER_CONNECTED, "role" => "publish").set(usable);
    }

    /// Wakes those who wait for what `changes` touched.
    pub(super) fn wake(&self, changes: &Changes) {
        self.changes.send_if_modified(|all| all.add(changes));
    }
}

/// A handle to the writer's thread. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct WriterHandle {
    commands: mpsc::Sender<Command>,
    state: Arc<StoreState>,
}

impl WriterHandle {
    /// A handle, and the receiver of its commands.
    pub(super) fn new(state: Arc<StoreState>) -> (Self, mpsc::Receiver<Command>) {
        let (commands, receiver) = mpsc::channel();
        (Self { commands, state }, receiver)
    }

    pub(super) fn state(&self) -> &Arc<StoreState> {
        &self.state
    }

    /// Sends `work` to the writer at once; the reply may be waited for later, or not at all.
    pub(super) fn post<W: Work>(&self, work: W) -> Reply<W::Answer> {
        let (command, reply) = request(work);
        self.send(command);
        reply
    }

    /// Sends `work` to the writer and waits for the answer, which comes once it is on the disk.
    pub(super) async fn ask<W: Work>(&self, work: W) -> Result<W::Answer, QueueError> {
        self.post(work).await.unwrap_or(Err(QueueError::Closed))
    }

    /// Sends `command`. A writer that is gone drops it, and the asker is told that the queue is closed.
    pub(super) fn send(&self, command: Command) {
        drop(self.commands.send(command));
    }

    /// The store's health, for `/readyz`.
    pub(super) fn health(&self) -> Health {
        let problem = match &*self.state.condition.borrow() {
            StoreCondition::Usable => None,
            StoreCondition::Unavailable(reason) | StoreCondition::Failed(reason) => Some(reason.clone()),
            StoreCondition::Closed => Some(format!("the store {} is closed", self.state.path)),
        };
        Health { publishing_blocked: problem.is_some(), problems: problem.into_iter().collect(), ..Health::default() }
    }

    /// Waits until the writer ends unasked, and returns the reason.
    pub(super) async fn failed(&self) -> String {
        let mut condition = self.state.condition.subscribe();
        loop {
            if let StoreCondition::Failed(reason) = &*condition.borrow_and_update() {
                return reason.clone();
            }
            if condition.changed().await.is_err() {
                return future::pending().await;
            }
        }
    }
}
