//! `genfleet show`: all that is known of one job. A section each: its events, its dead letters, where it waits (embedded
//! queue), its webhook deliveries, its audit facts. Takes nothing away.

use genfleet_core::tell;
use std::{path::PathBuf, process::ExitCode};

use self::{known::Known, webhooks::Delivery};
use super::{
    EXIT_FAILED, block_on,
    dead::{self, filter::has_id},
};
use crate::terminal;
use genfleet_core::{
    http::install_tls,
    job::Kind,
    queue::{
        QueueInspector,
        dead_letters::{DeadLetter, DeadLetterQueue},
    },
    telemetry::{self, LogFormat},
    worker::QueueOptions,
};

mod audit;
mod events;
mod known;
mod text;
mod waiting;
mod webhooks;

/// Letters shown of one job, at most.
const LETTERS: usize = 20;

/// Which job, and where to look.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// The job's id
    #[arg(value_name = "JOBID")]
    id: String,

    /// Audit files to look into as well
    #[arg(long, value_delimiter = ',', value_name = "FILE")]
    audit: Vec<PathBuf>,

    /// One JSON object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    queue: QueueOptions,
}

/// Examples at the end of `--help`.
pub(crate) const EXAMPLES: &str = "Examples:
  genfleet show release-42
  genfleet show release-42 --audit genfleet-audit-purger.jsonl --json";

/// Prints it; exit 1 where there is nothing.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    telemetry::start_logs(LogFormat::Text, "error")?;
    install_tls();
    let facts = audit::facts(&options.audit, &options.id)?;
    let known = Known { facts, ..block_on(look(options))? };
    if options.json {
        terminal::say(known.json(&options.id))?;
    } else if !known.is_nothing() {
        terminal::put(text::text(&options.id, &known, terminal::Paint::stdout()))?;
    }
    if known.is_nothing() {
        tell!("error: nothing is known of {}: it never ended here, or its events are gone from the window", options.id);
        if known.waiting.is_none() {
            tell!("hint: whether a job waits in RabbitMQ cannot be seen; genfleet status counts what waits");
        }
        return Ok(ExitCode::from(EXIT_FAILED));
    }
    Ok(ExitCode::SUCCESS)
}

async fn look(options: &Options) -> anyhow::Result<Known> {
    let shelves = options.queue.inspect("genfleet show")?;
    let mut known = Known { events: events::of(&shelves, &options.id).await?, ..Known::default() };
    dead_letters(&shelves, &options.id, &mut known).await?;
    if let Some((places, deliveries)) = waiting::of(&shelves, &options.id).await? {
        known.waiting = Some(places);
        known.deliveries.extend(deliveries);
    }
    shelves.close().await;
    Ok(known)
}

/// The latest of the job's dead letters, wherever they lie, and the deliveries of its events that were given up.
async fn dead_letters(shelves: &QueueInspector, id: &str, known: &mut Known) -> anyhow::Result<()> {
    let Known { letters, deliveries, .. } = known;
    for queue in dead::queues::existing(shelves, DeadLetterQueue::dead().chain([DeadLetterQueue::Unrouted])).await? {
        let mut browser = shelves.browse(queue, 0).await?;
        while let Some(stored) = browser.next().await? {
            browser.keep(&stored);
            let letter = DeadLetter::read(stored);
            if letter.kind == Some(Kind::WebhookDeliver) && deliveries.len() < LETTERS {
                deliveries.extend(Delivery::given_up(&letter, id));
            }
            if has_id(&letter, id) {
                letters.push(letter);
                letters.drain(..letters.len().saturating_sub(LETTERS));
            }
        }
        browser.close().await?;
    }
    Ok(())
}
