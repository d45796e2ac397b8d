//! The vni-provisioner: works `vni.provision` jobs, which create a virtual network interface and synchronise its
//! routing table (SPEC 3.4).
//!
//! [`VniProvisioner`] is the handler. What upstream sends is in [`payload`], what is there already in [`inventory`],
//! the way from one to the other in [`creation`] with its [`gateway`] probe, what comes after in [`routing`] and
//! [`rollback`]; [`busy`] lets one job of an organisation work at a time, [`progress`] is what travels with a job, and
//! the remote calls are in [`api`].

use std::time::Duration;

use genfleet_core::{
    error::JobError,
    handler::{Defaults, JobContext, JobHandler, Progress as Step, Services},
    job::{Kind, Violation},
    options::{self, ConfigError},
};
use ipnet::IpNet;

use crate::{
    busy::{Organisations, busy},
    creation::{Interface, Rules},
    gateway::Gateways,
    payload::{Payload, Plan},
    progress::{Report, State},
    rollback::Verdict,
};

pub mod api;
pub mod busy;
pub mod creation;
pub mod gateway;
pub mod inventory;
pub mod payload;
pub mod progress;
pub mod rollback;
pub mod routing;

/// The vni-provisioner's own settings.
#[derive(Clone, Debug, clap::Args)]
pub struct VniOptions {
    /// Virtual network interfaces an organisation may have
    #[arg(long, env = "GENFLEET_MAX_INTERFACES", value_name = "N", default_value_t = 50)]
    pub max_interfaces: u64,

    /// Gateways that are connected to although they are loopback, link-local, multicast, unspecified or metadata
    /// addresses
    #[arg(long, env = "GENFLEET_GATEWAY_ALLOW", value_name = "CIDR,…", value_delimiter = ',', value_parser = gateway::network)]
    pub gateway_allow: Vec<IpNet>,

    /// How long a gateway may take to accept a connection
    #[arg(long, env = "GENFLEET_GATEWAY_TIMEOUT", value_name = "DURATION", default_value = "5s", value_parser = options::duration)]
    pub gateway_timeout: Duration,

    /// How long after one look at a routing table the next one follows, of ten
    #[arg(long, env = "GENFLEET_ROUTING_POLL_INTERVAL", value_name = "DURATION", default_value = "1s", value_parser = options::duration)]
    pub routing_poll_interval: Duration,
}

/// Creates virtual network interfaces.
#[derive(Debug)]
pub struct VniProvisioner {
    organisations: Organisations,
    rules: Rules,
    routing_poll_interval: Duration,
}

impl JobHandler for VniProvisioner {
    const KIND: Kind = Kind::VniProvision;
    const ACTION: &'static str = "vni_provisioned";
    const SCOPES: &'static [&'static str] = api::SCOPES;
    const DEFAULTS: Defaults = Defaults { concurrency: 8 };
    const CODES: &'static [&'static str] = &["ip_conflict", "interface_limit_reached", "gateway_refused"];

    type Options = VniOptions;
    type Payload = Payload;
    type State = State;
    type Report = Report;

    fn new(options: VniOptions, _: &Services) -> Result<Self, ConfigError> {
        let gateways = Gateways { allowed: options.gateway_allow, timeout: options.gateway_timeout };
        Ok(Self {
            organisations: Organisations::default(),
            rules: Rules { max_interfaces: options.max_interfaces, gateways },
            routing_poll_interval: options.routing_poll_interval,
        })
    }

    fn validate(payload: &Payload) -> Vec<Violation> {
        payload.violations()
    }

    async fn handle(&self, job: &JobContext, payload: Payload, state: State) -> Result<Step<Self>, JobError> {
        let plan = payload.plan().map_err(JobError::invalid)?;
        let Some(turn) = self.organisations.enter(plan.organization_id, &job.id) else {
            return Err(busy(job, plan.organization_id));
        };
        let step = self.step(job, &plan, state).await?;
        if matches!(step, Step::Begun { .. }) {
            turn.keep();
        }
        Ok(step)
    }
}

impl VniProvisioner {
    /// An interface first, durably where this job creates it; then its routing; else its end.
    async fn step(&self, job: &JobContext, plan: &Plan, state: State) -> Result<Step<Self>, JobError> {
        if let Some(failure) = state.undoing.clone() {
            return Err(state.kept_in(rollback::remove(job, &state, failure).await));
        }
        if state.interface_id.is_some() {
            return self.route(job, plan, state).await;
        }
        let interface = creation::provide(job, plan, &self.rules).await?;
        let is_new = matches!(interface, Interface::Created(_));
        let state = State::of(job, interface);
        if is_new { Ok(at_once(state)) } else { self.route(job, plan, state).await }
    }

    async fn route(&self, job: &JobContext, plan: &Plan, mut state: State) -> Result<Step<Self>, JobError> {
        let table = &plan.routing_table_id;
        let routed = routing::converge(job, table, self.routing_poll_interval, &mut state.routing_polls).await;
        let Err(error) = routed else { return Ok(Step::Done(state.report(job))) };
        match rollback::judge(job, plan, &state, error) {
            Verdict::GoesOn(error) => Err(state.kept_in(error)),
            Verdict::Stays(error) => Err(error),
            Verdict::Goes(failure) => Ok(at_once(State { undoing: Some(failure), ..state })),
        }
    }
}

/// A step that a killed process does not undo.
fn at_once(state: State) -> Step<VniProvisioner> {
    Step::Begun { state, again_in: Duration::ZERO }
}
