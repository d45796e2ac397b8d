//! `genfleet status`: shows waiting and running jobs, pauses and holds with their reasons, and the live processes. The
//! queue provides the counts; the processes report everything else, over the fleet's exchange, or in the status file
//! next to the store. Takes no job.

use genfleet_core::eprint_line;
use std::{process::ExitCode, time::Duration};

use genfleet_core::{
    clock::{Clock, SystemClock},
    job::Kind,
    options::{format_duration, positive_duration},
    worker::{QueueOptions, Signals},
};

use self::{report::Report, source::StatusSource};
use super::{EXIT_FAILED, block_on, start};
use crate::terminal::{self, Paint, Reader, line};

mod report;
mod source;
mod table;
mod text;

/// The queue, and how often its status is shown.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Show the status repeatedly until stopped
    #[arg(long, value_name = "INTERVAL", num_args = 0..=1, default_missing_value = "2s", value_parser = positive_duration)]
    watch: Option<Duration>,

    /// Print one JSON object; with --watch one a line
    #[arg(long)]
    json: bool,

    /// Exit with 1 while something is wrong: a pause or a hold is in force, jobs wait that no live process works, a
    /// queue is missing
    #[arg(long, conflicts_with = "watch")]
    check: bool,

    /// Exit with 1 if no process works one of these kinds, also while none of its jobs waits
    #[arg(long, env = "GENFLEET_EXPECT", value_name = "KIND,…", value_delimiter = ',')]
    expect: Vec<Kind>,

    /// Time that processes have to answer (RabbitMQ)
    #[expect(clippy::doc_markdown, reason = "this is what --help shows")]
    #[arg(long, default_value = "1500ms", value_name = "DURATION", value_parser = positive_duration)]
    listen: Duration,

    #[command(flatten)]
    queue: QueueOptions,
}

/// Examples at the end of `--help`.
pub(crate) const EXAMPLES: &str = "Examples:
  genfleet status
  genfleet status --check                    exit 1 while something is wrong
  genfleet status --expect cdn.purge         exit 1 if no process works this kind
  genfleet status --watch                    every two seconds
  genfleet status --watch 10s --json | jq .  for a program
  genfleet status --json | jq '.kinds[] | select(.dead > 0)'";

/// Prints the status, once or until stopped.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    start()?;
    options.queue.check()?;
    block_on(async {
        let mut signals = Signals::listen()?;
        let last = tokio::select! {
            shown = show(options) => Some(shown?),
            _ = signals.next() => None,
        };
        let is_wrong = |report: Report| options.check && !report.problems().is_empty() || report.lacks_expected();
        Ok(if last.is_some_and(is_wrong) { ExitCode::from(EXIT_FAILED) } else { ExitCode::SUCCESS })
    })
}

/// Returns the last report.
async fn show(options: &Options) -> anyhow::Result<Report> {
    let mut source = StatusSource::open(&options.queue).await?;
    let Some(interval) = options.watch else {
        let report = source.report(options.listen).await?.expecting(&options.expect);
        print(&report, options)?;
        source.close().await;
        return Ok(report);
    };
    let mut listen = options.listen;
    loop {
        match source.report(listen).await {
            Ok(report) => {
                let report = report.expecting(&options.expect);
                if print(&report, options)? == Reader::Gone {
                    return Ok(report);
                }
            }
            // The watch continues while a broker restarts.
            Err(error) => {
                eprint_line!("warning: {}; trying again", line(&error.to_string()));
                tokio::time::sleep(interval).await;
                if let Ok(reopened) = StatusSource::open(&options.queue).await {
                    source = reopened;
                }
            }
        }
        listen = interval;
    }
}

fn print(report: &Report, options: &Options) -> anyhow::Result<Reader> {
    if options.json {
        return terminal::print_line(report.json());
    }
    let text = text::text(report, Paint::stdout());
    match options.watch {
        Some(interval) if terminal::can_clear() => {
            let now = format!("{:.0}, every {}; stop with Ctrl-C", SystemClock.now(), format_duration(interval));
            terminal::print_bytes(terminal::CLEAR)?;
            terminal::print_escaped(format!("{}\n\n{text}", Paint::stdout().dim(&now)))
        }
        Some(_) => terminal::print_escaped(format!("{:.0}\n{text}\n", SystemClock.now())),
        None => {
            let reader = terminal::print_escaped(text)?;
            report.hints().iter().for_each(|hint| eprint_line!("{}", Paint::stderr().dim(&format!("hint: {hint}"))));
            Ok(reader)
        }
    }
}
