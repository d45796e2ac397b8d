//! The way from the asynchronous side to the writer's thread and back: commands there, answers, changes and the
//! store's condition here.

use std::{
    future,
    sync::{Arc, mpsc},
};

use metrics::{gauge, histogram};
use tokio::{sync::watch, time::Instant};

use super::{
    change::{Change, Taken},
    command::{Asked, Command, Reply, Work},
    wake::Changes,
};
use crate::{Health, Publication, QueueError, held::HeldCounts};
use genfleet_job::{lease::PreviousHolder, metric};

/// How the store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// As it should be.
    Well,
    /// Not now; it is tried again.
    Troubled(String),
    /// The writer ended unasked.
    Failed(String),
    /// The writer ended as asked.
    Closed,
}

/// What the writer tells everyone.
#[derive(Debug)]
pub(super) struct Told {
    /// The store's file, for messages.
    pub(super) path: String,
    /// When it was opened, where jobs were worked from it before.
    pub(super) taken_over: Option<Instant>,
    /// Goes up with every row that someone may wait for.
    pub(super) changes: watch::Sender<Changes>,
    /// How the store is.
    pub(super) condition: watch::Sender<Condition>,
    /// What this process holds.
    pub(super) held: HeldCounts,
}

impl Told {
    /// Of a store just opened.
    pub(super) fn new(path: String, before: PreviousHolder) -> Self {
        let (changes, condition) = (watch::Sender::new(Changes::default()), watch::Sender::new(Condition::Well));
        let taken_over = (before == PreviousHolder::Somebody).then(Instant::now);
        Self { path, taken_over, changes, condition, held: HeldCounts::default() }
    }

    /// From now on it is so.
    pub(super) fn tell(&self, condition: Condition) {
        self.condition.send_replace(condition);
        self.gauge();
    }

    /// In the metrics the store stands in for the broker.
    pub(super) fn gauge(&self) {
        let well = if *self.condition.borrow() == Condition::Well { 1.0 } else { 0.0 };
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
pub(super) struct Link {
    commands: mpsc::Sender<Command>,
    told: Arc<Told>,
}

impl Link {
    /// A way, and the other end of it.
    pub(super) fn new(told: Arc<Told>) -> (Self, mpsc::Receiver<Command>) {
        let (commands, receiver) = mpsc::channel();
        (Self { commands, told }, receiver)
    }

    /// What the writer told.
    pub(super) fn told(&self) -> &Arc<Told> {
        &self.told
    }

    /// Hands `work` to the writer at once; the answer may be waited for later, or not at all.
    pub(super) fn post<W: Work>(&self, work: W) -> Reply<W::Answer>
    where
        Command: From<Asked<W>>,
    {
        let (asked, reply) = Asked::new(work);
        // A writer that is gone drops the command, and the asker hears of it.
        drop(self.commands.send(asked.into()));
        reply
    }

    /// The answer to `work`, once it is on the disk.
    pub(super) async fn ask<W: Work>(&self, work: W) -> Result<W::Answer, QueueError>
    where
        Command: From<Asked<W>>,
    {
        self.post(work).await.unwrap_or(Err(QueueError::Closed))
    }

    /// Makes a change, timed like a confirm of the broker.
    pub(super) async fn change(&self, taken: Taken, publications: Vec<Publication>) -> Result<bool, QueueError> {
        let begun = Instant::now();
        let found = self.ask(Change { taken, publications }).await?;
        histogram!(metric::PUBLISH_CONFIRM).record(begun.elapsed());
        Ok(found)
    }

    /// Takes something away and puts nothing in.
    pub(super) fn post_change(&self, taken: Taken) -> Reply<bool> {
        self.post(Change { taken, publications: Vec::new() })
    }

    /// Sends `command` as it is.
    pub(super) fn send(&self, command: Command) {
        drop(self.commands.send(command));
    }

    /// For `/readyz`.
    pub(super) fn health(&self) -> Health {
        let problem = match &*self.told.condition.borrow() {
            Condition::Well => None,
            Condition::Troubled(why) | Condition::Failed(why) => Some(why.clone()),
            Condition::Closed => Some(format!("the store {} is closed", self.told.path)),
        };
        Health { publishing_blocked: problem.is_some(), problems: problem.into_iter().collect(), ..Health::default() }
    }

    /// Why the writer ended unasked; waits for ever where it does not.
    pub(super) async fn failed(&self) -> String {
        let mut condition = self.told.condition.subscribe();
        loop {
            if let Condition::Failed(why) = &*condition.borrow_and_update() {
                return why.clone();
            }
            if condition.changed().await.is_err() {
                return future::pending().await;
            }
        }
    }
}
