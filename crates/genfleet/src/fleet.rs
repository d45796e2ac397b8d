//! The workers of this build. A new one is added here: its options, its kind, its scopes, its line in `work`, in
//! `check` and in `contracts`.

use std::sync::Arc;

use clap::Args;
use genfleet_channel_provisioner::ChannelProvisioner;
use genfleet_core::{
    contract::KindContract,
    handler::JobHandler,
    job::{Job, Kind, Rejection, schema::JobSchema},
    options::ConfigError,
    webhook::{
        address_guard::{AllowList, Allowed},
        rules::{Rules, Signing},
    },
    worker::{runtime::Runtime, validate},
};
use genfleet_purger::Purger;
use genfleet_scan_monitor::ScanMonitor;
use genfleet_stream_configurator::StreamConfigurator;
use genfleet_vni_provisioner::VniProvisioner;

/// The kinds that this build works.
pub const KINDS: [Kind; 5] =
    [Purger::KIND, StreamConfigurator::KIND, ChannelProvisioner::KIND, VniProvisioner::KIND, ScanMonitor::KIND];

/// The workers' own settings.
#[derive(Clone, Debug, Args)]
pub struct HandlerOptions {
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
pub fn chosen(named: &[Kind]) -> Result<Vec<Kind>, ConfigError> {
    if let Some(other) = named.iter().find(|kind| !KINDS.contains(kind)) {
        let known = KINDS.map(Kind::as_str).join(", ");
        return Err(ConfigError::new(format!("this build has no worker for {other}; it works {known}")));
    }
    Ok(if named.is_empty() { KINDS.to_vec() } else { named.to_vec() })
}

/// Jobs in flight of a kind, where nobody sets anything.
pub fn default_concurrency(kind: Kind) -> usize {
    let defaults = [
        (Purger::KIND, Purger::DEFAULTS),
        (StreamConfigurator::KIND, StreamConfigurator::DEFAULTS),
        (ChannelProvisioner::KIND, ChannelProvisioner::DEFAULTS),
        (VniProvisioner::KIND, VniProvisioner::DEFAULTS),
        (ScanMonitor::KIND, ScanMonitor::DEFAULTS),
    ];
    defaults.into_iter().find(|(each, _)| *each == kind).map_or(0, |(_, defaults)| defaults.concurrency)
}

/// The OAuth scopes that `kinds` need.
pub fn scopes(kinds: &[Kind]) -> Vec<(Kind, &'static [&'static str])> {
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
pub fn work(runtime: &Runtime, options: HandlerOptions, kinds: &[Kind]) -> Result<(), ConfigError> {
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
pub struct Checker {
    schemas: Arc<[JobSchema]>,
}

impl Checker {
    /// Compiles the schemas. `allowed` is what the workers' `--webhook-allow` says.
    pub fn new(allowed: &[Allowed]) -> Self {
        let webhooks = &Rules::new(Signing::Elsewhere, AllowList::new(allowed));
        Self {
            schemas: Arc::new([
                schema::<Purger>(webhooks),
                schema::<StreamConfigurator>(webhooks),
                schema::<ChannelProvisioner>(webhooks),
                schema::<VniProvisioner>(webhooks),
                schema::<ScanMonitor>(webhooks),
            ]),
        }
    }

    /// The job in `body`; `None` where this build has no worker for `kind`.
    pub fn check(&self, kind: Kind, body: &[u8], message_id: Option<&str>) -> Option<Result<Job, Box<Rejection>>> {
        let schema = self.schemas.iter().find(|schema| schema.kind() == kind)?;
        Some(match kind {
            Kind::CdnPurge => checked::<Purger>(schema, body, message_id),
            Kind::StreamConfigure => checked::<StreamConfigurator>(schema, body, message_id),
            Kind::ChannelProvision => checked::<ChannelProvisioner>(schema, body, message_id),
            Kind::VniProvision => checked::<VniProvisioner>(schema, body, message_id),
            Kind::FileScan => checked::<ScanMonitor>(schema, body, message_id),
            Kind::WebhookDeliver => return None,
        })
    }
}

/// What upstream systems can rely on, kind by kind.
pub fn contracts() -> [KindContract; 5] {
    [
        KindContract::of::<Purger>(),
        KindContract::of::<StreamConfigurator>(),
        KindContract::of::<ChannelProvisioner>(),
        KindContract::of::<VniProvisioner>(),
        KindContract::of::<ScanMonitor>(),
    ]
}

fn schema<H: JobHandler>(webhooks: &Rules) -> JobSchema {
    JobSchema::new::<H::Payload>(H::KIND).with_webhooks(webhooks.clone())
}

fn checked<H: JobHandler>(schema: &JobSchema, body: &[u8], message_id: Option<&str>) -> Result<Job, Box<Rejection>> {
    validate::job::<H>(schema, body, message_id, None).map(|(job, _)| job)
}
