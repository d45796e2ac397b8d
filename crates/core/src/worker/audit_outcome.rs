//! Outcomes in the audit. An outcome is recorded before the event that names its record is made, and no message is
//! acknowledged before every record of its job is durable.

use std::time::Duration;

use tokio::time::sleep;
use tracing::warn;

use super::{
    context::{KindContext, ProcessContext},
    large_body::offload,
    outcome::JobOutcome,
};
use genfleet_audit::{Audit, AuditPosition, AuditSubject, Detail, Fact, JobAudit, Unwritten, payload_sha256};
use genfleet_job::{
    decode,
    event::{self, AuditReference, Ending, Outcome},
    message::Message,
};

/// Time that a job which changed nothing waits here for an audit that cannot be written; then it waits in the queue.
pub(crate) const AUDIT_PATIENCE: Duration = Duration::from_secs(30);

/// Time that a process which gives back what still runs waits for records on their way to the disk.
const LAST_SYNC: Duration = Duration::from_millis(1500);

/// An outcome that is recorded.
#[derive(Debug)]
pub(crate) struct AuditedOutcome {
    pub(crate) outcome: JobOutcome,
    /// Position up to which the audit must be durable before a message is acknowledged.
    pub(crate) position: AuditPosition,
}

/// Permission of the audit to settle a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SettlePermission {
    /// Every record is durable.
    Settle,
    /// The audit cannot be written: the message goes back to the queue as it came.
    GiveBack,
}

/// Records how a job that ran here goes on or ends.
pub(crate) fn record_attempt(kind: &KindContext, mut outcome: JobOutcome, job: &JobAudit) -> AuditedOutcome {
    let AuditPosition { mut last, sent } = job.position();
    if let JobOutcome::Ends { ending, .. } = &mut outcome {
        let about = AuditSubject { action: action(kind, ending.outcome), ..job.about().clone() };
        ending.audit = kind.process.audit.fact(&about, Fact::Outcome, &detail(ending));
        last = ending.audit.as_ref().map(|stamp| stamp.seq).or(last);
    }
    // A kind that does not call the API has no record of its calls, and has made one.
    let sent = sent || kind.kind.is_internal();
    AuditedOutcome { position: AuditPosition { last, sent }, outcome }
}

/// Records how a job ended that did not run.
pub(crate) async fn record_not_run(kind: &KindContext, mut outcome: JobOutcome, message: &Message) -> AuditedOutcome {
    let mut last = None;
    if let JobOutcome::Ends { ending, .. } = &mut outcome {
        let body = message.body.clone();
        let payload_sha256 = offload(body.len(), move || readable_payload_sha256(&body)).await;
        ending.audit = record_outcome(&kind.process.audit, action(kind, ending.outcome), ending, payload_sha256);
        last = ending.audit.as_ref().map(|stamp| stamp.seq);
    }
    AuditedOutcome { position: AuditPosition { last, sent: false }, outcome }
}

/// Waits until the records up to `position` are durable. A job that changed something is held until then or until the
/// process stops; any other goes back to the queue if that takes long.
pub(crate) async fn wait_for_permission(process: &ProcessContext, position: AuditPosition) -> SettlePermission {
    let durable = async {
        match position.last {
            Some(seq) => process.audit.wait_until_durable(seq).await,
            None => process.audit.wait_until_writable().await,
        }
    };
    // A writable audit gets a moment for its last sync: what was achieved then travels with the message.
    let last_moment = async {
        process.give_up.cancelled().await;
        if process.audit.is_writable() {
            sleep(LAST_SYNC).await;
        }
    };
    let why = tokio::select! {
        biased;
        durable = durable => match durable {
            Ok(()) => return SettlePermission::Settle,
            Err(Unwritten) => "the audit has ended",
        },
        () = last_moment => "the process stops before its audit was durable",
        () = sleep(AUDIT_PATIENCE), if !position.sent => "the audit cannot be written",
    };
    warn!(why, "the message is returned to the queue");
    SettlePermission::GiveBack
}

fn action(kind: &KindContext, outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Succeeded => kind.audit_action,
        Outcome::Failed | Outcome::Expired => kind.audit_failure,
    }
}

/// Records how a job ended that did not run, with the hash of its payload if that could be read. Returns the
/// reference of the record.
pub(crate) fn record_outcome(
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
    audit.fact(&about, Fact::Outcome, &detail(ending))
}

/// Detail of an outcome's record: codes, never messages, which may quote the payload.
fn detail(ending: &Ending) -> Detail {
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

/// Hash of the payload in `body`, if one can be read.
pub fn readable_payload_sha256(body: &[u8]) -> Option<String> {
    let (job, _) = decode::parse_body(body).ok()?;
    job.get("payload").map(payload_sha256)
}
