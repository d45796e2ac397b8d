//! The API of a process: Genesys Cloud, or the built-in simulator with `--simulate`.

use std::net::{Ipv4Addr, SocketAddr};

use clap::builder::BoolishValueParser;
use genfleet_core::{
    clock::SharedClock,
    genesys::{CredentialSource, Credentials, GenesysClient, GenesysOptions},
    job::Kind,
    options::ConfigError,
};
use genfleet_simulator::Simulator;
use serde_json::json;

use crate::{
    commands::simulate::Behaviour,
    registry::{self, HandlerOptions},
};

/// True to use the simulator, and its settings.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct SimulateOptions {
    /// Use the built-in simulator instead of Genesys Cloud; no credentials are needed
    #[arg(long, env = "GENFLEET_SIMULATE", value_parser = BoolishValueParser::new())]
    simulate: bool,

    #[command(flatten)]
    behaviour: Behaviour,
}

impl SimulateOptions {
    /// True to use the simulator.
    pub(crate) const fn is_wanted(&self) -> bool {
        self.simulate
    }
}

/// Adds a private connection to the simulated organisation, for a job that finds its interface there (no job can create
/// one, because no gateway is reachable), and a flow that uses a queue.
fn add_sample_objects(simulator: &Simulator) -> anyhow::Result<()> {
    let lab = json!({
        "name": "lab", "organizationId": "a1b2c3d4-e5f6-7890-abcd-ef1234567890", "type": "ipconnect",
        "localIp": "10.0.40.1", "remoteIp": "203.0.113.10", "subnetCidr": "10.0.40.0/24",
        "dnsServers": ["8.8.8.8", "2001:4860:4860::8844"], "routingTableId": "rt-9876543210",
    });
    simulator.set("network", &json!({ "connections": [lab] })).map_err(anyhow::Error::msg)?;
    let flow = json!({ "queues": ["6f1c2d3e-4a5b-4c6d-8e7f-901a2b3c4d5e"] });
    let flows = json!({ "0b9a8c7d-6e5f-4a3b-9c2d-1e0f9a8b7c6d": flow });
    simulator.set("webDeployments", &json!({ "flows": flows })).map_err(anyhow::Error::msg)
}

/// The client, and the simulator it talks to where there is one: keep it alive. The simulator stands in for the
/// services of `handlers`, too, whose settings are checked.
pub(crate) async fn client(
    options: &SimulateOptions,
    genesys: &GenesysOptions,
    kinds: &[Kind],
    handlers: &mut HandlerOptions,
    clock: SharedClock,
) -> anyhow::Result<(GenesysClient, Option<Simulator>)> {
    let rights = registry::rights(kinds, handlers);
    if !options.simulate {
        registry::check(kinds, handlers)?;
        let client = GenesysClient::new(genesys, rights, clock)
            .map_err(|error| ConfigError::new(format!("{error}\nTo try it without Genesys Cloud, add --simulate")))?;
        return Ok((client, None));
    }
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let simulator = Simulator::start(options.behaviour.options(anywhere)).await?;
    add_sample_objects(&simulator)?;
    handlers.stand_in(&simulator.base_url());
    registry::check(kinds, handlers)?;
    let genesys = GenesysOptions {
        genesys_base_url: Some(simulator.base_url()),
        genesys_token_url: None,
        genesys_cdn_url: Some(simulator.base_url()),
        ..genesys.clone()
    };
    let anybody = Credentials { id: "simulated".to_owned().into(), secret: "simulated".to_owned().into() };
    let client = GenesysClient::with_credentials(&genesys, rights, clock, CredentialSource::Given(anybody))?;
    Ok((client, Some(simulator)))
}
