//! The way from the asynchronous side to the writer's thread and back: commands there, answers, changes and the
//! store's condition here.

use std::{
    future,
    sync::{Arc, mpsc},
};

use metrics::{gauge, histogram};
use tokio::{sync::watch, time::Instant};

use super::{
    change::{Change, RowRemoval},
    changes::Changes,
    command::{Command, Reply, Request, Work},
};
use crate::{Health, Publication, QueueError, unsettled::UnsettledCounts};
use genfleet_job::{lease::PreviousHolder, metric};

/// How the store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StoreCondition {
    /// As it should be.
    Usable,
    /// Not now; it is tried again.
    Unavailable(String),
    /// The writer ended unasked.
    Failed(String),
    /// The writer ended as asked.
    Closed,
}

/// What the writer tells everyone.
#[derive(Debug)]
pub(super) struct StoreState {
    /// The store's file, for messages.
    pub(super) path: String,
    /// When it was opened, where jobs were worked from it before.
    pub(super) taken_over: Option<Instant>,
    /// Goes up with every row that someone may wait for.
    pub(super) changes: watch::Sender<Changes>,
    /// How the store is.
    pub(super) condition: watch::Sender<StoreCondition>,
    /// What this process holds.
    pub(super) unsettled: UnsettledCounts,
}

impl StoreState {
    /// Of a store just opened.
    pub(super) fn new(path: String, before: PreviousHolder) -> Self {
        let (changes, condition) = (watch::Sender::new(Changes::default()), watch::Sender::new(StoreCondition::Usable));
        let taken_over = (before == PreviousHolder::Somebody).then(Instant::now);
        Self { path, taken_over, changes, condition, unsettled: UnsettledCounts::default() }
    }

    /// From now on it is so.
    pub(super) fn set_condition(&self, condition: StoreCondition) {
        self.condition.send_replace(condition);
        self.gauge();
    }

    /// In the metrics the store stands in for the broker.
    pub(super) fn gauge(&self) {
        let well = if *self.condition.borrow() == StoreCondition::Usable { 1.0 } else { 0.0 };
        gauge!(metric::BROKER_CONNECTED, "role" => "consume").set(well);
        gauge!(metric::BROKER_CONNECTED, "role" => "publish").set(well);
    }

    /// Wakes whoever waits for what `changes` touched.
    pub(super) fn wake(&self, changes: &Changes) {
        self.changes.send_if_modified(|all| all.add(changes));
    }
}

/// One end of the way. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct WriterHandle {
    commands: mpsc::Sender<Command>,
    state: Arc<StoreState>,
}

impl WriterHandle {
    /// A way, and the other end of it.
    pub(super) fn new(state: Arc<StoreState>) -> (Self, mpsc::Receiver<Command>) {
        let (commands, receiver) = mpsc::channel();
        (Self { commands, state }, receiver)
    }

    /// What the writer told.
    pub(super) fn state(&self) -> &Arc<StoreState> {
        &self.state
    }

    /// Hands `work` to the writer at once; the answer may be waited for later, or not at all.
    pub(super) fn post<W: Work>(&self, work: W) -> Reply<W::Answer>
    where
        Command: From<Request<W>>,
    {
        let (asked, reply) = Request::new(work);
        // A writer that is gone drops the command, and the asker hears of it.
        drop(self.commands.send(asked.into()));
        reply
    }

    /// The answer to `work`, once it is on the disk.
    pub(super) async fn ask<W: Work>(&self, work: W) -> Result<W::Answer, QueueError>
    where
        Command: From<Request<W>>,
    {
        self.post(work).await.unwrap_or(Err(QueueError::Closed))
    }

    /// Makes a change, timed like a confirm of the broker.
    pub(super) async fn change(&self, removal: RowRemoval, publications: Vec<Publication>) -> Result<bool, QueueError> {
        let begun = Instant::now();
        let found = self.ask(Change { removal, publications }).await?;
        histogram!(metric::PUBLISH_CONFIRM).record(begun.elapsed());
        Ok(found)
    }

    /// Takes something away and puts nothing in.
    pub(super) fn post_change(&self, removal: RowRemoval) -> Reply<bool> {
        self.post(Change { removal, publications: Vec::new() })
    }

    /// Sends `command` as it is.
    pub(super) fn send(&self, command: Command) {
        drop(self.commands.send(command));
    }

    /// For `/readyz`.
    pub(super) fn health(&self) -> Health {
        let problem = match &*self.state.condition.borrow() {
            StoreCondition::Usable => None,
            StoreCondition::Unavailable(why) | StoreCondition::Failed(why) => Some(why.clone()),
            StoreCondition::Closed => Some(format!("the store {} is closed", self.state.path)),
        };
        Health { publishing_blocked: problem.is_some(), problems: problem.into_iter().collect(), ..Health::default() }
    }

    /// Why the writer ended unasked; waits for ever where it does not.
    pub(super) async fn failed(&self) -> String {
        let mut condition = self.state.condition.subscribe();
        loop {
            if let StoreCondition::Failed(why) = &*condition.borrow_and_update() {
                return why.clone();
            }
            if condition.changed().await.is_err() {
                return future::pending().await;
            }
        }
    }
}
