//! `genfleet status`: what waits, what runs, what is shut and why, who is alive. Counts are the queue's own; the rest is what
//! processes tell of themselves: over the fleet's exchange, or in the notice beside the store. Takes nothing away.

use genfleet_core::tell;
use std::{process::ExitCode, time::Duration};

use genfleet_core::{
    clock::{Clock, SystemClock},
    http::install_tls,
    options::{format_duration, positive_duration},
    telemetry::{self, LogFormat},
    worker::{QueueOptions, Signals},
};

use self::{look::Look, seen::Seen};
use super::{EXIT_FAILED, block_on};
use crate::terminal::{self, Paint, Reader, line};

mod look;
mod seen;
mod table;
mod text;

/// Which queue, and how often.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Show it again and again until stopped
    #[arg(long, value_name = "INTERVAL", num_args = 0..=1, default_missing_value = "2s", value_parser = positive_duration)]
    watch: Option<Duration>,

    /// One JSON object; with --watch one a line
    #[arg(long)]
    json: bool,

    /// Exit 1 while something is wrong: a brake or a gate is shut, jobs wait that nobody alive works, a queue is missing
    #[arg(long, conflicts_with = "watch")]
    check: bool,

    /// How long processes may take to answer (RabbitMQ)
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
  genfleet status --watch                    every two seconds
  genfleet status --watch 10s --json | jq .  for a program
  genfleet status --json | jq '.kinds[] | select(.dead > 0)'";

/// Prints it, once or until stopped.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    telemetry::start_logs(LogFormat::Text, "error")?;
    install_tls();
    options.queue.check()?;
    block_on(async {
        let mut signals = Signals::listen()?;
        let wrong = tokio::select! {
            shown = show(options) => shown?,
            _ = signals.next() => false,
        };
        Ok(if options.check && wrong { ExitCode::from(EXIT_FAILED) } else { ExitCode::SUCCESS })
    })
}

/// Whether something was wrong at the last look.
async fn show(options: &Options) -> anyhow::Result<bool> {
    let mut look = Look::begin(&options.queue).await?;
    let Some(interval) = options.watch else {
        let seen = look.seen(options.listen).await?;
        print(&seen, options)?;
        look.close().await;
        return Ok(!seen.problems().is_empty());
    };
    let mut listen = options.listen;
    loop {
        match look.seen(listen).await {
            Ok(seen) => {
                if print(&seen, options)? == Reader::Gone {
                    return Ok(!seen.problems().is_empty());
                }
            }
            // Whoever watches over a restart goes on watching.
            Err(error) => {
                tell!("warning: {}; looking again", line(&error.to_string()));
                tokio::time::sleep(interval).await;
                if let Ok(again) = Look::begin(&options.queue).await {
                    look = again;
                }
            }
        }
        listen = interval;
    }
}

fn print(seen: &Seen, options: &Options) -> anyhow::Result<Reader> {
    if options.json {
        return terminal::say(seen.json());
    }
    let text = text::text(seen, Paint::stdout());
    match options.watch {
        Some(interval) if terminal::can_clear() => {
            let now = format!("{:.0}, every {}; Ctrl-C ends", SystemClock.now(), format_duration(interval));
            terminal::put_exactly(terminal::CLEAR)?;
            terminal::put(format!("{}\n\n{text}", Paint::stdout().dim(&now)))
        }
        Some(_) => terminal::put(format!("{:.0}\n{text}\n", SystemClock.now())),
        None => {
            let reader = terminal::put(text)?;
            seen.hints().iter().for_each(|hint| tell!("{}", Paint::stderr().dim(&format!("hint: {hint}"))));
            Ok(reader)
        }
    }
}
