//! A piece of work for the writer: it runs inside a transaction, and is answered once that is on the disk.

use jiff::Timestamp;
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::changes::Changes;
use crate::message::QueueError;

/// The transaction that a piece of work runs in.
pub(super) struct Scope<'a> {
    pub(super) connection: &'a Connection,
    /// One time for the whole transaction.
    pub(super) now: Timestamp,
}

/// A piece of work. It may run several times: each time the transaction before it was rolled back.
pub(super) trait Work: Send + 'static {
    /// The result of a run, worth nothing before the commit.
    type Found: Send + 'static;
    /// The answer after the commit.
    type Answer: Send + 'static;

    /// Does the work, and notes in `changes` who has to look again afterwards.
    fn run(&self, scope: &Scope<'_>, changes: &mut Changes) -> rusqlite::Result<Self::Found>;

    /// Makes the answer, after the commit.
    fn answer(self, found: Self::Found) -> Self::Answer;

    /// The result to answer with while the store is unavailable, if the asker should not be left to wait.
    fn when_unavailable(&self, _now: Timestamp) -> Option<Self::Found> {
        None
    }
}

/// The answer to come.
pub(super) type Reply<A> = oneshot::Receiver<Result<A, QueueError>>;

/// What the writer receives.
pub(super) enum Command {
    /// Work to be done.
    Work(Box<dyn Request>),
    /// Finish and end.
    Close(oneshot::Sender<()>),
}

/// Work that someone waits for.
pub(super) trait Request: Send {
    /// Runs the work inside the transaction.
    fn run(&mut self, scope: &Scope<'_>, changes: &mut Changes) -> rusqlite::Result<()>;
    /// Answers after the commit.
    fn answer(self: Box<Self>);
    /// Answers that there will be no commit.
    fn fail(self: Box<Self>, error: QueueError);
    /// Answers while the store is unavailable, or returns the request to be tried again.
    fn answer_or_wait(self: Box<Self>, now: Timestamp) -> Option<Box<dyn Request>>;
}

struct Pending<W: Work> {
    work: W,
    found: Option<W::Found>,
    reply: oneshot::Sender<Result<W::Answer, QueueError>>,
}

pub(super) fn request<W: Work>(work: W) -> (Command, Reply<W::Answer>) {
    let (reply, answer) = oneshot::channel();
    (Command::Work(Box::new(Pending { work, found: None, reply })), answer)
}

/// Dropped without an answer, the asker is told that the queue is closed.
impl<W: Work> Request for Pending<W> {
    fn run(&mut self, scope: &Scope<'_>, changes: &mut Changes) -> rusqlite::Result<()> {
        self.found = Some(self.work.run(scope, changes)?);
        Ok(())
    }

    fn answer(self: Box<Self>) {
        let Self { work, found, reply } = *self;
        if let Some(found) = found {
            drop(reply.send(Ok(work.answer(found))));
        }
    }

    fn fail(self: Box<Self>, error: QueueError) {
        drop(self.reply.send(Err(error)));
    }

    fn answer_or_wait(mut self: Box<Self>, now: Timestamp) -> Option<Box<dyn Request>> {
        self.found = match self.work.when_unavailable(now) {
            Some(found) => Some(found),
            None => return Some(self),
        };
        self.answer();
        None
    }
}
