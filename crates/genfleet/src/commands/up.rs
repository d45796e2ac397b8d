//! `genfleet up`: all workers in one process.

use std::{process::ExitCode, sync::Arc, time::Duration};

use genfleet_core::{
    clock::{SharedClock, SystemClock},
    genesys::GenesysOptions,
    job::Kind,
    webhook::WebhookOptions,
    worker::{PreparedProcess, QueueOptions, Runtime, WorkerOptions, warnings_of_kinds},
};

use super::block_on;
use crate::{
    registry::{self, HandlerOptions},
    simulated::{self, SimulateOptions},
    terminal,
};

/// The settings of the workers, and which of them run.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Kinds to work, as --kinds [default: all]
    #[arg(id = "kind", value_name = "KIND")]
    named: Vec<Kind>,

    #[command(flatten)]
    queue: QueueOptions,
    #[command(flatten)]
    worker: WorkerOptions,
    #[command(flatten)]
    genesys: GenesysOptions,
    #[command(flatten)]
    webhooks: WebhookOptions,
    #[command(flatten)]
    handlers: HandlerOptions,
    #[command(flatten)]
    simulate: SimulateOptions,

    /// Check the settings and exit: 0 if they can work, 64 if not
    #[arg(long)]
    check_config: bool,
}

/// Runs until it is stopped.
pub(crate) fn run(options: Options, misspelt: Vec<String>) -> anyhow::Result<ExitCode> {
    let Options { named, mut queue, mut worker, genesys, webhooks, handlers, simulate, check_config } = options;
    let mut handlers = handlers.for_simulator(simulate.is_wanted());
    let kinds = registry::choose(if named.is_empty() { &worker.kinds } else { &named }, &handlers)?;
    queue.default_to_store()?;
    let mut warnings = misspelt;
    if simulate.is_wanted() {
        // The simulator starts with this process, so no other process can have changed anything there.
        worker.takeover_wait = Duration::ZERO;
    } else {
        let calling = registry::calling(&kinds.worked, &handlers);
        warnings.extend(warnings_of_kinds(&genesys, &kinds.worked, &calling));
    }
    let worked = kinds.worked.clone();
    let process = PreparedProcess::new("genfleet", queue, worker, &webhooks, kinds, warnings)?;
    let clock: SharedClock = Arc::new(SystemClock);
    block_on(async {
        let (client, simulator) = simulated::client(&simulate, &genesys, &worked, &mut handlers, clock.clone()).await?;
        if check_config {
            terminal::print_line(process.check(&clock)?)?;
            return Ok(ExitCode::SUCCESS);
        }
        let work = |runtime: &Runtime| registry::work(runtime, &handlers, &worked);
        let end = process.run("genfleet up", client, clock, work).await?;
        if let Some(simulator) = simulator {
            simulator.stop().await;
        }
        Ok(end.into())
    })
}
