//! Whom facts are about: a job, from when it begins to run in this process until it is settled. What is told beside its
//! facts is known here, and how far they are.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use super::{Audit, record::AuditSubject};
use genfleet_job::{JobId, Kind};

/// Whom facts are about, and how far they are.
#[derive(Debug)]
pub(super) struct SubjectState {
    pub(super) about: AuditSubject,
    /// The number of its last fact; 0 where there is none.
    last: AtomicU64,
    /// A call that changes something was sent.
    sent: AtomicBool,
}

/// A job that runs here: its facts are known by its kind and id until this is dropped.
#[derive(Debug)]
#[must_use]
pub struct JobAudit {
    audit: Audit,
    key: (Kind, JobId),
    subject: Arc<SubjectState>,
}

/// What was written of one attempt of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuditPosition {
    /// The number of the last fact.
    pub last: Option<u64>,
    /// Whether a call was sent that changes something.
    pub sent: bool,
}

impl SubjectState {
    pub(super) fn new(about: AuditSubject) -> Self {
        Self { about, last: AtomicU64::new(0), sent: AtomicBool::new(false) }
    }

    /// Its fact `seq` was appended.
    pub(super) fn appended(&self, seq: u64) {
        self.last.fetch_max(seq, Ordering::Relaxed);
    }

    /// A call that changes something goes out.
    pub(super) fn sent(&self) {
        self.sent.store(true, Ordering::Relaxed);
    }
}

impl JobAudit {
    pub(super) fn new(audit: Audit, key: (Kind, JobId), subject: Arc<SubjectState>) -> Self {
        Self { audit, key, subject }
    }

    /// What was written of it so far.
    pub fn position(&self) -> AuditPosition {
        let last = Some(self.subject.last.load(Ordering::Relaxed)).filter(|last| *last > 0);
        AuditPosition { last, sent: self.subject.sent.load(Ordering::Relaxed) }
    }

    /// Whom its facts are about.
    pub fn about(&self) -> &AuditSubject {
        &self.subject.about
    }
}

impl Drop for JobAudit {
    fn drop(&mut self) {
        let mut state = self.audit.shared.state();
        // Its successor may be there already.
        if state.jobs.get(&self.key).is_some_and(|known| Arc::ptr_eq(known, &self.subject)) {
            state.jobs.remove(&self.key);
        }
    }
}
