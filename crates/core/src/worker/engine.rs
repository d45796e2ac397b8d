//! What all deliveries of one kind share in a process.

use std::{sync::Arc, time::Duration};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    doing::Doing, failures::Failures, running::Running, suspect::Outlived, unsettled::Unsettled, validate::JobRules,
};
use crate::{handler::JobHandler, webhook::Webhooks};
use genfleet_audit::Audit;
use genfleet_genesys::{Admission, ClosedReason, GenesysClient};
use genfleet_job::{clock::SharedClock, retry::RetryPolicy};
use genfleet_queue::Queue;

/// How jobs are run; the same for all kinds of a process.
#[derive(Clone, Copy, Debug)]
pub struct RunPolicy {
    /// Waits between attempts.
    pub retry: RetryPolicy,
    /// After this the handler is asked to come to an end.
    pub attempt_timeout: Duration,
    /// So long after it began to work a kind that one process at a time works, a process takes into account that reads
    /// may not show yet what another one changed before.
    pub takeover_wait: Duration,
}

/// One worker: its handler and everything a delivery needs on its way.
#[derive(Debug)]
pub struct Engine<H: JobHandler> {
    /// Works the jobs.
    pub handler: H,
    /// What its handler was made with.
    pub options: H::Options,
    /// The shape of its jobs.
    pub rules: JobRules,
    /// Where jobs come from and events go.
    pub queue: Queue,
    /// The API.
    pub genesys: GenesysClient,
    /// Who is told beside the queue.
    pub webhooks: Webhooks,
    /// Where facts are written down.
    pub audit: Audit,
    /// The time of day.
    pub clock: SharedClock,
    /// See [`RunPolicy`].
    pub policy: RunPolicy,
    /// The jobs that run now.
    pub running: Arc<Running>,
    /// The results of attempts whose message could not be settled yet.
    pub unsettled: Unsettled,
    /// The suspects survived.
    pub outlived: Outlived,
    /// What runs and what ended, for the fleet.
    pub doing: Doing,
    /// The last jobs that failed.
    pub failures: Failures,
    /// Cancelled when the process drains.
    pub drain: CancellationToken,
    /// Cancelled when the drain time is nearly over: what still runs is given back.
    pub give_up: CancellationToken,
    /// Everything begun for a delivery; waited for when draining.
    pub work: TaskTracker,
}

impl<H: JobHandler> Engine<H> {
    /// The kind's name, as a label.
    pub fn kind(&self) -> &'static str {
        H::KIND.as_str()
    }

    /// May jobs start now? What does not call the API does not wait for it, but for the audit everybody waits.
    pub fn admission(&self) -> Admission {
        if !H::KIND.is_internal() {
            return self.genesys.admission(H::KIND);
        }
        if self.audit.is_writable() {
            return Admission::Open;
        }
        Admission::Closed { reason: ClosedReason::Audit, reopens: None, probe: None }
    }
}
