//! The right to send one request, and the admission control and queue that all requests of a process share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::{
    sync::{Mutex as Queue, Notify, watch},
    time::Instant,
};

use crate::{
    admission::{RequestOutcome, Requester, SentRequest},
    admission_control::{AdmissionControl, SendGrant},
    options::GenesysOptions,
    request::Caller,
    token::Token,
};
use genfleet_job::Kind;

/// Admission control behind a lock, and the queue of those that wait for budget.
#[derive(Debug)]
pub(crate) struct SharedAdmission {
    control: Mutex<AdmissionControl>,
    changes: watch::Receiver<u64>,
    /// Held by the first caller in the queue.
    pub(crate) queue: Queue<()>,
    /// Notified when a request has ended, so that the first caller in the queue checks again.
    pub(crate) freed: Notify,
}

impl SharedAdmission {
    pub(crate) fn new(options: &GenesysOptions) -> Self {
        let control = AdmissionControl::new(options);
        let changes = control.changes();
        Self { control: Mutex::new(control), changes, queue: Queue::new(()), freed: Notify::new() }
    }

    pub(crate) fn control(&self) -> MutexGuard<'_, AdmissionControl> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }
}

/// The right to send one request at once: the grant of admission control, the token, and the request once it is sent. A
/// permit that is dropped unused gives its grant back. If it is dropped while its request is in flight, the request
/// counts as one that the API may have seen.
#[derive(Debug)]
#[must_use]
pub struct Permit {
    admission: Arc<SharedAdmission>,
    grant: Option<SendGrant>,
    pub(crate) token: Token,
    /// The kind, the endpoint and the time of the request.
    sent: Option<(Kind, &'static str, Instant)>,
}

impl Caller<'_> {
    pub(crate) fn requester(&self) -> Requester<'_> {
        Requester { kind: self.kind, jobs: self.jobs }
    }
}

impl Permit {
    pub(crate) fn new(admission: Arc<SharedAdmission>, grant: SendGrant, token: Token) -> Self {
        Self { admission, grant: Some(grant), token, sent: None }
    }

    pub(crate) fn is_probe(&self) -> bool {
        self.grant.as_ref().is_some_and(SendGrant::is_probe)
    }

    /// Records that its request is sent now. Returns false if something has closed since it was given; then the caller
    /// needs another permit.
    pub(crate) fn begin(&mut self, caller: &Caller<'_>, endpoint: &'static str) -> bool {
        let now = Instant::now();
        let control = self.admission.control();
        let admits =
            self.grant.as_ref().is_some_and(|grant| control.still_admits(grant, caller.requester(), endpoint, now));
        drop(control);
        if admits {
            self.sent = Some((caller.kind, endpoint, now));
        }
        admits
    }

    pub(crate) fn end(mut self, caller: &Caller<'_>, outcome: RequestOutcome) {
        if let (Some(grant), Some((_, endpoint, at))) = (self.grant.take(), self.sent.take()) {
            let request = SentRequest { requester: caller.requester(), endpoint, at };
            self.admission.control().record_outcome(grant, request, outcome, Instant::now());
            self.admission.freed.notify_one();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(grant) = self.grant.take() else { return };
        let now = Instant::now();
        match self.sent.take() {
            Some((kind, endpoint, at)) => {
                let request = SentRequest { requester: Requester { kind, jobs: &[] }, endpoint, at };
                self.admission.control().record_outcome(grant, request, RequestOutcome::Dropped, now);
            }
            None => self.admission.control().return_unused(grant, now),
        }
        self.admission.freed.notify_one();
    }
}
