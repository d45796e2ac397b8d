//! `genfleet show`: prints everything that is known about one job: its events, its dead letters, where it waits
//! (embedded queue), its webhook deliveries and its audit facts. Removes nothing.

use genfleet_core::eprint_line;
use std::{path::PathBuf, process::ExitCode};

use self::{known::Known, webhooks::Delivery};
use super::{
    EXIT_FAILED,
    audit::{chain_files, files_here},
    block_on,
    dead::{self, filter::has_id},
    start,
};
use crate::terminal;
use genfleet_core::{
    job::Kind,
    queue::{
        QueueInspector,
        dead_letters::{DeadLetter, DeadLetterQueue},
    },
    worker::QueueOptions,
};

mod audit;
mod events;
mod known;
mod text;
mod waiting;
mod webhooks;

/// Maximum number of dead letters that are shown of one job.
const LETTERS: usize = 20;

/// The job, its queue and its audit files.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// The job's id
    #[arg(value_name = "JOBID")]
    id: String,

    /// Audit files to search; of a folder, its *.jsonl files [default: the files genfleet-audit-*.jsonl here, and those
    /// of GENFLEET_AUDIT_LOG]
    #[expect(clippy::doc_markdown, reason = "this is what --help shows")]
    #[arg(long, value_delimiter = ',', value_name = "FILE")]
    audit: Vec<PathBuf>,

    /// Print one JSON object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    queue: QueueOptions,
}

/// Examples at the end of `--help`.
pub(crate) const EXAMPLES: &str = "Examples:
  genfleet show release-42
  genfleet show release-42 --audit genfleet-audit-purger.jsonl --json";

/// Prints what is known; exit code 1 if nothing is known.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    start()?;
    let files = if options.audit.is_empty() { files_here()? } else { chain_files(&options.audit)? };
    let facts = audit::facts(&files, &options.id)?;
    let known = Known { facts, ..block_on(read(options))? };
    if options.json {
        terminal::print_line(known.json(&options.id))?;
    } else if !known.is_nothing() {
        terminal::print_escaped(text::text(&options.id, &known, terminal::Paint::stdout()))?;
    }
    if known.is_nothing() {
        eprint_line!(
            "error: nothing is known of {}: it has not ended on this queue, or its events are no longer kept",
            options.id
        );
        if known.waiting.is_none() {
            eprint_line!("hint: jobs that wait in RabbitMQ cannot be shown; genfleet status counts them");
        }
        return Ok(ExitCode::from(EXIT_FAILED));
    }
    Ok(ExitCode::SUCCESS)
}

async fn read(options: &Options) -> anyhow::Result<Known> {
    let inspector = options.queue.inspect("genfleet show")?;
    let mut known = Known { events: events::of(&inspector, &options.id).await?, ..Known::default() };
    dead_letters(&inspector, &options.id, &mut known).await?;
    if let Some((places, deliveries)) = waiting::of(&inspector, &options.id).await? {
        known.waiting = Some(places);
        known.deliveries.extend(deliveries);
    }
    inspector.close().await;
    Ok(known)
}

/// Adds the job's latest dead letters of all queues, and the failed webhook deliveries of its events.
async fn dead_letters(inspector: &QueueInspector, id: &str, known: &mut Known) -> anyhow::Result<()> {
    let Known { letters, deliveries, .. } = known;
    for queue in dead::queues::existing(inspector, DeadLetterQueue::dead().chain([DeadLetterQueue::Unrouted])).await? {
        let mut browser = inspector.browse(queue, 0).await?;
        while let Some(stored) = browser.next().await? {
            browser.keep(&stored);
            let letter = DeadLetter::read(stored);
            if letter.kind == Some(Kind::WebhookDeliver) && deliveries.len() < LETTERS {
                deliveries.extend(Delivery::failed(&letter, id));
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
