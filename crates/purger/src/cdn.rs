//! The remote call of this worker, and the meaning of its answers: a [`Cdn`] for each provider (SPEC 3.1).

use std::{future::Future, sync::Arc};

use genfleet_core::{
    clock::{SharedClock, SystemClock},
    error::JobError,
    genesys::Caller,
    handler::{ServiceCheck, Services},
    job::{JobId, Kind},
    options::ConfigError,
    trace_context::TraceContext,
};
use tokio_util::sync::CancellationToken;

use self::{
    cloudfront::{CloudFront, credentials::CredentialChain},
    gate::{Gate, ProbeIntervals},
    genesys::GenesysCdn,
    hosted::HostedCdn,
    http::CdnHttp,
    options::{CdnOptions, ChosenCdn},
    provider::{Brake, Provider, THROTTLED, Verdict},
};
use crate::{Purger, PurgerOptions, progress::PurgeStatus};

mod cloudflare;
mod cloudfront;
mod fastly;
mod gate;
pub(crate) mod genesys;
mod hosted;
mod http;
pub(crate) mod options;
mod provider;
mod shared_gate;
mod token;
mod varnish;

/// The name of the doctor's check.
const CHECK: &str = "cdn";

/// What one request of a provider takes, at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Capacity {
    /// Paths, wildcards among them. Never 0.
    pub(crate) paths: usize,
    /// Paths that end in `*`. Never 0.
    pub(crate) wildcards: usize,
}

impl Capacity {
    pub(crate) const fn of(paths: usize) -> Self {
        Self { paths, wildcards: paths }
    }
}

/// The jobs that a request is sent for.
#[derive(Clone, Debug, Default)]
pub(crate) struct RequestContext {
    pub(crate) jobs: Vec<JobId>,
    pub(crate) traces: Vec<TraceContext>,
    /// Cancelled when it is not wanted any more: no further HTTP request is begun; one in flight is finished.
    pub(crate) stop: CancellationToken,
}

/// The paths are being purged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PurgeAccepted {
    pub(crate) status: PurgeStatus,
    /// The provider's ids.
    pub(crate) request_ids: Vec<String>,
    pub(crate) requests: u32,
    /// The trace context of the accepted one, where traces are exported.
    pub(crate) trace: Option<TraceContext>,
}

/// The reason why they are not.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PurgeRefusal {
    pub(crate) cause: RefusalCause,
    /// The error of a job that it concerns.
    pub(crate) error: JobError,
    pub(crate) requests: u32,
}

/// The cause of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefusalCause {
    /// The content of the body: 400, 413 or 422.
    Content,
    /// A permission: 403.
    Permission,
    /// None: it was stopped between two HTTP requests.
    Stopped,
    /// Something else, or no refusal of the API's.
    Other,
}

/// A CDN that purges paths.
pub(crate) trait Cdn: Clone + Send + Sync + 'static {
    /// The right to send one request now. Dropped, it goes back.
    type Permit: Send + 'static;

    /// Returns what one request takes.
    fn capacity(&self) -> Capacity;

    /// Returns the right to send one request where nothing has to be waited for.
    fn permit_now(&self, _: &RequestContext) -> Option<Self::Permit> {
        None
    }

    /// Waits until one request may go, or it is stopped.
    fn permit(&self, context: &RequestContext) -> impl Future<Output = Result<Self::Permit, JobError>> + Send;

    /// Purges as many paths as [`capacity`](Self::capacity) says, at most. Safe to repeat. Where it is stopped, it ends with what the request in flight came
    /// to, or is refused for [`RefusalCause::Stopped`].
    fn purge(
        &self,
        permit: Self::Permit,
        paths: &[Arc<str>],
        context: &RequestContext,
    ) -> impl Future<Output = Result<PurgeAccepted, PurgeRefusal>> + Send;

    /// Turns a missing permission into the error of `job`.
    fn forbidden(&self, error: &JobError, job: &JobId) -> JobError;
}

/// Starts the purger of a CDN.
pub(crate) fn start(cdn: ChosenCdn, options: &PurgerOptions, services: &Services) -> Result<Purger, ConfigError> {
    let http = CdnHttp::new(services.clock.clone(), cdn.urls())?;
    Ok(match cdn {
        ChosenCdn::Genesys => {
            Purger::of(GenesysCdn::new(services.genesys.clone()), |_| None, options.batch_linger, services)
        }
        ChosenCdn::CloudFront { base, distribution } => {
            let clock = services.clock.clone();
            let credentials = match options.cdn.stand_in {
                Some(_) => CredentialChain::simulated(http.clone(), clock.clone()),
                None => CredentialChain::new(clock.clone())?,
            };
            start_hosted(CloudFront { base, distribution, credentials, clock }, http, options, services)
        }
        ChosenCdn::Cloudflare(cloudflare) => start_hosted(cloudflare, http, options, services),
        ChosenCdn::Varnish(varnish) => start_hosted(varnish, http, options, services),
        ChosenCdn::Fastly(fastly) => start_hosted(fastly, http, options, services),
    })
}

/// Looks whether the CDN that the settings name would take purges. Purges nothing.
pub(crate) async fn examine(options: &CdnOptions) -> Vec<ServiceCheck> {
    let clock: SharedClock = Arc::new(SystemClock);
    let chosen = options.check().and_then(|()| {
        let chosen = options.choose()?;
        let http = CdnHttp::new(clock.clone(), chosen.urls())?;
        Ok((chosen, http))
    });
    let (chosen, http) = match chosen {
        Ok(chosen) => chosen,
        Err(error) => return vec![wrong_settings(&error)],
    };
    match chosen {
        ChosenCdn::Genesys => Vec::new(),
        ChosenCdn::CloudFront { base, distribution } => match CredentialChain::new(clock.clone()) {
            Ok(credentials) => try_out(CloudFront { base, distribution, credentials, clock }, &http).await,
            Err(error) => vec![wrong_settings(&error)],
        },
        ChosenCdn::Cloudflare(cloudflare) => try_out(cloudflare, &http).await,
        ChosenCdn::Varnish(varnish) => try_out(varnish, &http).await,
        ChosenCdn::Fastly(fastly) => try_out(fastly, &http).await,
    }
}

fn wrong_settings(error: &ConfigError) -> ServiceCheck {
    let found = Err((error.to_string(), "correct the setting it names".to_owned()));
    ServiceCheck { check: CHECK, looked_at: "the CDN's settings".to_owned(), found }
}

async fn try_out<P: Provider>(provider: P, http: &CdnHttp) -> Vec<ServiceCheck> {
    let mut found = Vec::new();
    for request in provider.trials() {
        let looked_at = format!("{} at {}", P::NAME, request.url.origin().ascii_serialization());
        let found_there = match provider.authorise(request).await {
            Err(why) => Err((why, provider.remedy(Brake::Credentials))),
            Ok(request) => match http.exchange(request).await {
                Err(failure) => Err((failure.why, "see whether it can be reached from here".to_owned())),
                Ok(answer) => judge(&provider, provider.judge_trial(&answer)),
            },
        };
        found.push(ServiceCheck { check: CHECK, looked_at, found: found_there });
    }
    found
}

fn judge<P: Provider>(provider: &P, verdict: Verdict) -> Result<String, (String, String)> {
    match verdict {
        Verdict::Purged { .. } => Ok("it knows us; nothing was purged".to_owned()),
        Verdict::Braked { brake, why, .. } => Err((why, provider.remedy(brake))),
        Verdict::Throttled { why, .. } => Err((why, "try again later".to_owned())),
        Verdict::Refused { why, .. } | Verdict::Failing { why, .. } => {
            Err((why, "see what it says, and whether a proxy answers in its place".to_owned()))
        }
    }
}

fn start_hosted<P: Provider>(provider: P, http: CdnHttp, options: &PurgerOptions, services: &Services) -> Purger {
    let Services { genesys, supervisor, clock } = services;
    genesys.declare_holds(&Brake::ALL.map(Brake::name));
    genesys.declare_holds(&[THROTTLED]);
    genesys.stand_alone(Kind::CdnPurge);
    let times = genesys.options();
    let intervals = ProbeIntervals {
        credentials: times.credentials_probe,
        forbidden: times.forbidden_probe,
        unavailable: times.breaker_probe,
    };
    let gate = Gate::new(options.cdn.per_minute(), intervals, times.breaker_window);
    let cdn = HostedCdn::new(provider, http, genesys.clone(), clock.clone(), gate);
    supervisor.spawn("CDN gate", cdn.clone().watch_gate());
    Purger::of(cdn, P::refuses, options.batch_linger, services)
}

impl RequestContext {
    fn caller(&self) -> Caller<'_> {
        Caller { kind: Kind::CdnPurge, jobs: &self.jobs, traces: &self.traces, stop: &self.stop, lease: None }
    }
}
