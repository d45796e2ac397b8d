//! `genfleet load`: publishes many jobs, at a rate or all at once, waits for their events and reports how long that
//! took.
//!
//! [`source`] creates the jobs, [`publisher`] publishes them at the [`pace`], [`follower`] reads their events,
//! [`ledger`] records the state of each job, [`summary`] prints the results. The jobs are real: workers carry them out.

use genfleet_core::eprint_line;
use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::bail;
use genfleet_core::{
    clock::{SharedClock, SystemClock},
    job::Kind,
    options::{ConfigError, duration, positive_duration},
    queue::{Queue, QueueError, sqlite::Role},
    worker::{QueueOptions, Signals},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout_at},
};
use uuid::Uuid;

use self::{ledger::Ledger, pace::Pace, publisher::LoadEvent, source::JobSource, summary::Summary};
use super::{EXIT_FAILED, block_on, rate::Rate, start};
use crate::terminal::{self, line};

mod follower;
mod ledger;
mod pace;
mod percentiles;
mod publisher;
mod sim;
mod source;
mod summary;

/// Number of jobs if neither a number nor a duration is given.
const DEFAULT_JOBS: u32 = 1_000;
const MOST_JOBS: u32 = 10_000_000;
/// Time to wait for a connection to the broker at the start.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Time between two checks of the connection.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// Time to wait for confirms after the run has ended.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(2);
/// Time between two updates of the progress bar.
const SHOW_INTERVAL: Duration = Duration::from_millis(200);

/// The jobs, their number and their rate.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Kind of the jobs, e.g. cdn.purge
    kind: Kind,

    /// Number of jobs [default: 1000, or as many as fit into --duration]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_JOBS)))]
    jobs: Option<u32>,

    /// Jobs a second, independent of how fast they are worked [default: as fast as the queue confirms them]
    #[arg(long, value_name = "N")]
    rate: Option<Rate>,

    /// Duration of publishing jobs
    #[arg(long, value_parser = positive_duration, value_name = "DURATION")]
    duration: Option<Duration>,

    /// The payload of each job, as JSON; in its strings {number}, {run}, {uuid} and {net} (10.B.C, from the number) are
    /// replaced [default: a valid payload of the kind, unique for each job]
    #[arg(long, value_name = "JSON", conflicts_with = "file")]
    payload: Option<String>,

    /// JSON lines, each a payload or a job, used in turn; their strings are replaced as with --payload
    #[arg(long, value_name = "FILE")]
    file: Option<String>,

    /// After the last publication: stop when no event has arrived for this time
    #[arg(long, default_value = "60s", value_parser = duration, value_name = "DURATION")]
    timeout: Duration,

    /// Address of the simulator that the workers use: the number of requests it received is reported, too
    #[arg(long, value_name = "URL")]
    sim_url: Option<String>,

    /// Do not ask for confirmation. Required without a terminal, because workers carry out the jobs
    #[arg(long, short)]
    yes: bool,

    /// Print the summary as JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    queue: QueueOptions,
}

/// Examples at the end of `--help`.
pub(crate) const EXAMPLES: &str = "Examples:
  genfleet load cdn.purge --jobs 10000 --yes                    as fast as possible
  genfleet load file.scan --rate 50 --duration 5m               at a fixed rate for five minutes
  genfleet load cdn.purge --payload '{\"paths\":[\"/try/{number}\"]}'    with your own payloads";

/// Publishes the jobs, waits for their events and prints the summary; exit code 1 if a job has no event.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    start()?;
    options.queue.check()?;
    let run = Uuid::new_v4().simple().to_string()[..8].to_owned();
    let source = JobSource::new(options.kind, &run, options.payload.as_deref(), options.file.as_deref())?;
    let plan = LoadPlan::of(options);
    if !confirm(options, &plan)? {
        eprint_line!("nothing was published");
        return Ok(ExitCode::from(EXIT_FAILED));
    }
    let summary = block_on(load(options, plan, source, &run))?;
    summary.print(options.json)?;
    Ok(if summary.is_complete() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILED) })
}

/// The maximum number of jobs, their rate, and how long they are published.
#[derive(Clone, Copy, Debug, PartialEq)]
struct LoadPlan {
    jobs: u32,
    rate: Option<Rate>,
    duration: Option<Duration>,
}

impl LoadPlan {
    fn of(options: &Options) -> Self {
        let Options { jobs, rate, duration, .. } = options;
        let fitting = match (rate, duration) {
            (Some(rate), Some(duration)) => Some(rate.within(*duration).clamp(1, MOST_JOBS)),
            (None, Some(_)) => Some(MOST_JOBS),
            (_, None) => None,
        };
        let jobs = jobs.or(fitting).unwrap_or(DEFAULT_JOBS);
        Self { jobs, rate: *rate, duration: *duration }
    }

    /// Describes the plan for people: `1000 jobs at 50 a second`.
    fn describe(&self) -> String {
        let many = match (self.jobs, self.duration) {
            (MOST_JOBS, Some(duration)) => format!("jobs for {duration:?}"),
            (jobs, _) => terminal::count(jobs, "job"),
        };
        self.rate.map_or(many.clone(), |rate| format!("{many} at {rate} a second"))
    }
}

/// Asks for confirmation, because the jobs change data of the workers' organisation, which this command does not know.
fn confirm(options: &Options, plan: &LoadPlan) -> anyhow::Result<bool> {
    if options.yes {
        return Ok(true);
    }
    let what = format!("{} of {}", plan.describe(), options.kind);
    if !terminal::can_ask() {
        let message =
            format!("{what} would be carried out for real by the workers of this queue: add --yes if this is intended");
        return Err(ConfigError::new(message).into());
    }
    Ok(terminal::ask(&format!("{what}: the workers of this queue carry them out for real. Continue?"))?)
}

async fn load(options: &Options, plan: LoadPlan, source: JobSource, run: &str) -> anyhow::Result<Summary> {
    let mut signals = Signals::listen()?;
    let clock: SharedClock = Arc::new(SystemClock);
    let queue = options.queue.open("genfleet load", Role::Tool, &[options.kind], clock)?;
    // The follower needs the topology: it binds its queue to the exchange of the events.
    wait_for_connection(&queue).await?;
    let (sender, mut events) = mpsc::channel(1_000);
    let follower = follower::start(&options.queue, run, sender.clone()).await?;
    let requests_before = sim::read_received(options.sim_url.as_deref()).await?;
    let mut ledger = Ledger::new(plan.jobs, run);
    let progress = terminal::progress_bar(plan.jobs.into(), "{bar:30} {pos}/{len} ended  {msg}  {elapsed}");
    let pace = Pace::new(plan.rate, Instant::now());
    let until = plan.duration.map(|duration| Instant::now() + duration);
    let publisher = publisher::start(queue.clone(), source, pace, (plan.jobs, until), sender);
    let mut show = tokio::time::interval(SHOW_INTERVAL);
    let interrupted = loop {
        let deadline = ledger.gives_up(options.timeout);
        tokio::select! {
            event = events.recv() => match event {
                Some(event) => record(event, &mut ledger)?,
                None => break false,
            },
            _ = show.tick() => {
                progress.set_position(ledger.totals.ended.into());
                progress.set_message(format!("{} published", ledger.totals.confirmed));
            }
            _ = signals.next() => break true,
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => break false,
        }
        if ledger.is_complete() {
            break false;
        }
    };
    publisher.abort();
    follower.abort();
    // The queue may still confirm publications.
    let until = Instant::now() + CONFIRM_TIMEOUT;
    while let Ok(Some(event)) = timeout_at(until, events.recv()).await {
        record(event, &mut ledger)?;
    }
    progress.finish_and_clear();
    let requests_after = sim::read_received(options.sim_url.as_deref()).await?;
    queue.close().await;
    let received = requests_after.zip(requests_before).map(|(after, before)| after.saturating_sub(before));
    Ok(Summary::new(options.kind, run, &ledger, received, interrupted))
}

fn record(event: LoadEvent, ledger: &mut Ledger) -> anyhow::Result<()> {
    match event {
        LoadEvent::Sent(number, at) => ledger.record_sent(number, at),
        LoadEvent::Confirmed(numbers) => ledger.record_confirmed(numbers, Instant::now()),
        LoadEvent::AllSent(jobs) => ledger.record_all_sent(jobs, Instant::now()),
        LoadEvent::Ended(ended, at) => ledger.record_ended(&ended, at),
        LoadEvent::Found(ended, at) => ledger.record_found(&ended, at),
        LoadEvent::Warning(message) => eprint_line!("warning: {}", line(&message)),
        LoadEvent::Fault(error) => return Err(error),
    }
    Ok(())
}

/// Waits until the queue accepts publications.
async fn wait_for_connection(queue: &Queue) -> anyhow::Result<()> {
    let until = Instant::now() + CONNECT_TIMEOUT;
    loop {
        let problems = queue.health().problems;
        if problems.is_empty() {
            return Ok(());
        }
        if Instant::now() >= until {
            queue.close().await;
            bail!(QueueError::Broker(problems.join("; ")));
        }
        sleep(CHECK_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(jobs: Option<u32>, rate: Option<&str>, seconds: Option<u64>) -> LoadPlan {
        let rate = rate.map(|rate| rate.parse().unwrap());
        let fitting = Options {
            kind: Kind::CdnPurge,
            jobs,
            rate,
            duration: seconds.map(Duration::from_secs),
            payload: None,
            file: None,
            timeout: Duration::ZERO,
            sim_url: None,
            yes: false,
            json: false,
            queue: queue_options(),
        };
        LoadPlan::of(&fitting)
    }

    fn queue_options() -> QueueOptions {
        #[derive(clap::Parser)]
        struct Program {
            #[command(flatten)]
            queue: QueueOptions,
        }
        <Program as clap::Parser>::parse_from(["program"]).queue
    }

    #[test]
    fn the_number_of_jobs_is_the_given_one_or_as_many_as_fit() {
        assert_eq!(plan(None, None, None).jobs, DEFAULT_JOBS);
        assert_eq!(plan(Some(7), Some("100"), Some(60)).jobs, 7);
        assert_eq!(plan(None, Some("50"), Some(60)).jobs, 3_000);
        assert_eq!(plan(None, None, Some(60)).jobs, MOST_JOBS);
        assert_eq!(plan(None, Some("0.5"), None).describe(), "1000 jobs at 0.5 a second");
    }
}
