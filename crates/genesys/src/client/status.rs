//! The state of the client for other modules: the intake, the fleet, `/readyz`, and the operator's tool.

use std::{
    path::Path,
    sync::{MutexGuard, PoisonError},
    time::Duration,
};

use metrics::gauge;
use secrecy::ExposeSecret;
use tokio::{sync::watch, time::Instant};
use tracing::{info, warn};

use super::GenesysClient;
use crate::{
    admission::{ActiveHold, Admission},
    answer_body::AnswerAuthor,
    budget::{BudgetUsage, share::LimitShare},
    clock_skew::{ClockSkew, SkewChange},
    fleet_key::FleetKey,
    http_transport::HttpResponse,
    options::GenesysOptions,
    region::Addresses,
    worker_holds::WorkerHold,
};
use genfleet_audit::Audit;
use genfleet_job::{Kind, metric};

/// The state of the client at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientStatus {
    /// The use of the budget.
    pub usage: BudgetUsage,
    /// Everything that holds requests back.
    pub holds: Vec<ActiveHold>,
    /// How long the client's limit is still exhausted, as the API reported it to this process.
    pub client_limit_pause: Option<Duration>,
    /// Seconds by which this machine's clock is ahead of the API's, if the API answered.
    pub clock_ahead: Option<i64>,
    /// The failures of requests, if requests fail.
    pub failures: Option<String>,
    /// What failed when it was last tried, and is tried again with the next job, since none waits.
    pub untaken_probes: Vec<String>,
}

impl GenesysClient {
    /// Sets the audit in which every call that changes something is recorded. The first one stays.
    pub fn keep_audit(&self, audit: Audit) {
        let _ = self.shared.audit.set(audit);
    }

    /// Returns the audit; one that records nothing, unless [`keep_audit`](Self::keep_audit) set another.
    pub fn audit(&self) -> &Audit {
        self.shared.audit.get().unwrap_or(&self.shared.no_audit)
    }

    /// Decides whether workers of `kind` may start jobs now. A probe is taken only by the request itself.
    pub fn admission(&self, kind: Kind) -> Admission {
        self.shared.admission.control().admission(kind, Instant::now())
    }

    /// Names the holds that a worker may set, so that their gauges exist from the start.
    pub fn declare_holds(&self, reasons: &[&'static str]) {
        self.shared.admission.control().workers.declare(reasons);
        for reason in reasons {
            gauge!(metric::GATE_STATE, "reason" => *reason).set(0.0);
        }
    }

    /// Begins, changes or ends the hold that the worker of `kind` sets itself: its jobs wait in the queue, no attempt
    /// counts, and the process is not ready unless the hold is a pause.
    pub fn set_worker_hold(&self, kind: Kind, hold: Option<WorkerHold>) {
        self.shared.admission.control().set_worker_hold(kind, hold);
    }

    /// Exempts `kind` from all that holds jobs on account of Genesys Cloud, because its worker does not call it. A hold
    /// that the worker sets lets one job start at its next look, as the worker's probe.
    pub fn exempt_from_api_holds(&self, kind: Kind) {
        self.shared.admission.control().workers.exempt(kind);
    }

    /// Returns the settings.
    pub fn options(&self) -> &GenesysOptions {
        &self.shared.options
    }

    /// Counts the changes of admission. Times that an [`Admission`] names pass without a change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.admission.changes()
    }

    /// Returns the addresses of the settings.
    pub fn addresses(&self) -> &Addresses {
        &self.shared.addresses
    }

    /// Returns the setting that names a file of further certificate authorities, and the file, if there is one.
    pub fn authorities(&self) -> Option<(&'static str, &Path)> {
        self.shared.options.ca_file().map(|file| ("GENESYS_CA_FILE", file))
    }

    /// Describes why the process is not ready: bad credentials, missing permissions, an audit that cannot be written, a
    /// hold that a worker set. A pause and an API that does not answer are no such reasons.
    pub fn problems(&self) -> Vec<String> {
        let control = self.shared.admission.control();
        let credentials = control.credentials.reason().map(|why| format!("Genesys Cloud gives us no token: {why}"));
        let forbidden = control.permissions.all(Instant::now()).map(|(kind, endpoint)| {
            format!("{kind} is forbidden on {endpoint}; it needs {}", self.shared.rights.needed_by(kind))
        });
        let workers = control.workers.all().filter(|(_, hold)| !hold.is_pause);
        let workers = workers.map(|(kind, hold)| format!("{kind} is on hold, {}: {}", hold.reason, hold.why));
        control.audit.clone().into_iter().chain(credentials).chain(forbidden).chain(workers).collect()
    }

    /// Describes the problems of a ready process: an API that does not answer, a pause that a worker set, a wrong clock,
    /// and failures that the next job tries again.
    pub fn warnings(&self) -> Vec<String> {
        let (control, now) = (self.shared.admission.control(), Instant::now());
        let pauses = control.workers.all().filter(|(_, hold)| hold.is_pause);
        let pauses = pauses.map(|(kind, hold)| format!("{kind} waits, {}: {}", hold.reason, hold.why));
        let warnings = control.describe_failures(now).into_iter().chain(pauses).chain(self.clock_warning());
        warnings.chain(control.untaken_probes(now)).collect()
    }

    /// Describes how much this machine's clock is wrong, if it is.
    pub fn clock_warning(&self) -> Option<String> {
        self.clock_skew().describe()
    }

    /// Compares this machine's clock with the API's by an answer of its own; one of an intermediary says nothing.
    pub(super) fn compare_clocks(&self, response: &HttpResponse, took: Duration) {
        let is_own =
            ClockSkew::is_fresh(&response.headers) && AnswerAuthor::of(&response.body) != AnswerAuthor::Intermediary;
        let Some(clocks) = self.read_clocks(&response.headers, took).filter(|_| is_own) else { return };
        let mut skew = self.clock_skew();
        let change = skew.note(clocks);
        #[expect(clippy::cast_precision_loss, reason = "seconds between two clocks")]
        let ahead = skew.ahead().unwrap_or_default() as f64;
        gauge!(metric::CLOCK_OFFSET).set(ahead);
        match change {
            SkewChange::None => {}
            SkewChange::Apart => warn!(ahead, "{}", skew.describe().unwrap_or_default()),
            SkewChange::Agree => info!(ahead, "this machine's clock agrees with the API's again"),
        }
    }

    fn clock_skew(&self) -> MutexGuard<'_, ClockSkew> {
        self.shared.clock_skew.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pauses for this time, because another process has exhausted the client's limit.
    pub fn pause_for_client_limit(&self, wait: Duration) {
        self.shared.admission.control().pause_for_peer(Instant::now(), wait);
    }

    /// Sets this process's share of the client's limit.
    pub fn set_limit_share(&self, share: LimitShare) {
        self.shared.admission.control().budget.set_limit_share(share, Instant::now());
        // It may be more than before.
        self.shared.admission.freed.notify_one();
    }

    /// Describes the state of this moment, for the other members of the fleet and for people.
    pub fn status(&self) -> ClientStatus {
        let (mut control, now) = (self.shared.admission.control(), Instant::now());
        ClientStatus {
            usage: control.budget.usage(now),
            holds: control.active_holds(now),
            client_limit_pause: control.client_limit_pause(now),
            clock_ahead: self.clock_skew().ahead(),
            failures: control.describe_failures(now),
            untaken_probes: control.untaken_probes(now),
        }
    }

    /// Returns a fingerprint of the client's id: all processes with this id have the same.
    pub fn client_fingerprint(&self) -> String {
        self.shared.tokens.credentials.get().fingerprint()
    }

    /// Derives the key with which all processes of the client sign their messages to each other.
    pub fn fleet_key(&self) -> FleetKey {
        FleetKey::derive(&self.shared.tokens.credentials.get())
    }

    /// Derives the key from the secret as it is now, if that is this client's and can be read: files may have been
    /// replaced since.
    pub fn reread_fleet_key(&self) -> Option<FleetKey> {
        let read = self.shared.tokens.credentials.read().ok()?;
        let current = self.shared.tokens.credentials.get();
        (read.id.expose_secret() == current.id.expose_secret()).then(|| FleetKey::derive(&read))
    }
}
