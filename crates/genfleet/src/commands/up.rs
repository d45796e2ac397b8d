//! `genfleet up`: all workers in one process.

use std::{process::ExitCode, sync::Arc, time::Duration};

use genfleet_core::{
    audit::default_file,
    clock::{SharedClock, SystemClock},
    genesys::GenesysOptions,
    job::Kind,
    options::ConfigError,
    queue::sqlite::Role,
    telemetry::{LogFormat, http::install_tls, trace::TraceExport},
    webhook::{WebhookOptions, Webhooks},
    worker::{QueueOptions, Runtime, Signals, WorkerOptions, start_metrics, warnings_of_kinds},
};
use tracing::{info, warn};

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
pub(crate) fn run(mut options: Options, misspelt: Vec<String>) -> anyhow::Result<ExitCode> {
    options.handlers = options.handlers.for_simulator(options.simulate.is_wanted());
    let named = if options.named.is_empty() { &options.worker.kinds } else { &options.named };
    let kinds = registry::choose(named, &options.handlers)?;
    options.queue.default_to_store()?;
    options.queue.check()?;
    options.worker.start_logs("info", LogFormat::Json)?;
    install_tls();
    let webhooks = Webhooks::new(&options.webhooks)?;
    let calling = registry::calling(&kinds.worked, &options.handlers);
    let mut of_kinds = warnings_of_kinds(&options.genesys, &kinds.worked, &calling);
    of_kinds.retain(|_| !options.simulate.is_wanted());
    for warning in [misspelt, options.queue.warnings()?, options.webhooks.warnings()?, of_kinds].concat() {
        warn!("{warning}");
    }
    let metrics = start_metrics(&kinds.worked)?;
    let traces = TraceExport::from_environment("genfleet")?;
    let clock: SharedClock = Arc::new(SystemClock);
    block_on(async {
        let (genesys, simulator) =
            simulated::client(&options.simulate, &options.genesys, &kinds.worked, &mut options.handlers, clock.clone())
                .await?;
        if options.check_config {
            options.queue.check_store()?;
            options.worker.audit.check(&default_file("genfleet"), &clock)?;
            kinds.notes().try_for_each(|note| terminal::say(note).map(drop))?;
            terminal::say("the settings can work")?;
            return Ok(ExitCode::SUCCESS);
        }
        kinds.notes().for_each(|note| info!("{note}"));
        traces.into_iter().for_each(TraceExport::start);
        let signals = Signals::listen()?;
        let queue = options
            .queue
            .open("genfleet", Role::Worker, &kinds.worked, clock.clone())
            .map_err(|error| ConfigError::new(error.to_string()))?;
        let audit = options.worker.audit.open(&default_file("genfleet"), &clock)?;
        if simulator.is_some() {
            // The simulator started with this process, so no other process can have changed anything there.
            options.worker.takeover_wait = Duration::ZERO;
        }
        let runtime = Runtime::new("genfleet up", options.worker, queue, genesys, audit, clock).with_webhooks(webhooks);
        runtime.serve_admin(metrics).await?;
        registry::work(&runtime, &options.handlers, &kinds.worked)?;
        let end = runtime.run(signals, std::future::pending()).await;
        if let Some(simulator) = simulator {
            simulator.stop().await;
        }
        Ok(end.into())
    })
}
