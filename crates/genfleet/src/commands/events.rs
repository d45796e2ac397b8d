//! `genfleet events`: the events of jobs that ended, from either queue.
//!
//! The latest are shown, in the order they happened. Neither queue can be read from its end: all that is kept is
//! read (on `RabbitMQ` and given back), and the latest are kept in memory.

use genfleet_core::tell;
use std::{collections::VecDeque, path::Path, process::ExitCode, sync::Arc};

use genfleet_core::{
    clock::{SharedClock, SystemClock},
    http::install_tls,
    options::ConfigError,
    queue::{
        QueueError,
        rabbit::{EventFollower, FollowedEvent, RabbitInspector},
        sqlite::{Role, SqliteQueue, StoredEvent},
    },
    telemetry::{self, LogFormat},
    worker::{options::QueueOptions, shutdown::Signals},
};

use super::block_on;
use crate::terminal::{self, Reader, lines};

/// Events read from the store at once.
const PAGE: usize = 500;

/// Which events.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Go on with new ones until stopped; on RabbitMQ from now on, through restarts of the broker
    #[expect(clippy::doc_markdown, reason = "this is what --help shows")]
    #[arg(long)]
    follow: bool,

    /// At most so many of those there are: the latest, in order. All that are kept are read for it
    #[arg(long, default_value = "1000", value_name = "N")]
    limit: usize,

    /// Events are JSON lines in any case; for symmetry with the other commands
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    queue: QueueOptions,
}

/// Examples at the end of `--help`.
pub(crate) const EXAMPLES: &str = "Examples:
  genfleet events --limit 20                    the latest
  genfleet events --follow | jq .data.outcome   as they happen
  genfleet show release-42                      those of one job";

/// Prints one event a line.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
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
        return Err(ConfigError::new(format!("no store {}: name one that is there", file.display())).into());
    }
    let clock: SharedClock = Arc::new(SystemClock);
    let store = SqliteQueue::open(file, Role::Tool, clock)?;
    let (latest, mut sequence) = latest(&store, options.limit).await?;
    for event in latest {
        if line(&event.body)? == Reader::Gone {
            return Ok(());
        }
    }
    if !options.follow {
        return Ok(());
    }
    loop {
        store.event_published().await;
        for event in store.events_after(sequence, PAGE).await? {
            if line(&event.body)? == Reader::Gone {
                return Ok(());
            }
            sequence = event.sequence;
        }
    }
}

/// The latest `limit` events, and how far the store was read.
async fn latest(store: &SqliteQueue, limit: usize) -> Result<(VecDeque<StoredEvent>, i64), QueueError> {
    let (mut latest, mut sequence) = (VecDeque::new(), 0);
    loop {
        let page = store.events_after(sequence, PAGE).await?;
        let Some(last) = page.last() else { return Ok((latest, sequence)) };
        sequence = last.sequence;
        latest.extend(page);
        latest.drain(..latest.len().saturating_sub(limit));
    }
}

async fn from_broker(options: &Options) -> anyhow::Result<()> {
    let settings = options.queue.rabbit("genfleet events")?;
    if options.follow {
        let mut following = EventFollower::begin(settings).await?;
        loop {
            match following.next().await {
                FollowedEvent::Event(event) if line(&event)? == Reader::Gone => return Ok(()),
                FollowedEvent::Event(_) => {}
                FollowedEvent::Lost(reason) => {
                    tell!("warning: {}; going on once the broker is back", terminal::line(&reason));
                }
                FollowedEvent::Back => tell!("warning: the broker is back; events of the meantime: genfleet events"),
            }
        }
    }
    let inspector = RabbitInspector::connect(settings).await?;
    for event in inspector.window_events(options.limit).await? {
        if line(&event)? == Reader::Gone {
            return Ok(());
        }
    }
    Ok(())
}

fn line(event: &[u8]) -> anyhow::Result<Reader> {
    // No JSON has a control in it but line ends and tabs.
    terminal::say(lines(&String::from_utf8_lossy(event)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use genfleet_core::{
        message::Message,
        queue::{Destination, Publication},
    };

    #[tokio::test]
    async fn the_latest_events_of_a_store_are_shown_in_order() {
        let file = std::env::temp_dir().join(format!("genfleet-events-{}.db", std::process::id()));
        let store = SqliteQueue::open(&file, Role::Tool, Arc::new(SystemClock)).unwrap();
        let to = Destination::Event { kind: "cdn.purge".to_owned(), outcome: "succeeded" };
        let event = |number: usize| Publication {
            to: to.clone(),
            message: Message { body: number.to_string().into(), ..Message::default() },
        };
        store.publish((0..PAGE + 7).map(event).collect()).await.unwrap();
        let (events, sequence) = latest(&store, 3).await.unwrap();
        let bodies: Vec<_> = events.iter().map(|event| event.body.as_ref()).collect();
        assert_eq!(bodies, [b"504", b"505", b"506"]);
        assert!(store.events_after(sequence, 1).await.unwrap().is_empty());
        assert_eq!(latest(&store, PAGE * 2).await.unwrap().0.len(), PAGE + 7);
        store.close().await;
        SqliteQueue::remove(&file).unwrap();
    }
}
