//! `genfleet run`: runs a batch of jobs from JSON lines, on the embedded queue. If it is killed, the same command
//! continues the batch. It ends when all jobs have ended; webhooks that are not delivered soon after are left to the
//! next start.

use std::{
    fs::File,
    io::{self, IsTerminal},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use genfleet_core::{
    clock::{SharedClock, SystemClock},
    eprint_line,
    genesys::GenesysOptions,
    job::Kind,
    options::{ConfigError, duration},
    queue::{
        Queue,
        sqlite::{Role, SqliteQueue},
    },
    telemetry::{LogFormat, http::install_tls, trace::TraceExport},
    webhook::{WebhookOptions, Webhooks},
    worker::{ChosenKinds, ProcessEnd, Runtime, Signals, WorkerOptions, warnings_of_kinds},
};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};
use tracing::info;

use self::{load::Input, progress::Progress, sink::Sink, tally::Tally};
use super::{EXIT_FAILED, EXIT_JOBS_FAILED, block_on};
use crate::{
    registry::{self, HandlerOptions},
    simulated::{self, SimulateOptions},
};

/// Maximum number of events that are read at once.
const READ_TOGETHER: usize = 1000;
/// Pause after events were read, so that the next ones are read together.
const LINGER: Duration = Duration::from_millis(20);

mod held;
pub(crate) mod lines;
mod load;
mod progress;
mod sink;
mod summary;
mod tally;

/// The files with the jobs, and the settings.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// JSON lines, each a job; - reads them from stdin
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,

    /// Where the batch is kept until it is done [default: the first file's name and .genfleet]
    #[arg(long, env = "GENFLEET_STORE", value_name = "FILE")]
    store: Option<PathBuf>,

    /// Write the events here, as JSON lines, instead of to stdout
    #[arg(long, env = "GENFLEET_EVENTS", value_name = "FILE")]
    events: Option<PathBuf>,

    /// Print events as JSON on a terminal, too, and the summary as JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    simulate: SimulateOptions,
    #[command(flatten)]
    worker: WorkerOptions,
    #[command(flatten)]
    genesys: GenesysOptions,
    #[command(flatten)]
    webhooks: WebhookOptions,

    /// After the last job: how long to wait for webhooks that are still to be delivered. The remaining ones stay in the
    /// store, and the same command continues with them
    #[arg(long, env = "GENFLEET_WEBHOOK_WAIT", default_value = "30s", value_parser = duration, value_name = "DURATION", help_heading = "Webhooks")]
    webhook_wait: Duration,

    #[command(flatten)]
    handlers: HandlerOptions,
}

impl Options {
    /// Returns true if stdout is a terminal and JSON was not requested.
    fn is_for_a_person(&self) -> bool {
        !self.json && self.events.is_none() && io::stdout().is_terminal()
    }
}

/// Examples at the end of `--help`.
pub(crate) const EXAMPLES: &str = "Examples:
  genfleet run --simulate jobs.jsonl                    with the simulator, without credentials
  genfleet run jobs.jsonl --events events.jsonl         against Genesys Cloud
  producer | genfleet run - --store nightly.genfleet    from a pipe";

/// Runs the batch to its end; exit code 2 if a job failed.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let handlers = options.handlers.clone().for_simulator(options.simulate.is_wanted());
    let options = &Options { handlers, ..options.clone() };
    options.worker.start_logs("error", LogFormat::Text)?;
    if options.events.is_none() && options.worker.audit.uses_stdout() {
        return Err(
            ConfigError::new("--audit-log -: events are written to stdout; name a file, or --events FILE").into()
        );
    }
    let kinds = registry::choose(&options.worker.kinds, &options.handlers)?;
    kinds.notes().for_each(|note| info!("{note}"));
    install_tls();
    // Checked before a store is created for them.
    for file in options.files.iter().filter(|file| *file != "-") {
        File::open(file).with_context(|| format!("{file} cannot be read"))?;
    }
    let store = options.store.clone().unwrap_or_else(|| PathBuf::from(default_store(&options.files[0])));
    sink::refuse_input(&options.files, "--store", Some(&store))?;
    sink::refuse_input(&options.files, "--events", options.events.as_deref())?;
    let (mut tally, end) = block_on(batch(options, &kinds, &store))?;
    tally.undelivered = if tally.complete() { block_on(count_left(&store))? } else { 0 };
    if options.is_for_a_person() {
        tally.print_account();
    }
    tally.print(options.json);
    if let ProcessEnd::Fault(reason) = end {
        bail!("{reason}. Start it again to continue");
    }
    if !tally.complete() {
        eprint_line!(
            "Stopped before the end. Start it again with the same files to continue; the batch is kept in {}",
            store.display()
        );
        return Ok(ExitCode::from(EXIT_FAILED));
    }
    if tally.undelivered > 0 {
        eprint_line!(
            "{} still to be delivered. Start it again with the same files and settings to continue; the batch is kept in {}",
            if tally.undelivered == 1 {
                "1 webhook is".to_owned()
            } else {
                format!("{} webhooks are", tally.undelivered)
            },
            store.display()
        );
        return Ok(ExitCode::from(EXIT_FAILED));
    }
    SqliteQueue::remove(&store).with_context(|| format!("the store {} cannot be removed", store.display()))?;
    if options.is_for_a_person() {
        eprint_line!(
            "{}",
            summary::next(
                &options.files,
                tally.not_succeeded() > 0,
                options.simulate.is_wanted(),
                tally.account.works_with_real_organisation()
            )
            .trim_end_matches('\n')
        );
    }
    Ok(if tally.has_failures() { ExitCode::from(EXIT_JOBS_FAILED) } else { ExitCode::SUCCESS })
}

fn default_store(first: &str) -> String {
    format!("{}.genfleet", if first == "-" { "stdin" } else { first })
}

/// Number of jobs in the store that are not settled, and of events that were stored too late to be printed.
async fn count_left(path: &std::path::Path) -> anyhow::Result<u64> {
    let store = SqliteQueue::open(path, Role::Tool, Arc::new(SystemClock))?;
    let printed = store.batch_cursor().await?;
    let unprinted = store.events_after(printed, 1000).await?.len();
    let left = store.count_unfinished().await? + unprinted as u64;
    store.close().await;
    Ok(left)
}

async fn batch(options: &Options, kinds: &ChosenKinds, path: &std::path::Path) -> anyhow::Result<(Tally, ProcessEnd)> {
    TraceExport::from_environment("genfleet")?.into_iter().for_each(TraceExport::start);
    let clock: SharedClock = Arc::new(SystemClock);
    let mut handlers = options.handlers.clone();
    let (genesys, simulator) =
        simulated::client(&options.simulate, &options.genesys, &kinds.worked, &mut handlers, clock.clone()).await?;
    let webhooks = Webhooks::new(&options.webhooks)?;
    let audit_file = format!("{}-audit.jsonl", path.display());
    let of_kinds = warnings_of_kinds(&options.genesys, &kinds.worked, &registry::calling(&kinds.worked, &handlers));
    let warnings = [options.genesys.warnings(), options.webhooks.warnings()?, of_kinds].concat();
    // By default the log of a batch contains errors only, so warnings are printed here.
    let print_warnings = simulator.is_none() && !tracing::enabled!(tracing::Level::WARN);
    for warning in warnings.iter().filter(|_| print_warnings) {
        eprint_line!("warning: {warning}");
    }
    // All checks run before a file is created.
    let input = Input::read(&options.files)?;
    input.check_kinds(kinds)?;
    if options.handlers.uses_stand_in() && input.has(Kind::MediaScan) {
        eprint_line!(
            "media.scan: a stand-in takes the place of the engine; it knows the EICAR test string and nothing else"
        );
    }
    input.check(path, &clock).await?;
    options.worker.audit.check(&audit_file, &clock)?;
    let sink = Sink::open(options.events.as_deref(), options.is_for_a_person())?;
    // From here on a signal stops the batch in order.
    let mut signals = Signals::listen()?;
    let store = SqliteQueue::open(path, Role::Worker, clock.clone())?;
    let audit = options.worker.audit.open(&audit_file, &clock)?;
    let environment = genesys.addresses().environment.clone();
    let webhook_wait = if webhooks.delivering().is_some() { options.webhook_wait } else { Duration::ZERO };
    let mut settings = options.worker.clone();
    if simulator.is_some() {
        // The simulator started with this process, so no other process can have changed anything there.
        settings.takeover_wait = Duration::ZERO;
    }
    let queue = Queue::Sqlite(store.clone());
    let runtime = Runtime::new("genfleet run", settings, queue, genesys, audit, clock.clone());
    let progress = Progress::new(input.total());
    let held = tokio::spawn(held::watch(runtime.blockers(), progress.clone()));
    tokio::select! {
        loaded = input.load(&store, path, &environment, &webhooks, runtime.audit(), &clock) => loaded?,
        _ = signals.next() => return Ok((Tally::new(input.total()), ProcessEnd::Stopped)),
    }
    let runtime = runtime.with_webhooks(webhooks);
    registry::work(&runtime, &handlers, &kinds.worked)?;
    let (finished, batch_end) = oneshot::channel();
    let follow = tokio::spawn(follow(store, sink, progress, webhook_wait, finished));
    let end = runtime
        .run(signals, async {
            // If the events cannot be written, the sender is dropped. That ends the run, too.
            drop(batch_end.await);
        })
        .await;
    let mut tally = follow.await.context("the events could not be followed")??;
    tally.held = held.await.context("pauses and holds could not be followed")?;
    if let Some(simulator) = simulator {
        simulator.stop().await;
    }
    Ok((tally, end))
}

/// Prints and counts events until all jobs have ended and all webhooks are delivered, or were waited for as long as
/// `webhook_wait`, or until the store is closed.
async fn follow(
    store: SqliteQueue,
    mut sink: Sink,
    progress: Progress,
    webhook_wait: Duration,
    finished: oneshot::Sender<()>,
) -> anyhow::Result<Tally> {
    let mut tally = Tally::new(progress.total);
    let printed = store.batch_cursor().await?;
    let (mut sequence, mut complete_since, mut quiet) = (0, None, false);
    loop {
        // Counted before the events are read, so that none can follow. Not while events come one after another, because
        // it reads a whole index.
        let unfinished = if quiet || tally.complete() { store.count_unfinished().await.ok() } else { None };
        // The store is closed when the process stops.
        let Ok(events) = store.events_after(sequence, READ_TOGETHER).await else { return Ok(tally) };
        for event in &events {
            tally.count(&event.body);
            sequence = event.sequence;
        }
        let new = events.iter().filter(|event| event.sequence > printed).map(|event| &event.body[..]);
        progress.suspend(|| sink.write(new))?;
        progress.show(tally.ended(), tally.not_succeeded());
        if sequence > printed && !events.is_empty() && store.set_batch_cursor(sequence).await.is_err() {
            return Ok(tally);
        }
        quiet = events.is_empty();
        if quiet {
            let waited = tally.complete().then(|| complete_since.get_or_insert_with(Instant::now).elapsed());
            if let (Some(_), Some(left)) = (waited, unfinished) {
                progress.wait_for_webhooks(left);
            }
            if unfinished == Some(0) || waited.is_some_and(|waited| waited >= webhook_wait) {
                progress.finish();
                // It fails if the process is already stopping.
                let _ = finished.send(());
                return Ok(tally);
            }
            store.wait_for_event().await;
        } else if events.len() < READ_TOGETHER && !tally.complete() {
            sleep(LINGER).await;
        }
    }
}
