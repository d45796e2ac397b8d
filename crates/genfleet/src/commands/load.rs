//! `genfleet load`: many jobs at a rate or all at once, followed to their events, and how long that took.
//!
//! [`source`] makes the jobs, [`publisher`] sends them at the [`pace`], [`follower`] sees their events, [`ledger`] keeps
//! what is known of each, [`summary`] tells it. The jobs are real: whoever works them carries them out.

use genfleet_core::tell;
use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::bail;
use genfleet_core::{
    clock::{SharedClock, SystemClock},
    http::install_tls,
    job::Kind,
    options::{ConfigError, duration, positive_duration},
    queue::{Queue, QueueError, sqlite::Role},
    telemetry::{self, LogFormat},
    worker::{QueueOptions, Signals},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout_at},
};
use uuid::Uuid;

use self::{
    follower::Follower,
    ledger::Ledger,
    pace::Pace,
    progress::Progress,
    publisher::{LoadEvent, Publisher},
    source::Source,
    summary::Summary,
};
use super::{EXIT_FAILED, block_on, rate::Rate};
use crate::terminal::{self, line};

mod follower;
mod ledger;
mod pace;
mod percentiles;
mod progress;
mod publisher;
mod sim;
mod source;
mod summary;

/// Jobs where neither a number nor a duration is given.
const DEFAULT_JOBS: u32 = 1_000;
const MOST_JOBS: u32 = 10_000_000;
/// How long a broker that is away is waited for at the start.
const REACH: Duration = Duration::from_secs(30);
/// Between two looks at whether it is there.
const LOOK: Duration = Duration::from_millis(50);
/// How long confirms are waited for once nothing more is sent.
const LAST_MOMENT: Duration = Duration::from_secs(2);
/// Between two looks at what came.
const SHOW: Duration = Duration::from_millis(200);

/// Which jobs, how many, how fast.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// What they ask for, e.g. cdn.purge
    kind: Kind,

    /// So many [default: 1000, or as many as fit into --duration]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_JOBS)))]
    jobs: Option<u32>,

    /// So many a second, whatever becomes of them [default: as fast as the queue confirms them]
    #[arg(long, value_name = "N")]
    rate: Option<Rate>,

    /// For so long
    #[arg(long, value_parser = positive_duration, value_name = "DURATION")]
    duration: Option<Duration>,

    /// The payload of each job, as JSON; in its texts {number}, {run}, {uuid} and {net} (10.B.C, from the number) are replaced [default: a valid one of the
    /// kind, unique for each job]
    #[arg(long, value_name = "JSON", conflicts_with = "file")]
    payload: Option<String>,

    /// JSON lines, a payload or a job each, used in turn; their texts as with --payload
    #[arg(long, value_name = "FILE")]
    file: Option<String>,

    /// After the last publication: give up when no event came for so long
    #[arg(long, default_value = "60s", value_parser = duration, value_name = "DURATION")]
    timeout: Duration,

    /// Where a simulator listens that the workers talk to: the requests it received are reported, too
    #[arg(long, value_name = "URL")]
    sim_url: Option<String>,

    /// Do not ask. Needed where there is no terminal: the jobs are carried out for real
    #[arg(long, short)]
    yes: bool,

    /// Tell the summary as JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    queue: QueueOptions,
}

/// Examples at the end of `--help`.
pub(crate) const EXAMPLES: &str = "Examples:
  genfleet load cdn.purge --jobs 10000 --yes                    as fast as it goes
  genfleet load file.scan --rate 50 --duration 5m               at a pace, for a while
  genfleet load cdn.purge --payload '{\"paths\":[\"/try/{number}\"]}'    with payloads of one's own";

/// Makes the jobs, waits for their events and tells what came of them; exit 1 where a job has no event.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    telemetry::start_logs(LogFormat::Text, "error")?;
    install_tls();
    options.queue.check()?;
    let run = Uuid::new_v4().simple().to_string()[..8].to_owned();
    let source = Source::new(options.kind, &run, options.payload.as_deref(), options.file.as_deref())?;
    let plan = Plan::of(options);
    if !agreed(options, &plan)? {
        tell!("nothing was published");
        return Ok(ExitCode::from(EXIT_FAILED));
    }
    let summary = block_on(load(options, plan, source, &run))?;
    summary.print(options.json)?;
    Ok(if summary.is_complete() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILED) })
}

/// How many jobs at most, and for how long.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Plan {
    jobs: u32,
    rate: Option<Rate>,
    duration: Option<Duration>,
}

impl Plan {
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

    /// For people.
    fn describe(&self) -> String {
        let many = match (self.jobs, self.duration) {
            (MOST_JOBS, Some(duration)) => format!("jobs for {duration:?}"),
            (jobs, _) => terminal::count(jobs, "job"),
        };
        self.rate.map_or(many.clone(), |rate| format!("{many} at {rate} a second"))
    }
}

/// The jobs change things in whatever organisation the workers are for, which nobody knows here.
fn agreed(options: &Options, plan: &Plan) -> anyhow::Result<bool> {
    if options.yes {
        return Ok(true);
    }
    let what = format!("{} of {}", plan.describe(), options.kind);
    if !terminal::can_ask() {
        let message =
            format!("{what} would be carried out for real by whoever works this queue: say --yes if that is meant");
        return Err(ConfigError::new(message).into());
    }
    Ok(terminal::ask(&format!("{what}: whoever works this queue carries them out for real. Go on?"))?)
}

async fn load(options: &Options, plan: Plan, source: Source, run: &str) -> anyhow::Result<Summary> {
    let mut signals = Signals::listen()?;
    let clock: SharedClock = Arc::new(SystemClock);
    let queue =
        options.queue.open("genfleet load", Role::Tool, clock).map_err(|error| ConfigError::new(error.to_string()))?;
    // The topology first: who follows binds to the exchange of the events.
    reach(&queue).await?;
    let (message, mut reports) = mpsc::channel(1_000);
    let follower = Follower::begin(&options.queue, run, message.clone()).await?;
    let requests_before = sim::received(options.sim_url.as_deref()).await?;
    let mut ledger = Ledger::new(plan.jobs, run);
    let progress = Progress::new(u64::from(plan.jobs));
    let pace = Pace::new(plan.rate, Instant::now());
    let until = plan.duration.map(|duration| Instant::now() + duration);
    let publisher = Publisher::start(queue.clone(), source, pace, (plan.jobs, until), message);
    let mut show = tokio::time::interval(SHOW);
    let interrupted = loop {
        let patience = ledger.gives_up(options.timeout);
        tokio::select! {
            report = reports.recv() => match report {
                Some(report) => take(report, &mut ledger)?,
                None => break false,
            },
            _ = show.tick() => progress.show(&ledger),
            _ = signals.next() => break true,
            () = until_then(patience) => break false,
        }
        if ledger.is_complete() {
            break false;
        }
    };
    publisher.stop();
    follower.stop();
    // What the queue still confirms of what is under way.
    let until = Instant::now() + LAST_MOMENT;
    while let Ok(Some(report)) = timeout_at(until, reports.recv()).await {
        take(report, &mut ledger)?;
    }
    progress.done();
    let requests_after = sim::received(options.sim_url.as_deref()).await?;
    queue.close().await;
    let received = requests_after.zip(requests_before).map(|(after, before)| after.saturating_sub(before));
    Ok(Summary::new(options.kind, run, &ledger, received, interrupted))
}

fn take(report: LoadEvent, ledger: &mut Ledger) -> anyhow::Result<()> {
    match report {
        LoadEvent::Sent(number, at) => ledger.sent(number, at),
        LoadEvent::Confirmed(numbers) => ledger.confirmed(numbers, Instant::now()),
        LoadEvent::AllSent(jobs) => ledger.all_sent(jobs, Instant::now()),
        LoadEvent::Ended(ended, at) => ledger.ended(&ended, at),
        LoadEvent::Found(ended, at) => ledger.found(&ended, at),
        LoadEvent::Warning(message) => tell!("warning: {}", line(&message)),
        LoadEvent::Fault(error) => return Err(error),
    }
    Ok(())
}

async fn until_then(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// Waits until the queue takes publications.
async fn reach(queue: &Queue) -> anyhow::Result<()> {
    let until = Instant::now() + REACH;
    loop {
        let problems = queue.health().problems;
        if problems.is_empty() {
            return Ok(());
        }
        if Instant::now() >= until {
            queue.close().await;
            bail!(QueueError::Broker(problems.join("; ")));
        }
        sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(jobs: Option<u32>, rate: Option<&str>, seconds: Option<u64>) -> Plan {
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
        Plan::of(&fitting)
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
    fn as_many_jobs_as_fit_or_as_are_asked_for() {
        assert_eq!(plan(None, None, None).jobs, DEFAULT_JOBS);
        assert_eq!(plan(Some(7), Some("100"), Some(60)).jobs, 7);
        assert_eq!(plan(None, Some("50"), Some(60)).jobs, 3_000);
        assert_eq!(plan(None, None, Some(60)).jobs, MOST_JOBS);
        assert_eq!(plan(None, Some("0.5"), None).describe(), "1000 jobs at 0.5 a second");
    }
}
