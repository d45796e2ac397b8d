//! The workers of this build. A new one is added here: its options, its kind, its scopes, its line in `work`, in
//! `check` and in `contracts`.

use std::sync::Arc;

use clap::{ArgMatches, Args, Command, FromArgMatches, builder::Resettable};
use genfleet_channel_provisioner::ChannelProvisioner;
use genfleet_core::{
    contract::KindContract,
    handler::JobHandler,
    job::{Job, Kind, Rejection},
    options::ConfigError,
    webhook::{AddressEntry, JobWebhooks, WebhookRules},
    worker::{
        runtime::Runtime,
        validate::{self, JobRules},
    },
};
use genfleet_purger::Purger;
use genfleet_scan_monitor::ScanMonitor;
use genfleet_stream_configurator::StreamConfigurator;
use genfleet_vni_provisioner::VniProvisioner;

/// The kinds that this build works.
pub(crate) const KINDS: [Kind; 5] =
    [Purger::KIND, StreamConfigurator::KIND, ChannelProvisioner::KIND, VniProvisioner::KIND, ScanMonitor::KIND];

/// The workers' own settings.
#[derive(Clone, Debug, Args)]
pub(crate) struct HandlerOptions {
    #[command(flatten)]
    purger: <Purger as JobHandler>::Options,
    #[command(flatten)]
    stream_configurator: <StreamConfigurator as JobHandler>::Options,
    #[command(flatten)]
    channel_provisioner: <ChannelProvisioner as JobHandler>::Options,
    #[command(flatten)]
    vni_provisioner: <VniProvisioner as JobHandler>::Options,
    #[command(flatten)]
    scan_monitor: <ScanMonitor as JobHandler>::Options,
}

/// The kinds named, or all; an error where this build has no worker for one.
pub(crate) fn chosen(named: &[Kind]) -> Result<Vec<Kind>, ConfigError> {
    if let Some(other) = named.iter().find(|kind| !KINDS.contains(kind)) {
        let known = KINDS.map(Kind::as_str).join(", ");
        return Err(ConfigError::new(format!("this build has no worker for {other}; it works {known}")));
    }
    Ok(if named.is_empty() { KINDS.to_vec() } else { named.to_vec() })
}

/// Jobs in flight of a kind, where nobody sets anything.
pub(crate) fn default_concurrency(kind: Kind) -> usize {
    let defaults = [
        (Purger::KIND, Purger::DEFAULTS),
        (StreamConfigurator::KIND, StreamConfigurator::DEFAULTS),
        (ChannelProvisioner::KIND, ChannelProvisioner::DEFAULTS),
        (VniProvisioner::KIND, VniProvisioner::DEFAULTS),
        (ScanMonitor::KIND, ScanMonitor::DEFAULTS),
    ];
    defaults.into_iter().find(|(each, _)| *each == kind).map_or(0, |(_, defaults)| defaults.concurrency)
}

impl HandlerOptions {
    /// As they are where nobody sets anything, nor does the environment.
    fn unset() -> Result<Self, clap::Error> {
        let command = Self::augment_args(Command::new("unset").no_binary_name(true));
        let command = command.mut_args(|argument| argument.env(Resettable::Reset));
        let matches: ArgMatches = command.try_get_matches_from([""; 0])?;
        Self::from_arg_matches(&matches)
    }
}

/// What the workers are told that a check of their jobs has to know.
#[derive(Clone, Debug, Args)]
pub(crate) struct CheckOptions {
    /// What the workers' --webhook-allow says: only those may be named with http
    #[arg(long, env = "GENFLEET_WEBHOOK_ALLOW", value_name = "HOST[:PORT]|CIDR,…", value_delimiter = ',')]
    pub webhook_allow: Vec<AddressEntry>,

    /// What the workers' --webhook-deny says: those may not be named
    #[arg(long, env = "GENFLEET_WEBHOOK_DENY", value_name = "HOST[:PORT]|CIDR,…", value_delimiter = ',')]
    pub webhook_deny: Vec<AddressEntry>,

    /// What the workers' --job-webhooks says: off, and no job may name any
    #[arg(long, env = "GENFLEET_JOB_WEBHOOKS", value_name = "on|off", default_value = "on")]
    pub job_webhooks: JobWebhooks,

    /// What the workers' --max-concurrent-sessions says: a channel may ask for no more
    #[arg(long, env = "GENFLEET_MAX_CONCURRENT_SESSIONS", value_name = "N", default_value_t = 500)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub max_concurrent_sessions: u32,
}

/// As workers are that are told nothing.
impl Default for CheckOptions {
    fn default() -> Self {
        Self {
            webhook_allow: Vec::new(),
            webhook_deny: Vec::new(),
            job_webhooks: JobWebhooks::On,
            max_concurrent_sessions: 500,
        }
    }
}

/// The OAuth scopes that `kinds` need.
pub(crate) fn scopes(kinds: &[Kind]) -> Vec<(Kind, &'static [&'static str])> {
    let all: [(Kind, &'static [&'static str]); 5] = [
        (Purger::KIND, Purger::SCOPES),
        (StreamConfigurator::KIND, StreamConfigurator::SCOPES),
        (ChannelProvisioner::KIND, ChannelProvisioner::SCOPES),
        (VniProvisioner::KIND, VniProvisioner::SCOPES),
        (ScanMonitor::KIND, ScanMonitor::SCOPES),
    ];
    all.into_iter().filter(|(kind, _)| kinds.contains(kind)).collect()
}

/// Works jobs of `kinds` in this process.
pub(crate) fn work(runtime: &Runtime, options: HandlerOptions, kinds: &[Kind]) -> Result<(), ConfigError> {
    work_one::<Purger>(runtime, options.purger, kinds)?;
    work_one::<StreamConfigurator>(runtime, options.stream_configurator, kinds)?;
    work_one::<ChannelProvisioner>(runtime, options.channel_provisioner, kinds)?;
    work_one::<VniProvisioner>(runtime, options.vni_provisioner, kinds)?;
    work_one::<ScanMonitor>(runtime, options.scan_monitor, kinds)
}

fn work_one<H: JobHandler>(runtime: &Runtime, options: H::Options, kinds: &[Kind]) -> Result<(), ConfigError> {
    if kinds.contains(&H::KIND) { runtime.work::<H>(options) } else { Ok(()) }
}

/// Checks jobs as their workers would. Whether those can sign a job's own webhook is not known here, so that is not
/// checked.
#[derive(Debug, Clone)]
pub(crate) struct Checker {
    rules: Arc<[JobRules]>,
    options: HandlerOptions,
}

impl Checker {
    /// Compiles the schemas, for workers of which `told` is so and all else as by default.
    pub(crate) fn new(told: &CheckOptions) -> anyhow::Result<Self> {
        let webhooks = &WebhookRules::of_workers(&told.webhook_allow, &told.webhook_deny, told.job_webhooks);
        let mut options = HandlerOptions::unset()?;
        options.channel_provisioner.max_concurrent_sessions = told.max_concurrent_sessions;
        Ok(Self {
            options,
            rules: Arc::new([
                rules::<Purger>(webhooks),
                rules::<StreamConfigurator>(webhooks),
                rules::<ChannelProvisioner>(webhooks),
                rules::<VniProvisioner>(webhooks),
                rules::<ScanMonitor>(webhooks),
            ]),
        })
    }

    /// The job in `body`; `None` where this build has no worker for `kind`.
    pub(crate) fn check(
        &self,
        kind: Kind,
        body: &[u8],
        message_id: Option<&str>,
    ) -> Option<Result<Job, Box<Rejection>>> {
        let options = &self.options;
        let rules = self.rules.iter().find(|rules| rules.kind() == kind)?;
        Some(match kind {
            Kind::CdnPurge => checked::<Purger>(rules, &options.purger, body, message_id),
            Kind::StreamConfigure => {
                checked::<StreamConfigurator>(rules, &options.stream_configurator, body, message_id)
            }
            Kind::ChannelProvision => {
                checked::<ChannelProvisioner>(rules, &options.channel_provisioner, body, message_id)
            }
            Kind::VniProvision => checked::<VniProvisioner>(rules, &options.vni_provisioner, body, message_id),
            Kind::FileScan => checked::<ScanMonitor>(rules, &options.scan_monitor, body, message_id),
            Kind::WebhookDeliver => return None,
        })
    }
}

/// What upstream systems can rely on, kind by kind.
pub(crate) fn contracts() -> [KindContract; 5] {
    [
        KindContract::of::<Purger>(),
        KindContract::of::<StreamConfigurator>(),
        KindContract::of::<ChannelProvisioner>(),
        KindContract::of::<VniProvisioner>(),
        KindContract::of::<ScanMonitor>(),
    ]
}

fn rules<H: JobHandler>(webhooks: &WebhookRules) -> JobRules {
    let webhooks = webhooks.clone();
    JobRules::new::<H::Payload>(H::KIND, move |url| webhooks.violations(url))
}

fn checked<H: JobHandler>(
    rules: &JobRules,
    options: &H::Options,
    body: &[u8],
    message_id: Option<&str>,
) -> Result<Job, Box<Rejection>> {
    validate::job::<H>(rules, options, body, message_id, None).map(|(job, _)| job)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointers(max_concurrent_sessions: u32) -> Vec<String> {
        let checker = Checker::new(&CheckOptions { max_concurrent_sessions, ..CheckOptions::default() }).unwrap();
        let job = br#"{"id": "c", "payload": {"queueId": "sales", "routingEmail": "a@b.example",
            "maxConcurrentSessions": 501, "security": {"allowedDomains": ["b.example"]}}}"#;
        let rejection = checker.check(Kind::ChannelProvision, job, None).unwrap().unwrap_err();
        rejection.violations.into_iter().map(|one| one.pointer).collect()
    }

    #[test]
    fn what_a_setting_of_the_worker_forbids_is_told_with_all_else() {
        assert_eq!(pointers(500), ["/payload/queueId", "/payload/maxConcurrentSessions"]);
        assert_eq!(pointers(501), ["/payload/queueId"]);
    }
}
