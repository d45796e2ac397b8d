//! The subjects of facts: a job, from its start in this process until it is settled.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use super::{Audit, record::AuditSubject};
use genfleet_job::{JobId, Kind};

/// A subject, and the position of its facts.
#[derive(Debug)]
pub(super) struct SubjectState {
    pub(super) about: AuditSubject,
    /// Number of its last fact; 0 if there is none.
    last: AtomicU64,
    /// True if a call that changes something was sent.
    sent: AtomicBool,
}

/// The audit of a job that runs in this process: its facts are found by its kind and id until this is dropped.
#[derive(Debug)]
#[must_use]
pub struct JobAudit {
    audit: Audit,
    key: (Kind, JobId),
    subject: Arc<SubjectState>,
}

/// The position of one attempt of a job in the audit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuditPosition {
    /// Number of the last fact.
    pub last: Option<u64>,
    /// True if a call that changes something was sent.
    pub sent: bool,
}

impl SubjectState {
    pub(super) fn new(about: AuditSubject) -> Self {
        Self { about, last: AtomicU64::new(0), sent: AtomicBool::new(false) }
    }

    /// Records that its fact `seq` was appended.
    pub(super) fn record_appended(&self, seq: u64) {
        self.last.fetch_max(seq, Ordering::Relaxed);
    }

    /// Records that a call was sent that changes something.
    pub(super) fn record_sent(&self) {
        self.sent.store(true, Ordering::Relaxed);
    }
}

impl JobAudit {
    pub(super) fn new(audit: Audit, key: (Kind, JobId), subject: Arc<SubjectState>) -> Self {
        Self { audit, key, subject }
    }

    /// Returns its current position.
    pub fn position(&self) -> AuditPosition {
        let last = Some(self.subject.last.load(Ordering::Relaxed)).filter(|last| *last > 0);
        AuditPosition { last, sent: self.subject.sent.load(Ordering::Relaxed) }
    }

    /// Returns the subject of its facts.
    pub fn about(&self) -> &AuditSubject {
        &self.subject.about
    }
}

impl Drop for JobAudit {
    fn drop(&mut self) {
        let mut state = self.audit.shared.state();
        // A later run of the same job may already have replaced it.
        if state.jobs.get(&self.key).is_some_and(|known| Arc::ptr_eq(known, &self.subject)) {
            state.jobs.remove(&self.key);
        }
    }
}
