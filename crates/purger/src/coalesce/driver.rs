//! The coalescer's task: takes the jobs' orders, asks for permits when requests are due, sends what is packed at the
//! moment a permit comes, and answers the jobs that are over. The state decides; this does the I/O. As many requests
//! are in flight as permits are given: the client's budget and slow start bound them, and the worker's concurrency
//! bounds the jobs.

use std::{future::pending, time::Duration};

use genfleet_core::error::JobError;
use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinError, JoinSet},
    time::{Instant, sleep_until},
};

use super::{
    entry::{PurgeOrder, PurgeOutcome},
    pack::JobKey,
    request::{RequestId, RequestPurpose},
    state::{AskId, CoalescerState, PermitAsk},
};
use crate::cdn::{Cdn, PurgeAccepted, PurgeRefusal, RefusalCause};

/// A command of a job.
#[derive(Debug)]
pub(super) enum Command {
    /// Adds a job.
    Submit { key: JobKey, order: PurgeOrder, reply: oneshot::Sender<PurgeOutcome> },
    /// Ends a job as soon as its requests in flight have ended; none of them is repeated.
    Withdraw(JobKey),
    /// Ends a job now.
    Leave(JobKey),
}

enum TaskResult<P> {
    Permit(AskId, RequestPurpose, Result<P, JobError>),
    Answer(RequestId, Result<PurgeAccepted, PurgeRefusal>),
}

pub(super) struct Driver<C: Cdn> {
    cdn: C,
    commands: mpsc::UnboundedReceiver<Command>,
    tasks: JoinSet<TaskResult<C::Permit>>,
    state: CoalescerState,
}

impl<C: Cdn> Driver<C> {
    pub(super) fn new(cdn: C, linger: Duration, commands: mpsc::UnboundedReceiver<Command>) -> Self {
        let state = CoalescerState::new(cdn.capacity(), linger, Instant::now());
        Self { cdn, commands, tasks: JoinSet::new(), state }
    }

    /// Ends only if a sub-task panicked.
    pub(super) async fn run(mut self) {
        loop {
            let now = Instant::now();
            let mut alarm = self.state.ask_when_due(now);
            while self.get_permits() {
                alarm = self.state.ask_when_due(now);
            }
            let handled = tokio::select! {
                Some(command) = self.commands.recv() => {
                    self.take_orders(command);
                    Ok(())
                }
                Some(result) = self.tasks.join_next() => self.handle_results(result),
                () = sleep_until(alarm.unwrap_or(now)), if alarm.is_some() => Ok(()),
                else => pending().await,
            };
            if let Err(error) = handled {
                return tracing::error!(%error, "a request of the coalescer did not end");
            }
            self.state.answer_finished();
        }
    }

    fn take_orders(&mut self, first: Command) {
        let mut next = Some(first);
        while let Some(command) = next {
            match command {
                Command::Submit { key, order, reply } => self.state.submit(key, order, reply),
                Command::Withdraw(key) => self.state.withdraw(key),
                Command::Leave(key) => self.state.leave(key),
            }
            next = self.commands.try_recv().ok();
        }
    }

    /// Sends the requests that need not wait for a permit, and waits for the other permits. Returns true if one was
    /// sent, so that another may be due.
    fn get_permits(&mut self) -> bool {
        let mut is_sent = false;
        for ask in self.state.take_new_asks() {
            match self.cdn.permit_now(&ask.context) {
                Some(permit) => is_sent |= self.send(ask.id, ask.purpose, permit),
                None => self.wait_for_permit(ask),
            }
        }
        is_sent
    }

    fn wait_for_permit(&mut self, ask: PermitAsk) {
        let cdn = self.cdn.clone();
        self.tasks.spawn(async move { TaskResult::Permit(ask.id, ask.purpose, cdn.permit(&ask.context).await) });
    }

    fn handle_results(&mut self, first: Result<TaskResult<C::Permit>, JoinError>) -> Result<(), JoinError> {
        let mut next = Some(first);
        while let Some(result) = next {
            match result? {
                TaskResult::Permit(ask, purpose, Ok(permit)) => {
                    self.send(ask, purpose, permit);
                }
                TaskResult::Permit(ask, purpose, Err(error)) => self.state.refuse_permit(ask, purpose, &error),
                TaskResult::Answer(request, answer) => self.handle_answer(request, answer),
            }
            next = self.tasks.try_join_next();
        }
        Ok(())
    }

    /// Packs and sends a request. If nothing is left to send, returns the permit, and false.
    fn send(&mut self, ask: AskId, purpose: RequestPurpose, permit: C::Permit) -> bool {
        let Some(request) = self.state.begin_request(ask, purpose) else { return false };
        let cdn = self.cdn.clone();
        self.tasks.spawn(async move {
            TaskResult::Answer(request.id, cdn.purge(permit, &request.paths, &request.context).await)
        });
        true
    }

    fn handle_answer(&mut self, id: RequestId, answer: Result<PurgeAccepted, PurgeRefusal>) {
        let requests = answer.as_ref().map_or_else(|refusal| refusal.requests, |accepted| accepted.requests);
        let Some((request, shares)) = self.state.end_request(id, requests) else { return };
        let purpose = request.purpose;
        let PurgeRefusal { cause, error, .. } = match answer {
            Ok(accepted) => {
                self.state.note_accepted(&shares, &accepted);
                return self.state.clear_half(purpose);
            }
            Err(refusal) => refusal,
        };
        match cause {
            RefusalCause::Content => return self.state.investigate(request, error),
            RefusalCause::Stopped => return self.state.resend(request),
            RefusalCause::Permission => {
                for job in shares.into_keys() {
                    let Some(entry) = self.state.entries.get(&job) else { continue };
                    let error = self.cdn.forbidden(&error, &entry.order().job);
                    self.state.end(job, error);
                }
            }
            RefusalCause::Other => self.state.end_all(shares.into_keys(), &error),
        }
        self.state.give_up(purpose);
    }
}
