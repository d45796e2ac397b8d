//! `genfleet events`: prints the events of ended jobs, from either queue.
//!
//! The latest events are shown in their order. Neither queue can be read from its end, so all stored events are read
//! (on `RabbitMQ` they are then returned), and the latest are kept in memory.

use genfleet_core::eprint_line;
use std::process::ExitCode;

use genfleet_core::{
    queue::rabbit::FollowedEvent,
    worker::{QueueOptions, Signals},
};

use super::{block_on, start};
use crate::terminal::{self, Reader, lines};

/// The selection of events.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Continue with new events until stopped; on RabbitMQ also through restarts of the broker
    #[expect(clippy::doc_markdown, reason = "this is what --help shows")]
    #[arg(long)]
    follow: bool,

    /// Maximum number of stored events, the latest in order; all stored events are read
    #[arg(long, default_value = "1000", value_name = "N")]
    limit: usize,

    /// Print JSON; the output is JSON in any case
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

/// Prints an event on each line.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    start()?;
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
    let inspector = options.queue.inspect("genfleet events")?;
    if !options.follow {
        for event in inspector.latest_events(options.limit).await? {
            if line(&event)? == Reader::Gone {
                break;
            }
        }
        return Ok(());
    }
    let mut follower = inspector.follow_events(options.limit).await?;
    loop {
        match follower.next().await? {
            FollowedEvent::Event(event) if line(&event)? == Reader::Gone => return Ok(()),
            FollowedEvent::Event(_) => {}
            FollowedEvent::Lost(reason) => {
                eprint_line!("warning: {}; going on once the broker is back", terminal::line(&reason));
            }
            FollowedEvent::Back => eprint_line!("warning: the broker is back; events of the meantime: genfleet events"),
        }
    }
}

fn line(event: &[u8]) -> anyhow::Result<Reader> {
    // Valid JSON contains no control characters except line breaks and tabs.
    terminal::print_line(lines(&String::from_utf8_lossy(event)))
}
