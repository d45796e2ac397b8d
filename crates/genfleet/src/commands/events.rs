//! `genfleet events`: the events of jobs that ended, from either queue.

use std::{io::Write, path::Path, process::ExitCode, sync::Arc};

use genfleet_core::{
    clock::{SharedClock, SystemClock},
    options::ConfigError,
    queue::{
        rabbit::inspect::Inspector,
        sqlite::{Role, SqliteQueue},
    },
    telemetry,
    worker::{
        command::install_tls,
        options::{LogFormat, QueueOptions},
        shutdown::Signals,
    },
};

use super::block_on;

/// Which events.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Go on with new ones until stopped
    #[arg(long)]
    follow: bool,

    /// At most so many of those there are
    #[arg(long, default_value = "1000", value_name = "N")]
    limit: usize,

    /// Events are JSON lines in any case; for symmetry with the other commands
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    queue: QueueOptions,
}

/// Prints one event a line.
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    telemetry::start_logs(LogFormat::Text, "error")?;
    install_tls();
    options.queue.check()?;
    block_on(async {
        let mut signals = Signals::listen()?;
        tokio::select! {
            printed = print(options) => printed?,
            _ = signals.next() => {}
        }
        Ok(ExitCode::SUCCESS)
    })
}

async fn print(options: &Options) -> anyhow::Result<()> {
    match options.queue.url()?.sqlite_file() {
        Some(file) => from_store(&file, options).await,
        None => from_broker(options).await,
    }
}

async fn from_store(file: &Path, options: &Options) -> anyhow::Result<()> {
    if !file.exists() {
        return Err(ConfigError::new(format!("no store {}", file.display())).into());
    }
    let clock: SharedClock = Arc::new(SystemClock);
    let store = SqliteQueue::open(file, Role::Tool, clock)?;
    let (mut sequence, mut printed) = (0, 0);
    loop {
        let events = store.events_after(sequence, 500).await?;
        for event in &events {
            if !options.follow && printed == options.limit {
                return Ok(());
            }
            line(&event.body)?;
            sequence = event.sequence;
            printed += 1;
        }
        match (events.is_empty(), options.follow) {
            (false, _) => {}
            (true, true) => store.event_published().await,
            (true, false) => return Ok(()),
        }
    }
}

async fn from_broker(options: &Options) -> anyhow::Result<()> {
    let inspector = Inspector::connect(options.queue.rabbit("genfleet events")?).await?;
    if options.follow {
        let mut events = std::pin::pin!(inspector.follow_events().await?);
        while let Some(event) = events.next().await {
            line(&event?)?;
        }
        return Ok(());
    }
    for event in inspector.window_events(options.limit).await? {
        line(&event)?;
    }
    Ok(())
}

fn line(event: &[u8]) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(event)?;
    out.write_all(b"\n")?;
    out.flush()
}
