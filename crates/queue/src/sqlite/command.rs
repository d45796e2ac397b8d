//! What the writer is asked: a piece of work, run inside a transaction, and an answer once that is on the disk.

use jiff::Timestamp;
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::{
    batch::{Load, Printed},
    change::Change,
    changes::Changes,
    claim::Claim,
};
use crate::QueueError;

/// The transaction a piece of work runs in.
pub(super) struct Scope<'a> {
    /// Where.
    pub(super) connection: &'a Connection,
    /// When: one time for the whole transaction.
    pub(super) now: Timestamp,
}

/// A piece of work. It may run several times: each time the transaction before it was rolled back.
pub(super) trait Work {
    /// What running it gives, worth nothing before the commit.
    type Found;
    /// What the asker gets after the commit.
    type Answer;

    /// Does it, and notes who has to look again afterwards.
    fn run(&self, scope: &Scope<'_>, changes: &mut Changes) -> rusqlite::Result<Self::Found>;

    /// After the commit.
    fn answer(self, found: Self::Found) -> Self::Answer;
}

/// The answer to come.
pub(super) type Reply<A> = oneshot::Receiver<Result<A, QueueError>>;

/// Work that someone waits for.
#[derive(Debug)]
pub(super) struct Request<W: Work> {
    work: W,
    found: Option<W::Found>,
    reply: oneshot::Sender<Result<W::Answer, QueueError>>,
}

impl<W: Work> Request<W> {
    /// The work, and where its answer will come.
    pub(super) fn new(work: W) -> (Self, Reply<W::Answer>) {
        let (reply, answer) = oneshot::channel();
        (Self { work, found: None, reply }, answer)
    }

    fn run(&mut self, scope: &Scope<'_>, changes: &mut Changes) -> rusqlite::Result<()> {
        self.found = Some(self.work.run(scope, changes)?);
        Ok(())
    }

    /// Dropped without an answer, the asker is told that the queue is closed.
    fn answer(self) {
        if let Some(found) = self.found {
            drop(self.reply.send(Ok(self.work.answer(found))));
        }
    }

    fn fail(self, error: QueueError) {
        drop(self.reply.send(Err(error)));
    }
}

/// All that the writer is asked.
#[derive(Debug)]
pub(super) enum Command {
    /// Publish, settle, give back.
    Change(Request<Change>),
    /// Hand out rows.
    Claim(Request<Claim>),
    /// Take a batch in.
    Load(Request<Load>),
    /// Note how far a batch's events are printed.
    Printed(Request<Printed>),
    /// Finish and end.
    Close(oneshot::Sender<()>),
}

impl Command {
    /// Inside the transaction.
    pub(super) fn run(&mut self, scope: &Scope<'_>, changes: &mut Changes) -> rusqlite::Result<()> {
        match self {
            Self::Change(asked) => asked.run(scope, changes),
            Self::Claim(asked) => asked.run(scope, changes),
            Self::Load(asked) => asked.run(scope, changes),
            Self::Printed(asked) => asked.run(scope, changes),
            Self::Close(_) => Ok(()),
        }
    }

    /// After the commit.
    pub(super) fn answer(self) {
        match self {
            Self::Change(asked) => asked.answer(),
            Self::Claim(asked) => asked.answer(),
            Self::Load(asked) => asked.answer(),
            Self::Printed(asked) => asked.answer(),
            // Whoever does not wait any more need not hear it.
            Self::Close(reply) => reply.send(()).unwrap_or(()),
        }
    }

    /// There will be no commit.
    pub(super) fn fail(self, error: QueueError) {
        match self {
            Self::Change(asked) => asked.fail(error),
            Self::Claim(asked) => asked.fail(error),
            Self::Load(asked) => asked.fail(error),
            Self::Printed(asked) => asked.fail(error),
            Self::Close(_) => {}
        }
    }

    /// Answers a claim with "nothing now", so that a consumer can be stopped while the store is in trouble; all
    /// else is left to wait.
    pub(super) fn or_wait(self, now: Timestamp) -> Option<Self> {
        match self {
            Self::Claim(mut asked) => {
                asked.found = Some(Claim::nothing(now));
                asked.answer();
                None
            }
            other => Some(other),
        }
    }
}

impl From<Request<Change>> for Command {
    fn from(asked: Request<Change>) -> Self {
        Self::Change(asked)
    }
}

impl From<Request<Claim>> for Command {
    fn from(asked: Request<Claim>) -> Self {
        Self::Claim(asked)
    }
}

impl From<Request<Load>> for Command {
    fn from(asked: Request<Load>) -> Self {
        Self::Load(asked)
    }
}

impl From<Request<Printed>> for Command {
    fn from(asked: Request<Printed>) -> Self {
        Self::Printed(asked)
    }
}
