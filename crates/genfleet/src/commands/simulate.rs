//! `genfleet simulate`: serves the simulator on a port.

use genfleet_core::eprint_line;
use std::{net::SocketAddr, process::ExitCode, time::Duration};

use genfleet_core::{options::duration, worker::Signals};
use genfleet_simulator::{FaultRule, Simulator, SimulatorOptions};
use serde_json::json;

use super::block_on;
use crate::terminal;

/// The address and the settings of the simulator.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Address to listen at; port 0 means a free port
    #[arg(long, env = "GENFLEET_LISTEN", default_value = "127.0.0.1:8480", value_name = "ADDRESS")]
    listen: SocketAddr,

    /// Print the address as JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    behaviour: Behaviour,
}

/// Limits and faults of the simulator, also for `run` and `up`.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Simulator")]
pub(crate) struct Behaviour {
    /// Requests a minute that a token may send
    #[arg(
        long = "sim-requests-per-minute",
        id = "sim-requests-per-minute",
        env = "GENFLEET_SIM_REQUESTS_PER_MINUTE",
        default_value = "300",
        value_name = "N"
    )]
    requests_per_minute: u32,

    /// Requests a minute that all tokens of a client may send together
    #[arg(
        long = "sim-client-requests-per-minute",
        id = "sim-client-requests-per-minute",
        env = "GENFLEET_SIM_CLIENT_REQUESTS_PER_MINUTE",
        default_value = "3000",
        value_name = "N"
    )]
    client_requests_per_minute: u32,

    /// Delay of each answer
    #[arg(long = "sim-latency", id = "sim-latency", env = "GENFLEET_SIM_LATENCY", default_value = "0ms", value_parser = duration, value_name = "DURATION")]
    latency: Duration,

    /// A fault, e.g. 'status=429,rate=0.2,retry-after=2', 'lost,rate=0.05', 'latency=200ms'. Repeatable. Keys: name,
    /// method, path, body-contains, rate, times, after, status, retry-after, limit, body, content-type, latency, lost,
    /// hang, effect
    #[arg(long = "sim-fault", id = "sim-fault", env = "GENFLEET_SIM_FAULT", value_name = "RULE")]
    fault: Vec<FaultRule>,
}

impl Behaviour {
    /// Returns the settings for the simulator.
    pub(crate) fn options(&self, listen: SocketAddr) -> SimulatorOptions {
        SimulatorOptions {
            listen,
            requests_per_minute: self.requests_per_minute,
            client_requests_per_minute: self.client_requests_per_minute,
            latency: self.latency,
            faults: self.fault.clone(),
            ..SimulatorOptions::default()
        }
    }
}

/// Serves until it is stopped.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    block_on(async {
        let mut signals = Signals::listen()?;
        let simulator = Simulator::start(options.behaviour.options(options.listen)).await?;
        if options.json {
            terminal::print_line(json!({ "url": simulator.base_url() }))?;
        } else {
            terminal::print_line(simulator.base_url())?;
        }
        eprint_line!("A stand-in for Genesys Cloud listens at {0}; what it received: {0}/_sim/", simulator.base_url());
        eprint_line!(
            "Point workers at it: GENESYS_BASE_URL={} GENESYS_CLIENT_ID=any GENESYS_CLIENT_SECRET=any",
            simulator.base_url()
        );
        tokio::select! {
            _ = signals.next() => {}
            () = simulator.wait() => anyhow::bail!("the simulator ended by itself"),
        }
        simulator.stop().await;
        Ok(ExitCode::SUCCESS)
    })
}
