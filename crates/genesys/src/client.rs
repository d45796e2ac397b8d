//! The client that all workers of a process share: one token, one budget, one gate. What it knows is in
//! [`crate::admission`]; sending is [`crate::send`]'s.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use metrics::{counter, gauge};
use tokio::{
    sync::{Mutex as Turnstile, Notify, watch},
    time::Instant,
};
use tracing::{info, warn};

use crate::{
    admission::{Admission, ActiveHold},
    brake::Judgement,
    budget::{LimitShare, BudgetUsage},
    classify::AnswerAuthor,
    admission_control::AdmissionControl,
    error,
    token_source::{CredentialSource, TokenSource},
    options::GenesysOptions,
    region::Addresses,
    clock_skew::{self, ClockSkew},
    http_transport::{HttpResponse, HttpTimeouts, HttpTransport, ProxyUse},
};
use genfleet_audit::Audit;
use genfleet_job::{JobId, Kind, clock::SharedClock, metric, options::ConfigError};

/// The scopes each kind of job needs.
pub(crate) type Scopes = Vec<(Kind, &'static [&'static str])>;

/// Talks to Genesys Cloud. Clones share everything.
#[derive(Clone)]
pub struct GenesysClient {
    pub(super) shared: Arc<Shared>,
}

/// What all clones share.
pub(super) struct Shared {
    pub(super) addresses: Addresses,
    pub(super) transport: HttpTransport,
    pub(super) clock: SharedClock,
    pub(super) scopes: Scopes,
    pub(super) mint: TokenSource,
    admission: Mutex<AdmissionControl>,
    skew: Mutex<ClockSkew>,
    /// Requester waits for the budget waits in a line.
    pub(super) line: Turnstile<()>,
    /// Something ended: the first in the line looks again.
    pub(super) freed: Notify,
    changes: watch::Receiver<u64>,
    client_limit: u32,
    audit: OnceLock<Audit>,
    no_audit: Audit,
}

/// What a 403 does to one job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forbidden {
    /// It fails.
    Fails,
    /// It waits: permissions are missing for all jobs of its kind, and it is tried again then.
    Waits {
        /// Not before this.
        until: Timestamp,
    },
}

impl GenesysClient {
    /// A client for jobs of the kinds in `scopes`, with the credentials that the environment names. Sends nothing
    /// yet. Errors are of the configuration: no credentials, no usable address, no readable CA file.
    pub fn new(options: &GenesysOptions, scopes: Scopes, clock: SharedClock) -> Result<Self, ConfigError> {
        Self::with_credentials(options, scopes, clock, CredentialSource::Environment)
    }

    /// The same with credentials from elsewhere.
    pub fn with_credentials(
        options: &GenesysOptions,
        scopes: Scopes,
        clock: SharedClock,
        credentials: CredentialSource,
    ) -> Result<Self, ConfigError> {
        // Only the simulator in this process gives credentials of its own.
        let is_own = matches!(credentials, CredentialSource::Given(_));
        let way = if is_own { ProxyUse::None } else { ProxyUse::FromEnvironment };
        let transport = HttpTransport::http(options.ca_file().as_deref(), HttpTimeouts::default(), way)?;
        Self::over(transport, options, scopes, clock, credentials)
    }

    pub(super) fn over(
        transport: HttpTransport,
        options: &GenesysOptions,
        scopes: Scopes,
        clock: SharedClock,
        credentials: CredentialSource,
    ) -> Result<Self, ConfigError> {
        options.warnings().iter().for_each(|warning| warn!("{warning}"));
        let admission = AdmissionControl::new(options);
        let shared = Shared {
            addresses: options.addresses()?,
            transport,
            clock,
            mint: TokenSource::new(options.genesys_client_auth, credentials, &scopes)?,
            scopes,
            line: Turnstile::new(()),
            freed: Notify::new(),
            changes: admission.changes(),
            admission: Mutex::new(admission),
            skew: Mutex::default(),
            client_limit: options.client_requests_per_minute,
            audit: OnceLock::new(),
            no_audit: Audit::off(),
        };
        let client = Self { shared: Arc::new(shared) };
        gauge!(metric::CLOCK_OFFSET).set(f64::NAN);
        client.show_gauges(Instant::now(), &mut 0);
        Ok(client)
    }

    /// From now on every call that changes something is written down in `audit`. The first one stays.
    pub fn keep_audit(&self, audit: Audit) {
        let _ = self.shared.audit.set(audit);
    }

    /// Where calls that change something are written down: nowhere, unless [`keep_audit`](Self::keep_audit) said so.
    pub fn audit(&self) -> &Audit {
        self.shared.audit.get().unwrap_or(&self.shared.no_audit)
    }

    /// May workers of `kind` start jobs now? Looks only; a probe is taken by the request itself.
    pub fn admission(&self, kind: Kind) -> Admission {
        self.admission().admission(kind, Instant::now())
    }

    /// Bumped whenever an admission may have changed. Times that an [`Admission`] names pass without a bump.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.clone()
    }

    /// What the 403 that `job` got on `endpoint` does to it. To be asked once per job; [`send`](Self::send) asks for
    /// a request of exactly one job, so this is for the jobs of a shared request.
    pub fn judge_forbidden(&self, kind: Kind, endpoint: &'static str, job: &JobId) -> Forbidden {
        let judgement = self.admission().judge(kind, endpoint, job, Instant::now());
        match judgement {
            Judgement::Fails => Forbidden::Fails,
            Judgement::Waits(until) => Forbidden::Waits { until: self.at(until) },
        }
    }

    /// The region, or the API's host where the base URL is overridden.
    pub fn environment(&self) -> &str {
        &self.shared.addresses.environment
    }

    /// The brakes that are on, in sentences, for `/readyz`. A shut gate and an API that is away are none.
    pub fn problems(&self) -> Vec<String> {
        let admission = self.admission();
        let credentials = admission.bad_credentials().map(|why| format!("Genesys Cloud gives us no token: {why}"));
        let forbidden = admission.forbidden().map(|(kind, endpoint)| {
            format!("{kind} is forbidden on {endpoint}; it needs the scopes {}", self.scopes_of(kind))
        });
        let audit = admission.audit_trouble().map(str::to_owned);
        audit.into_iter().chain(credentials).chain(forbidden).collect()
    }

    /// What is wrong although the process takes jobs, or waits for what is no matter of its own: an API that is away, a clock
    /// that is off. In sentences, for `/readyz`.
    pub fn notes(&self) -> Vec<String> {
        self.failing().into_iter().chain(self.clock_told()).collect()
    }

    /// What requests come to, where they fail.
    pub fn failing(&self) -> Option<String> {
        self.admission().failing(Instant::now())
    }

    /// By how many seconds this machine's clock is ahead of the API's, where the API answered.
    pub fn clock_ahead(&self) -> Option<i64> {
        self.skew().ahead()
    }

    /// How far this machine's clock is off, where it is.
    pub fn clock_told(&self) -> Option<String> {
        self.skew().told()
    }

    /// Looks at what an answer of the API says of the time; one of somebody in between says nothing.
    pub(super) fn compare_clocks(&self, received: &HttpResponse, took: Duration) {
        let is_own = ClockSkew::is_fresh(&received.headers) && error::author(&received.body) != AnswerAuthor::Intermediary;
        let Some(clocks) = self.clocks(&received.headers, took).filter(|_| is_own) else { return };
        let mut skew = self.skew();
        let news = skew.note(clocks);
        #[expect(clippy::cast_precision_loss, reason = "seconds between two clocks")]
        let ahead = skew.ahead().unwrap_or_default() as f64;
        gauge!(metric::CLOCK_OFFSET).set(ahead);
        match news {
            clock_skew::SkewChange::None => {}
            clock_skew::SkewChange::Apart => warn!(ahead, "{}", skew.told().unwrap_or_default()),
            clock_skew::SkewChange::Agree => info!(ahead, "this machine's clock agrees with the API's again"),
        }
    }

    fn skew(&self) -> MutexGuard<'_, ClockSkew> {
        self.shared.skew.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long the client's limit is closed still, as the API told this process.
    pub fn client_shut(&self) -> Option<Duration> {
        self.admission().client_shut(Instant::now())
    }

    /// Another process of the client was told by the API that the client's limit is closed, for so long from now on:
    /// nothing is sent until then.
    pub fn told_client_shut(&self, wait: Duration) {
        self.admission().told_client_shut(Instant::now(), wait);
    }

    /// What is this process's of the client's limit from now on.
    pub fn allot(&self, part: LimitShare) {
        self.admission().allot(part, Instant::now());
        // It may be more than before.
        self.shared.freed.notify_one();
    }

    /// What was spent, and what may be.
    pub fn spending(&self) -> BudgetUsage {
        self.admission().spending(Instant::now())
    }

    /// All that is shut, and why.
    pub fn shut(&self) -> Vec<ActiveHold> {
        self.admission().shut(Instant::now())
    }

    /// Requests a minute that all processes of the client share.
    pub fn client_limit(&self) -> u32 {
        self.shared.client_limit
    }

    /// The background work: tries bad credentials again, notices what time changed and how the audit is, shows the
    /// gauges. Never ends.
    pub async fn run(self) {
        let (mut changes, mut seconds_shown) = (self.changes(), 0);
        let mut audit = self.audit().conditions();
        loop {
            let now = Instant::now();
            changes.mark_unchanged();
            let trouble = audit.borrow_and_update().trouble();
            let (next, tries) = {
                let mut admission = self.admission();
                admission.audit_is(trouble);
                (admission.tick(now), admission.tries_credentials(now))
            };
            if tries {
                self.try_credentials();
            }
            self.show_gauges(now, &mut seconds_shown);
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                // The senders live in `self`.
                _ = changes.changed() => {}
                _ = audit.changed() => {}
            }
        }
    }

    fn show_gauges(&self, now: Instant, seconds_shown: &mut u64) {
        let gauges = self.admission().gauges(now);
        for (reason, shut) in gauges.shut {
            gauge!(metric::GATE_STATE, "reason" => reason.as_str()).set(f64::from(u8::from(shut)));
        }
        gauge!(metric::API_BUDGET_REMAINING).set(f64::from(gauges.budget_left));
        let seconds = gauges.time_shut.as_secs();
        counter!(metric::API_THROTTLED).increment(seconds.saturating_sub(*seconds_shown));
        *seconds_shown = seconds;
    }

    pub(super) fn admission(&self) -> MutexGuard<'_, AdmissionControl> {
        self.shared.admission.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An instant as a time of day.
    pub(super) fn at(&self, instant: Instant) -> Timestamp {
        let ahead = instant.saturating_duration_since(Instant::now());
        let ahead = SignedDuration::try_from(ahead).unwrap_or(SignedDuration::MAX);
        self.shared.clock.now().checked_add(ahead).unwrap_or(Timestamp::MAX)
    }

    /// When an API that answers nobody is asked again.
    pub(super) fn next_probe(&self) -> Option<Timestamp> {
        let next = self.admission().next_probe();
        next.map(|next| self.at(next))
    }

    pub(super) fn scopes_of(&self, kind: Kind) -> String {
        let found = self.shared.scopes.iter().find(|(each, _)| *each == kind);
        found.map(|(_, scopes)| scopes.join(" ")).unwrap_or_default()
    }
}

impl fmt::Debug for GenesysClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GenesysClient").field("api", &self.shared.addresses.api.as_str()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
