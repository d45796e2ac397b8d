//! An operation of the writer. It runs inside a transaction, and its result is sent when the transaction is on disk.

use jiff::Timestamp;
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::changes::Changes;
use crate::message::QueueError;

/// The transaction in which an operation runs.
pub(super) struct TransactionScope<'a> {
    pub(super) connection: &'a Connection,
    /// The time, which is the same for the whole transaction.
    pub(super) now: Timestamp,
}

/// An operation. If its transaction is rolled back, it runs again in the next one.
pub(super) trait StoreOperation: Send + 'static {
    /// The result of a run, which is valid only after the commit.
    type Staged: Send + 'static;
    /// The result for the caller.
    type Output: Send + 'static;

    /// Runs the operation, and counts in `changes` the rows for which consumers wait.
    fn run(&self, scope: &TransactionScope<'_>, changes: &mut Changes) -> rusqlite::Result<Self::Staged>;

    /// Creates the result for the caller, after the commit.
    fn into_output(self, found: Self::Staged) -> Self::Output;

    /// Returns the result for the caller while the store is unavailable; `None` if the caller has to wait.
    fn when_unavailable(&self, _now: Timestamp) -> Option<Self::Staged> {
        None
    }
}

/// The receiver of a result.
pub(super) type OperationReply<A> = oneshot::Receiver<Result<A, QueueError>>;

/// A command for the writer.
pub(super) enum WriterCommand {
    /// Runs an operation.
    Run(Box<dyn OperationRequest>),
    /// Finishes and ends the thread.
    Close(oneshot::Sender<()>),
}

/// An operation whose caller waits for the result.
pub(super) trait OperationRequest: Send {
    /// Runs the operation inside the transaction.
    fn run(&mut self, scope: &TransactionScope<'_>, changes: &mut Changes) -> rusqlite::Result<()>;
    /// Sends the result after the commit.
    fn send_output(self: Box<Self>);
    /// Reports that there will be no commit.
    fn fail(self: Box<Self>, error: QueueError);
    /// Sends a result while the store is unavailable, or returns the request for another try.
    fn send_or_wait(self: Box<Self>, now: Timestamp) -> Option<Box<dyn OperationRequest>>;
}

struct PendingOperation<W: StoreOperation> {
    operation: W,
    found: Option<W::Staged>,
    reply: oneshot::Sender<Result<W::Output, QueueError>>,
}

pub(super) fn request<W: StoreOperation>(operation: W) -> (WriterCommand, OperationReply<W::Output>) {
    let (reply, answer) = oneshot::channel();
    (WriterCommand::Run(Box::new(PendingOperation { operation, found: None, reply })), answer)
}

/// If it is dropped without a result, the caller gets the error that the queue is closed.
impl<W: StoreOperation> OperationRequest for PendingOperation<W> {
    fn run(&mut self, scope: &TransactionScope<'_>, changes: &mut Changes) -> rusqlite::Result<()> {
        self.found = Some(self.operation.run(scope, changes)?);
        Ok(())
    }

    fn send_output(self: Box<Self>) {
        let Self { operation, found, reply } = *self;
        if let Some(found) = found {
            drop(reply.send(Ok(operation.into_output(found))));
        }
    }

    fn fail(self: Box<Self>, error: QueueError) {
        drop(self.reply.send(Err(error)));
    }

    fn send_or_wait(mut self: Box<Self>, now: Timestamp) -> Option<Box<dyn OperationRequest>> {
        self.found = match self.operation.when_unavailable(now) {
            Some(found) => Some(found),
            None => return Some(self),
        };
        self.send_output();
        None
    }
}
