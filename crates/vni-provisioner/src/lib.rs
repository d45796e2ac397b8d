//! The vni-provisioner works `vni.provision` jobs, which create a virtual network interface and synchronise its routing
//! table (SPEC 3.4).
//!
//! [`VniProvisioner`] is the handler. The job's payload is in [`payload`], existing connections in [`inventory`], and
//! creating an interface in [`creation`], with the [`gateway`] probe and [`recent`] interfaces. [`routing`] and
//! [`rollback`] follow. Only one job of an organisation is worked at a time. The job's state is in [`progress`], and
//! the API calls are in [`api`].

use std::time::Duration;

use genfleet_core::{
    audit::Detail,
    contract::ContractTerms,
    error::JobError,
    failure::Failure,
    handler::{JobContext, JobHandler, Progress, Services},
    job::{Kind, Violation},
    options::{self, ConfigError},
    turns::Turns,
};
use ipnet::IpNet;
use serde_json::Map;
use uuid::Uuid;

use crate::{
    creation::{Ordered, Rules, Unordered},
    gateway::Gateways,
    payload::InterfacePlan,
    progress::Order,
    recent::Recent,
    rollback::RollbackDecision,
};

mod api;
mod contract;
mod creation;
mod gateway;
mod inventory;
mod payload;
mod progress;
mod recent;
mod rollback;
mod routing;

pub use self::{
    payload::Payload,
    progress::{VniReport, VniState},
};

/// The vni-provisioner's own settings.
#[derive(Clone, Debug, clap::Args)]
pub struct VniOptions {
    /// Maximum number of virtual network interfaces of an organisation
    #[arg(long, env = "GENFLEET_MAX_INTERFACES", value_name = "N", default_value_t = 50)]
    pub max_interfaces: u64,

    /// Gateways that are probed although they are loopback, link-local, multicast, unspecified or metadata addresses
    #[arg(long, env = "GENFLEET_GATEWAY_ALLOW", value_name = "CIDR,…", value_delimiter = ',', value_parser = gateway::network)]
    pub gateway_allow: Vec<IpNet>,

    /// Maximum time for a gateway to accept a connection
    #[arg(long, env = "GENFLEET_GATEWAY_TIMEOUT", value_name = "DURATION", default_value = "5s", value_parser = options::duration)]
    pub gateway_timeout: Duration,

    /// Interval of the ten checks of a routing table
    #[arg(long, env = "GENFLEET_ROUTING_POLL_INTERVAL", value_name = "DURATION", default_value = "1s", value_parser = options::duration)]
    pub routing_poll_interval: Duration,
}

/// Creates virtual network interfaces.
#[derive(Debug)]
pub struct VniProvisioner {
    organisations: Turns<Uuid>,
    recent: Recent,
    rules: Rules,
    routing_poll_interval: Duration,
}

impl JobHandler for VniProvisioner {
    const KIND: Kind = Kind::VniProvision;
    const ACTION: &'static str = "vni_provisioned";
    const AUDIT_ACTION: &'static str = "vni_provisioning";
    const SCOPES: &'static [&'static str] = api::SCOPES;
    const CONCURRENCY: usize = 8;

    type Options = VniOptions;
    type Payload = Payload;
    type State = VniState;
    type Report = VniReport;

    fn new(options: VniOptions, _: &Services) -> Result<Self, ConfigError> {
        let gateways = Gateways { allowed: options.gateway_allow, timeout: options.gateway_timeout };
        Ok(Self {
            organisations: Turns::default(),
            recent: Recent::default(),
            rules: Rules { max_interfaces: options.max_interfaces, gateways },
            routing_poll_interval: options.routing_poll_interval,
        })
    }

    fn validate(payload: &Payload, _: &VniOptions) -> Vec<Violation> {
        payload.violations()
    }

    fn terms() -> ContractTerms {
        contract::terms()
    }

    async fn handle(&self, job: &JobContext, payload: Payload, state: VniState) -> Result<Progress<Self>, JobError> {
        let plan = payload.plan().map_err(|broken| JobError::invalid(broken.into()))?;
        let has_begun = state != VniState::default();
        let message = || format!("another job of organisation {} is at work", plan.organization_id);
        let turn = self.organisations.enter(&plan.organization_id, job, has_begun, "organization_busy", message)?;
        let step = self.step(job, &plan, state).await?;
        if matches!(step, Progress::Begun { .. }) {
            turn.keep(Duration::ZERO);
        }
        Ok(step)
    }
}

impl VniProvisioner {
    /// Provides the interface, with a durable state before each step; then its routing; or removes it after a failure.
    async fn step(&self, job: &JobContext, plan: &InterfacePlan, state: VniState) -> Result<Progress<Self>, JobError> {
        if state.interface_id.is_none() {
            return self.provide(job, plan, state).await;
        }
        match state.undoing.clone() {
            Some(failure) => {
                job.record_progress(&state, state.error_details(false));
                Err(self.remove(job, plan, &state, failure).await)
            }
            None => self.route(job, plan, state).await,
        }
    }

    /// Reads the existing interfaces, records the intent to create one, and creates it. If the process dies, the
    /// recorded intent shows that the interface may be this job's own.
    async fn provide(
        &self,
        job: &JobContext,
        plan: &InterfacePlan,
        state: VniState,
    ) -> Result<Progress<Self>, JobError> {
        let may_be_own = state.may_have_ordered(job);
        let existing = creation::survey(job, plan, &self.rules, &self.recent).await;
        match (existing, state.order) {
            (Err(error), None) => Err(error),
            (Err(error), Some(_)) => Err(end_without_interface(error, may_be_own)),
            (Ok(Some(id)), _) if may_be_own => Ok(at_once(record_found(job, id))),
            (Ok(Some(id)), _) => self.route(job, plan, VniState::adopted(id)).await,
            (Ok(None), None) => {
                self.rules.gateways.probe(job, plan).await?;
                Ok(at_once(VniState::ordering(Some(Order::Next))))
            }
            (Ok(None), Some(_)) => self.create(job, plan, may_be_own).await,
        }
    }

    async fn create(
        &self,
        job: &JobContext,
        plan: &InterfacePlan,
        may_be_own: bool,
    ) -> Result<Progress<Self>, JobError> {
        job.record_progress(&VniState::ordering(Some(Order::Sent)), Map::new());
        match creation::order(job, plan, &self.recent).await {
            Ok(Ordered::Made(id)) => Ok(at_once(VniState::created(job, id))),
            Ok(Ordered::Found(id)) => Ok(at_once(record_found(job, id))),
            Ok(Ordered::Before(id)) if may_be_own => Ok(at_once(record_found(job, id))),
            Ok(Ordered::Before(id)) => self.route(job, plan, VniState::adopted(id)).await,
            Err(Unordered { error, may_be_made }) => Err(end_without_interface(error, may_be_made || may_be_own)),
        }
    }

    async fn remove(&self, job: &JobContext, plan: &InterfacePlan, state: &VniState, failure: Failure) -> JobError {
        let ended = rollback::remove(job, state, failure).await;
        if ended.details.get("rolledBack") == Some(&true.into()) {
            self.recent.record_absent(plan);
        }
        ended.with_state(state)
    }

    async fn route(
        &self,
        job: &JobContext,
        plan: &InterfacePlan,
        mut state: VniState,
    ) -> Result<Progress<Self>, JobError> {
        job.record_progress(&state, state.error_details(false));
        let table = &plan.routing_table_id;
        let routed = routing::converge(job, table, self.routing_poll_interval, &mut state.routing_polls).await;
        let Err(error) = routed else { return Ok(Progress::Done(state.report(job))) };
        match rollback::judge(job, plan, &state, error) {
            RollbackDecision::GoesOn(error) => Err(error.with_state(&state)),
            RollbackDecision::Stays(error) => Err(error),
            RollbackDecision::Goes(failure) => Ok(at_once(VniState { undoing: Some(failure), ..state })),
        }
    }
}

/// Returns the state of a job whose own interface was found, after a crash or a lost answer.
fn record_found(job: &JobContext, id: String) -> VniState {
    job.record_found(&Detail::default().with("endpoint", api::CONNECTIONS).with("interfaceId", id.as_str()));
    VniState::created(job, id)
}

/// Ends an attempt without an interface. The recorded intent is removed, unless the request may have been sent.
fn end_without_interface(error: JobError, may_be_made: bool) -> JobError {
    error.with_state(&VniState::ordering(may_be_made.then_some(Order::Sent)))
}

/// Makes `state` durable and continues at once, in this or another process.
fn at_once(state: VniState) -> Progress<VniProvisioner> {
    Progress::Begun { state, again_in: Duration::ZERO }
}
