//! The API a process talks to: the real one, or the built-in simulator where `--simulate` is given.

use std::net::{Ipv4Addr, SocketAddr};

use genfleet_core::{
    clock::SharedClock,
    genesys::{
        client::GenesysClient,
        mint::{CredentialSource, Credentials},
        options::GenesysOptions,
    },
    job::Kind,
    options::ConfigError,
};
use genfleet_simulator::Simulator;

use crate::{commands::simulate::Behaviour, fleet};

/// Whether to talk to the simulator, and how it behaves.
#[derive(Clone, Debug, clap::Args)]
pub struct SimulateOptions {
    /// Talk to the built-in simulator instead of Genesys Cloud: no credentials needed
    #[arg(long, env = "GENFLEET_SIMULATE")]
    simulate: bool,

    #[command(flatten)]
    behaviour: Behaviour,
}

/// The client, and the simulator it talks to where there is one: keep it alive.
pub async fn client(
    options: &SimulateOptions,
    genesys: &GenesysOptions,
    kinds: &[Kind],
    clock: SharedClock,
) -> anyhow::Result<(GenesysClient, Option<Simulator>)> {
    let scopes = fleet::scopes(kinds);
    if !options.simulate {
        let client = GenesysClient::new(genesys, scopes, clock)
            .map_err(|error| ConfigError::new(format!("{error}\nTo try it without Genesys Cloud, add --simulate")))?;
        return Ok((client, None));
    }
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let simulator = Simulator::start(options.behaviour.options(anywhere)).await?;
    let genesys =
        GenesysOptions { genesys_base_url: Some(simulator.base_url()), genesys_token_url: None, ..genesys.clone() };
    let anybody = Credentials { id: "simulated".to_owned().into(), secret: "simulated".to_owned().into() };
    let client = GenesysClient::with_credentials(&genesys, scopes, clock, CredentialSource::Given(anybody))?;
    Ok((client, Some(simulator)))
}
