//! The workers of this build: one row for each. A new worker is added to `workers!`; a kind of the table in
//! `crates/job/src/kind.rs` that has no row does not compile.

use std::{
    net::Ipv4Addr,
    pin::Pin,
    sync::{Arc, LazyLock},
};

use clap::{Args, Command, builder::Resettable};
use genfleet_channel_provisioner::{ChannelProvisioner, WebDeploymentProvisioner};
use genfleet_core::{
    contract::KindContract,
    genesys::Rights,
    handler::{JobHandler, ServiceCheck},
    job::{Job, Kind, Rejection, Violation, decode},
    options::ConfigError,
    webhook::{AddressEntry, JobWebhooks, WebhookRules},
    worker::{ChosenKinds, HandlerRow, JobRules, Runtime, validate_job},
};
use genfleet_doctor::KindNeeds;
use genfleet_purger::Purger;
use genfleet_scan_monitor::{MediaScan, ScanMonitor};
use genfleet_stream_configurator::{EventbridgeConfigurator, StreamConfigurator};
use genfleet_vni_provisioner::VniProvisioner;
use serde_json::Value;

/// Validates a body, with the given message id, as the worker does.
type CheckJob = fn(&JobRules, &HandlerOptions, &[u8], Option<&str>) -> Result<Job, Box<Rejection>>;

/// Looks at the services that a kind needs.
type Examining = Pin<Box<dyn Future<Output = Vec<ServiceCheck>> + Send>>;

/// The data and functions of a worker that the tool uses.
struct Worker {
    row: HandlerRow<HandlerOptions>,
    concurrency: usize,
    contract: fn() -> KindContract,
    rules: fn(&WebhookRules) -> JobRules,
    check: CheckJob,
    examine: fn(&HandlerOptions) -> Examining,
}

macro_rules! workers {
    ($($options:ident: $Handler:ty),+ $(,)?) => {
        /// The kinds for which this program has workers.
        pub(crate) const KINDS: [Kind; [$(stringify!($options)),+].len()] = [$(<$Handler>::KIND),+];

        /// The settings of the workers.
        #[derive(Clone, Debug, Args)]
        pub(crate) struct HandlerOptions {
            $(#[command(flatten)]
            $options: <$Handler as JobHandler>::Options,)+
        }

        static WORKERS: LazyLock<[Worker; KINDS.len()]> = LazyLock::new(|| [$(Worker {
            row: HandlerRow::of::<$Handler>(|options| &options.$options),
            concurrency: <$Handler>::CONCURRENCY,
            contract: KindContract::of::<$Handler>,
            rules: |webhooks| {
                let webhooks = webhooks.clone();
                JobRules::new::<<$Handler as JobHandler>::Payload>(<$Handler>::KIND, move |url| webhooks.violations(url))
            },
            check: |rules, options, body, message_id| {
                validate_job::<$Handler>(rules, &options.$options, body, message_id, None).map(|(job, _)| job)
            },
            examine: |options| Box::pin(<$Handler>::examine(options.$options.clone())),
        }),+]);
    };
}

workers! {
    purger: Purger,
    stream_configurator: StreamConfigurator,
    channel_provisioner: ChannelProvisioner,
    vni_provisioner: VniProvisioner,
    scan_monitor: ScanMonitor,
    media_scan: MediaScan,
    web_deployment_provisioner: WebDeploymentProvisioner,
    eventbridge_configurator: EventbridgeConfigurator,
}

/// Fails the build if a kind for producers has no worker.
const _: () = {
    let mut index = 0;
    while index < Kind::ALL.len() {
        let mut is_worked = Kind::ALL[index].is_internal();
        let mut row = 0;
        while row < KINDS.len() {
            is_worked |= KINDS[row] as u8 == Kind::ALL[index] as u8;
            row += 1;
        }
        assert!(is_worked, "a kind has no worker: add it to `workers!` in crates/genfleet/src/registry.rs");
        index += 1;
    }
};

fn workers(kinds: &[Kind]) -> impl Iterator<Item = &'static Worker> {
    WORKERS.iter().filter(|worker| kinds.contains(&worker.row.kind))
}

/// The kinds that a process with these settings works: those that are named, or all; an error if one of them cannot be.
pub(crate) fn choose(named: &[Kind], options: &HandlerOptions) -> Result<ChosenKinds, ConfigError> {
    let reasons = WORKERS.iter().map(|Worker { row, .. }| (row.kind, (row.why_not_worked)(options)));
    ChosenKinds::new("genfleet", reasons, named)
}

/// Returns what `kinds` need.
pub(crate) fn needs(kinds: &[Kind], options: &HandlerOptions) -> Vec<KindNeeds> {
    let needs = |Worker { row, concurrency, .. }: &Worker| KindNeeds {
        kind: row.kind,
        rights: row.rights,
        concurrency: *concurrency,
        calls_genesys: (row.calls_genesys)(options),
    };
    workers(kinds).map(needs).collect()
}

/// The rights that the OAuth client needs for `kinds` with these settings, without those that do not call Genesys
/// Cloud.
pub(crate) fn rights(kinds: &[Kind], options: &HandlerOptions) -> Vec<(Kind, Rights)> {
    let calling = workers(kinds).filter(|worker| (worker.row.calls_genesys)(options));
    calling.map(|worker| (worker.row.kind, worker.row.rights)).collect()
}

/// The kinds that call Genesys Cloud with these settings.
pub(crate) fn calling(kinds: &[Kind], options: &HandlerOptions) -> Vec<Kind> {
    rights(kinds, options).into_iter().map(|(kind, _)| kind).collect()
}

/// The error for an internal kind. Every other kind has a worker in this program.
pub(crate) fn not_for_producers(kind: Kind) -> ConfigError {
    ConfigError::new(format!("{kind} is internal: only workers create such jobs, one for each event and receiver"))
}

/// Finds mistakes in the settings of `kinds`.
pub(crate) fn check(kinds: &[Kind], options: &HandlerOptions) -> Result<(), ConfigError> {
    workers(kinds).try_for_each(|worker| (worker.row.check)(options))
}

/// Looks at the services that `kinds` need besides Genesys Cloud.
pub(crate) async fn examine(kinds: &[Kind], options: &HandlerOptions) -> Vec<ServiceCheck> {
    let mut found = Vec::new();
    for worker in workers(kinds) {
        found.extend((worker.examine)(options).await);
    }
    found
}

/// Starts the workers of `kinds` in this process.
pub(crate) fn work(runtime: &Runtime, options: &HandlerOptions, kinds: &[Kind]) -> Result<(), ConfigError> {
    workers(kinds).try_for_each(|worker| (worker.row.work)(runtime, options))
}

/// Returns the contracts of all kinds.
pub(crate) fn contracts() -> Vec<KindContract> {
    WORKERS.iter().map(|worker| (worker.contract)()).collect()
}

/// Returns the default payload of `genfleet load` for a kind, with placeholders.
pub(crate) fn load_payload(kind: Kind) -> Value {
    workers(&[kind]).map(|worker| (worker.contract)().terms.load).next().unwrap_or_default()
}

impl HandlerOptions {
    /// Lets the simulator of this address stand in for the services that the workers call besides Genesys Cloud.
    pub(crate) fn stand_in(&mut self, address: &str) {
        self.purger.stand_in(address);
    }

    /// Returns true if the stand-in of the simulator scans files.
    pub(crate) fn uses_stand_in(&self) -> bool {
        self.media_scan.uses_stand_in()
    }

    /// Fits the settings to the simulator in this process, if it is used: files are fetched from it, and where no
    /// engine is set the stand-in scans them.
    pub(crate) fn for_simulator(mut self, is_simulated: bool) -> Self {
        if is_simulated {
            self.media_scan.simulate(Ipv4Addr::LOCALHOST);
        }
        self
    }
}

/// Returns the defaults of settings, without variables of the environment.
pub(crate) fn defaults<O: Args>() -> Result<O, clap::Error> {
    let command = O::augment_args(Command::new("defaults").no_binary_name(true));
    let command = command.mut_args(|argument| argument.env(Resettable::Reset));
    O::from_arg_matches(&command.try_get_matches_from([""; 0])?)
}

/// Settings of the workers on which a check of their jobs depends.
#[derive(Clone, Debug, Args)]
pub(crate) struct CheckOptions {
    /// The workers' --webhook-allow: only these hosts may be named with http
    #[arg(long, env = "GENFLEET_WEBHOOK_ALLOW", value_name = "HOST[:PORT]|CIDR,…", value_delimiter = ',')]
    pub webhook_allow: Vec<AddressEntry>,

    /// The workers' --webhook-deny: these hosts may not be named
    #[arg(long, env = "GENFLEET_WEBHOOK_DENY", value_name = "HOST[:PORT]|CIDR,…", value_delimiter = ',')]
    pub webhook_deny: Vec<AddressEntry>,

    /// The workers' --job-webhooks: with off, no job may name a webhook
    #[arg(long, env = "GENFLEET_JOB_WEBHOOKS", value_name = "on|off", default_value = "on")]
    pub job_webhooks: JobWebhooks,

    /// The workers' --max-concurrent-sessions: the maximum for a channel
    #[arg(long, env = "GENFLEET_MAX_CONCURRENT_SESSIONS", value_name = "N", default_value_t = 500)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub max_concurrent_sessions: u32,
}

/// Checks jobs as their workers would, except whether they can sign a job's webhook, because that is not known
/// here.
#[derive(Debug, Clone)]
pub(crate) struct Checker {
    rules: Arc<[JobRules]>,
    options: HandlerOptions,
}

impl Checker {
    /// Compiles the schemas, for workers with these settings and defaults for all others.
    pub(crate) fn new(settings: &CheckOptions) -> anyhow::Result<Self> {
        let webhooks =
            &WebhookRules::of_workers(&settings.webhook_allow, &settings.webhook_deny, settings.job_webhooks);
        let mut options: HandlerOptions = defaults()?;
        options.channel_provisioner.max_concurrent_sessions = settings.max_concurrent_sessions;
        Ok(Self { options, rules: WORKERS.iter().map(|worker| (worker.rules)(webhooks)).collect() })
    }

    /// Checks the job of `kind` in `body`.
    pub(crate) fn check(&self, kind: Kind, body: &[u8], message_id: Option<&str>) -> Result<Job, Box<Rejection>> {
        let mut known = self.rules.iter().zip(WORKERS.iter());
        let Some((rules, worker)) = known.find(|(_, worker)| worker.row.kind == kind) else {
            let wrong = Violation::new("/kind", not_for_producers(kind).to_string());
            let id = decode::extract_id(body, message_id, None);
            return Err(Box::new(Rejection::invalid(id, vec![wrong].into())));
        };
        (worker.check)(rules, &self.options, body, message_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointers(max_concurrent_sessions: u32) -> Vec<String> {
        let checker = Checker::new(&CheckOptions { max_concurrent_sessions, ..defaults().unwrap() }).unwrap();
        let job = br#"{"id": "c", "payload": {"queueId": "sales", "routingEmail": "a@b.example",
            "maxConcurrentSessions": 501, "security": {"allowedDomains": ["b.example"]}}}"#;
        let rejection = checker.check(Kind::ChannelProvision, job, None).unwrap_err();
        rejection.violations.into_iter().map(|one| one.pointer).collect()
    }

    #[test]
    fn what_a_setting_of_the_worker_forbids_is_told_with_all_else() {
        assert_eq!(pointers(500), ["/payload/queueId", "/payload/maxConcurrentSessions"]);
        assert_eq!(pointers(501), ["/payload/queueId"]);
    }
}
