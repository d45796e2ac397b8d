//! The handle with which asynchronous code sends requests to the writer's thread, and the state that the writer
//! publishes.

use std::{
    future,
    sync::{Arc, mpsc},
};

use metrics::gauge;
use tokio::{sync::watch, time::Instant};

use super::{
    changes::Changes,
    work::{OperationReply, StoreOperation, WriterCommand, request},
};
use crate::{
    message::{Health, QueueError},
    unsettled::UnsettledCounts,
};
use genfleet_job::{lease::PreviousHolder, metric};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StoreCondition {
    Usable,
    /// The store cannot be written now, for this reason. The writer tries again.
    Unavailable(String),
    /// The writer ended on its own, for this reason.
    Failed(String),
    /// The writer ended on request.
    Closed,
}

/// The state of the store, published by the writer.
#[derive(Debug)]
pub(super) struct StoreState {
    /// The store's file, for messages.
    pub(super) path: String,
    /// Time of opening, if jobs of the store were worked before.
    pub(super) taken_over: Option<Instant>,
    /// Counts of the added rows, for consumers that wait.
    pub(super) changes: watch::Sender<Changes>,
    pub(super) condition: watch::Sender<StoreCondition>,
    /// Number of deliveries that this process holds.
    pub(super) unsettled: UnsettledCounts,
}

impl StoreState {
    /// Creates the state of a store that was just opened.
    pub(super) fn new(path: String, before: PreviousHolder) -> Self {
        let (changes, condition) = (watch::Sender::new(Changes::default()), watch::Sender::new(StoreCondition::Usable));
        let taken_over = (before == PreviousHolder::Somebody).then(Instant::now);
        Self { path, taken_over, changes, condition, unsettled: UnsettledCounts::default() }
    }

    pub(super) fn set_condition(&self, condition: StoreCondition) {
        self.condition.send_replace(condition);
        self.gauge();
    }

    /// Sets the metrics of the broker's connections, which the store replaces.
    pub(super) fn gauge(&self) {
        let usable = if *self.condition.borrow() == StoreCondition::Usable { 1.0 } else { 0.0 };
        gauge!(metric::BROKER_CONNECTED, "role" => "consume").set(usable);
        gauge!(metric::BROKER_CONNECTED, "role" => "publish").set(usable);
    }

    /// Wakes the consumers that wait for rows in `changes`.
    pub(super) fn wake(&self, changes: &Changes) {
        self.changes.send_if_modified(|all| all.add(changes));
    }
}

/// A handle to the writer's thread. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct WriterHandle {
    commands: mpsc::Sender<WriterCommand>,
    state: Arc<StoreState>,
}

impl WriterHandle {
    /// Creates a handle and the receiver of its commands.
    pub(super) fn new(state: Arc<StoreState>) -> (Self, mpsc::Receiver<WriterCommand>) {
        let (commands, receiver) = mpsc::channel();
        (Self { commands, state }, receiver)
    }

    pub(super) fn state(&self) -> &Arc<StoreState> {
        &self.state
    }

    /// Sends `operation` to the writer at once. The caller may wait for the reply later, or not at all.
    pub(super) fn post<W: StoreOperation>(&self, operation: W) -> OperationReply<W::Output> {
        let (command, reply) = request(operation);
        self.send(command);
        reply
    }

    /// Sends `operation` to the writer, and waits for the reply, which is sent when the change is on disk.
    pub(super) async fn ask<W: StoreOperation>(&self, operation: W) -> Result<W::Output, QueueError> {
        self.post(operation).await.unwrap_or(Err(QueueError::Closed))
    }

    /// Sends `command`. If the writer has ended, the command is dropped, and its caller gets the error that the queue
    /// is closed.
    pub(super) fn send(&self, command: WriterCommand) {
        drop(self.commands.send(command));
    }

    /// Returns the store's health, for `/readyz`.
    pub(super) fn health(&self) -> Health {
        let problem = match &*self.state.condition.borrow() {
            StoreCondition::Usable => None,
            StoreCondition::Unavailable(reason) | StoreCondition::Failed(reason) => Some(reason.clone()),
            StoreCondition::Closed => Some(format!("the store {} is closed", self.state.path)),
        };
        Health { publishing_blocked: problem.is_some(), problems: problem.into_iter().collect(), ..Health::default() }
    }

    /// Waits until the writer ends on its own, and returns the reason.
    pub(super) async fn wait_until_failed(&self) -> String {
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
