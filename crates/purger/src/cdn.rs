//! The remote call of this worker, and the meaning of its answers: a [`Cdn`] for each provider (SPEC 3.1).

use std::sync::Arc;

use genfleet_core::{
    clock::{SharedClock, SystemClock},
    handler::{ServiceCheck, Services},
    job::Kind,
    options::ConfigError,
};

use self::{
    cloudfront::{CloudFront, credentials::CredentialChain},
    gate::{Gate, ProbeIntervals},
    genesys::GenesysCdn,
    hosted::HostedCdn,
    http::CdnHttp,
    options::{CdnOptions, ChosenCdn},
    provider::{Hold, Provider, THROTTLED, Verdict},
};
use crate::{Purger, PurgerOptions};

mod cloudflare;
mod cloudfront;
mod fastly;
mod gate;
pub(crate) mod genesys;
mod hosted;
mod http;
pub(crate) mod options;
mod provider;
mod purge;
mod shared_gate;
mod token;
mod varnish;

pub(crate) use self::purge::{Capacity, Cdn, PurgeAccepted, PurgeRefusal, RefusalCause, RequestContext};

/// The name of the doctor's check.
const CHECK: &str = "cdn";

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
            Err(why) => Err((why, provider.remedy(Hold::Credentials))),
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
        Verdict::Purged { .. } => Ok("it accepts the credentials; nothing was purged".to_owned()),
        Verdict::Held { hold, why, .. } => Err((why, provider.remedy(hold))),
        Verdict::Throttled { why, .. } => Err((why, "try again later".to_owned())),
        Verdict::Refused { why, .. } | Verdict::Failing { why, .. } => {
            Err((why, "see what it says, and whether a proxy answers in its place".to_owned()))
        }
    }
}

fn start_hosted<P: Provider>(provider: P, http: CdnHttp, options: &PurgerOptions, services: &Services) -> Purger {
    let Services { genesys, supervisor, clock } = services;
    genesys.declare_holds(&Hold::ALL.map(Hold::name));
    genesys.declare_holds(&[THROTTLED]);
    genesys.exempt_from_api_holds(Kind::CdnPurge);
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
