//! The parts of a process that all its deliveries share: connections, bookkeeping and the signals to stop.

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::activity::Activity;
use crate::{admin::Failures, handler::JobHandler, webhook::Webhooks};
use genfleet_audit::Audit;
use genfleet_genesys::{Admission, ClosedReason, GenesysClient};
use genfleet_job::{Kind, clock::SharedClock};
use genfleet_queue::Queue;

/// Parts of a process that all its kinds use. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct ProcessContext {
    pub(crate) queue: Queue,
    pub(crate) genesys: GenesysClient,
    pub(crate) webhooks: Webhooks,
    pub(crate) audit: Audit,
    pub(crate) clock: SharedClock,
    pub(crate) activity: Activity,
    pub(crate) failures: Failures,
    /// Cancelled when the process drains.
    pub(crate) drain: CancellationToken,
    /// Cancelled shortly before the drain time is over: what still runs is given back.
    pub(crate) give_up: CancellationToken,
    /// Tracks the tasks begun for deliveries, which a drain waits for.
    pub(crate) work: TaskTracker,
}

/// One kind of job in a process, without the types of its handler.
#[derive(Clone, Debug)]
pub(crate) struct KindContext {
    pub(crate) kind: Kind,
    /// `action` of a successful event.
    pub(crate) action: &'static str,
    /// `action` of a successful outcome in the audit.
    pub(crate) audit_action: &'static str,
    /// `action` of any other outcome in the audit.
    pub(crate) audit_failure: &'static str,
    pub(crate) process: ProcessContext,
}

impl KindContext {
    /// Describes the kind that `H` works.
    pub(crate) fn of<H: JobHandler>(process: ProcessContext) -> Self {
        let (audit_action, audit_failure) = (H::AUDIT_ACTION, H::AUDIT_FAILURE);
        Self { kind: H::KIND, action: H::ACTION, audit_action, audit_failure, process }
    }

    /// The kind's name, as a metric label.
    pub(crate) fn label(&self) -> &'static str {
        self.kind.as_str()
    }

    /// Decides whether jobs may start now. A kind that does not call the API waits for the audit only.
    pub(crate) fn admission(&self) -> Admission {
        if !self.kind.is_internal() {
            return self.process.genesys.admission(self.kind);
        }
        if self.process.audit.is_writable() {
            return Admission::Open;
        }
        Admission::Closed { reason: ClosedReason::Audit, reopens: None, probe: None }
    }
}
