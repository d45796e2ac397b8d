//! A conclusion and what the audit has of it: the outcome is written down before the event that names it is made, and
//! nothing is acknowledged before every fact of the job is durable.

use std::time::Duration;

use tokio::time::sleep;
use tracing::warn;

use super::{aside::aside, conclusion::Conclusion, engine::Engine};
use crate::handler::JobHandler;
use genfleet_audit::{Audit, AuditPosition, AuditSubject, Detail, JobAudit, Unwritten, payload_sha256};
use genfleet_job::{
    decode,
    event::{self, AuditReference, Ending, Outcome},
    message::Message,
};

/// How long a job that changed nothing waits here for an audit that cannot be written; then it waits in the queue.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How long a process that gives back what still runs waits for facts on their way to the disk.
const LAST_SYNC: Duration = Duration::from_millis(1500);

/// What is told of a job, written down.
#[derive(Debug)]
pub struct Audited {
    /// What is told.
    pub conclusion: Conclusion,
    /// What has to be durable first.
    pub(super) extent: AuditPosition,
}

/// Whether a delivery may be settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// Every fact is durable.
    Settle,
    /// The audit cannot be written: the message goes back to the queue as it came.
    GiveBack,
}

impl<H: JobHandler> Engine<H> {
    /// Writes down how a job that ran here goes on or ends.
    pub(super) fn audited(&self, mut conclusion: Conclusion, trail: &JobAudit) -> Audited {
        if let Conclusion::Ends { ending, .. } = &mut conclusion {
            let about = AuditSubject { action: action_of::<H>(ending.outcome), ..trail.about().clone() };
            ending.audit = self.audit.outcome(&about, &told(ending));
        }
        let AuditPosition { last, sent } = trail.position();
        // What calls no API leaves no trail of its calls, and has made one.
        let sent = sent || H::KIND.is_internal();
        Audited { extent: AuditPosition { last: outcome_of(&conclusion).or(last), sent }, conclusion }
    }

    /// Writes down how a job ended that was not run.
    pub(super) async fn audited_unrun(&self, mut conclusion: Conclusion, message: &Message) -> Audited {
        if let Conclusion::Ends { ending, .. } = &mut conclusion {
            let body = message.body.clone();
            let payload_sha256 = aside(body.len(), move || readable_payload(&body)).await;
            ending.audit = outcome_unrun(&self.audit, action_of::<H>(ending.outcome), ending, payload_sha256);
        }
        Audited { extent: AuditPosition { last: outcome_of(&conclusion), sent: false }, conclusion }
    }

    /// Waits until what was written down is durable. What changed something is held until then, or until the process
    /// stops; anything else goes back to the queue where that takes long.
    pub(super) async fn leave_to_settle(&self, extent: AuditPosition) -> Leave {
        let durable = async {
            match extent.last {
                Some(seq) => self.audit.durable(seq).await,
                None => self.audit.wait_until_writable().await,
            }
        };
        let why = tokio::select! {
            biased;
            durable = durable => match durable {
                Ok(()) => return Leave::Settle,
                Err(Unwritten) => "the audit has ended",
            },
            () = self.last_moment() => "the process stops before its audit was durable",
            () = sleep(PATIENCE), if !extent.sent => "the audit cannot be written",
        };
        warn!(why, "given back");
        Leave::GiveBack
    }

    /// The process waits no longer. An audit that is well gets a moment for its sync: what was achieved then travels
    /// with the message.
    async fn last_moment(&self) {
        self.give_up.cancelled().await;
        if self.audit.is_writable() {
            sleep(LAST_SYNC).await;
        }
    }
}

fn action_of<H: JobHandler>(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Succeeded => H::AUDIT_ACTION,
        Outcome::Failed | Outcome::Expired => H::AUDIT_FAILURE,
    }
}

fn outcome_of(conclusion: &Conclusion) -> Option<u64> {
    match conclusion {
        Conclusion::Ends { ending, .. } => ending.audit.as_ref().map(|stamp| stamp.seq),
        Conclusion::GoesOn { .. } => None,
    }
}

/// Writes down how a job ended that was not run, with the hash of its payload where there is one: which line says it.
pub fn outcome_unrun(
    audit: &Audit,
    action: &'static str,
    ending: &Ending,
    payload_sha256: Option<String>,
) -> Option<AuditReference> {
    let about = AuditSubject {
        job: Some(ending.job.clone()),
        kind: ending.kind,
        worker: ending.worker,
        action,
        payload_sha256,
    };
    audit.outcome(&about, &told(ending))
}

/// What the audit tells of an ending: codes, never messages, which may quote the payload.
fn told(ending: &Ending) -> Detail {
    let of_error = |member: &str| ending.error.as_ref().and_then(|error| error.get(member)).cloned();
    Detail::default()
        .with("attempts", ending.attempts)
        .with_some("cause", of_error("cause"))
        .with_some("code", of_error("code"))
        .with("eventId", event::event_id(ending.kind, &ending.job, ending.generation, ending.outcome).to_string())
        .with("generation", ending.generation)
        .with("outcome", ending.outcome.as_str())
        .with_some("producer", ending.producer.clone())
        .with_some("redrivenBy", ending.redriven_by.clone())
        .with("requests", ending.requests)
}

/// The hash of the payload in `body`, where one can be read.
pub fn readable_payload(body: &[u8]) -> Option<String> {
    let (mut job, _) = decode::parse_body(body).ok()?;
    job.get_mut("payload").map(|payload| payload_sha256(payload.take()))
}
