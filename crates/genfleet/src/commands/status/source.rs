//! The sources of a report: the broker's counts and the answers of the processes, or a store and the status file next
//! to it.

use genfleet_core::eprint_line;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

use genfleet_core::{
    clock::{Clock, SharedClock, SystemClock},
    genesys::Credentials,
    job::Kind,
    membership::{FleetListener, MemberStatus, read_live_status},
    message::Lane,
    options::ConfigError,
    queue::{
        QueueError,
        rabbit::RabbitInspector,
        sqlite::{LaneCount, Role, SqliteQueue, StoreCounts},
        topology::{dead_queue, delay_queues, lane_queue, unrouted},
    },
    worker::QueueOptions,
};
use tokio::time::sleep;

use super::report::{KindReport, Report, RunningJobs};

/// Number of queues of a kind: jobs, resume, suspect, dead.
const QUEUES: usize = 4;
/// The reason if the broker does not accept the question to the processes.
const ALARM: &str = "the broker takes no publications (alarm)";

/// The queue from which reports are made.
pub(super) enum StatusSource {
    /// A broker, and the connection on which processes answer.
    Broker { inspector: RabbitInspector, prefix: String, listener: Option<Box<FleetListener>> },
    /// The file of an embedded queue; `first` until the first report is made.
    Store { store: SqliteQueue, first: bool },
}

impl StatusSource {
    /// Connects to the broker, or opens the file.
    pub(super) async fn open(options: &QueueOptions) -> anyhow::Result<Self> {
        let Some(file) = options.sqlite_file()? else {
            let inspector = RabbitInspector::connect(options.rabbit("genfleet status", &[])?).await?;
            return Ok(Self::Broker { inspector, prefix: options.queue_prefix.clone(), listener: None });
        };
        if !file.exists() {
            return Err(ConfigError::new(format!("there is no store {}: name one that exists", file.display())).into());
        }
        let clock: SharedClock = Arc::new(SystemClock);
        Ok(Self::Store { store: SqliteQueue::open(&file, Role::Tool, clock)?, first: true })
    }

    /// Makes a report. Processes have the time `listen` to answer.
    pub(super) async fn report(&mut self, listen: Duration) -> Result<Report, QueueError> {
        match self {
            Self::Broker { inspector, prefix, listener } => {
                let answers = ask_processes(inspector, listener, listen).await;
                let mut report = read_broker(inspector, prefix).await?;
                match answers {
                    Ok(processes) => report.processes = Some(processes),
                    Err(reason) => report.no_answer = reason,
                }
                report.add_processes(RunningJobs::FromProcesses);
                Ok(report)
            }
            Self::Store { store, first } => {
                if !std::mem::replace(first, false) {
                    sleep(listen).await;
                }
                read_store(store).await
            }
        }
    }

    /// Closes the connections, or the file.
    pub(super) async fn close(self) {
        match self {
            Self::Broker { inspector, listener, .. } => {
                if let Some(listener) = listener {
                    listener.close().await;
                }
                inspector.close().await;
            }
            Self::Store { store, .. } => store.close().await,
        }
    }
}

/// Returns the live processes, or the reason why they cannot be asked. A listener that failed is replaced for the next
/// report.
async fn ask_processes(
    inspector: &RabbitInspector,
    listener: &mut Option<Box<FleetListener>>,
    time: Duration,
) -> Result<Vec<MemberStatus>, String> {
    let mut listening = if let Some(listening) = listener.take() {
        listening
    } else {
        let begun = FleetListener::begin(inspector, credentials().as_ref()).await;
        Box::new(begun.map_err(|error| error.to_string())?)
    };
    let answers = listening.listen(time).await.map_err(|error| error.to_string())?;
    *listener = Some(listening);
    answers.ok_or_else(|| ALARM.to_owned())
}

/// Reads the client's credentials, with which the answers of processes can be verified. Unverified answers are shown,
/// too.
fn credentials() -> Option<Credentials> {
    Credentials::of_environment().unwrap_or_else(|error| {
        eprint_line!(
            "warning: the answers of processes cannot be verified: {}",
            crate::terminal::line(&error.to_string())
        );
        None
    })
}

async fn read_broker(inspector: &RabbitInspector, prefix: &str) -> Result<Report, QueueError> {
    let queues_of = |kind: Kind| {
        let lanes = [Lane::Jobs, Lane::Resume, Lane::Suspect].map(|lane| lane_queue(prefix, lane, kind));
        lanes.into_iter().chain([dead_queue(prefix, kind)])
    };
    let of_kinds: Vec<String> = Kind::ALL.into_iter().flat_map(queues_of).collect();
    let delays: Vec<String> = delay_queues(prefix).collect();
    let all = [of_kinds.clone(), vec![unrouted(prefix)], delays].concat();
    let counts: Vec<Option<u64>> =
        inspector.counts(&all).await?.into_iter().map(|count| count.map(u64::from)).collect();
    let (kinds, others) = counts.split_at(of_kinds.len());
    if kinds.iter().all(Option::is_none) {
        return Err(QueueError::Missing(format!(
            "there is no queue {}, and no other queue of this fleet",
            of_kinds[0]
        )));
    }
    let kind = |(kind, counts): (Kind, &[Option<u64>])| {
        let [waiting, begun, suspect, dead] = [0, 1, 2, 3].map(|index| counts.get(index).copied().flatten());
        (kind, KindReport { waiting, begun, suspect, dead, ..KindReport::default() })
    };
    Ok(Report {
        queue: "rabbitmq",
        kinds: Kind::ALL.into_iter().zip(kinds.chunks(QUEUES)).map(kind).collect(),
        unrouted: others.first().copied().flatten(),
        delayed: others.iter().skip(1).copied().sum(),
        ..Report::default()
    })
}

async fn read_store(store: &SqliteQueue) -> Result<Report, QueueError> {
    let counts = store.counts().await?;
    // A status file that cannot be read counts as missing.
    let status = store.read_status().await.ok().flatten();
    let process = status.and_then(|text| read_live_status(&text, SystemClock.now()));
    let is_live = process.is_some();
    let mut report = Report {
        queue: "sqlite",
        kinds: Kind::ALL.into_iter().map(|kind| (kind, kind_in_store(kind, &counts, is_live))).collect(),
        unknown_dead: unknown(&counts.dead),
        delayed: Some(counts.lanes.values().map(|lane| lane.delayed).sum()),
        processes: Some(process.into_iter().collect()),
        ..Report::default()
    };
    report.add_processes(RunningJobs::FromQueue);
    Ok(report)
}

/// Counts the jobs of a kind. Claimed jobs are running if a process is live; else the next process will run them, so
/// they are waiting.
fn kind_in_store(kind: Kind, counts: &StoreCounts, is_live: bool) -> KindReport {
    let lane = |lane| counts.lanes.get(&(kind, lane)).copied().unwrap_or_default();
    let lanes = [Lane::Jobs, Lane::Resume, Lane::Suspect].map(lane);
    let waiting = |lane: LaneCount| lane.waiting + if is_live { 0 } else { lane.claimed };
    let since = lanes.iter().filter_map(|lane| lane.oldest).min();
    let running = if is_live { lanes.iter().map(|lane| lane.claimed).sum() } else { 0 };
    KindReport {
        waiting: Some(waiting(lanes[0])),
        begun: Some(waiting(lanes[1])),
        suspect: Some(waiting(lanes[2])),
        dead: Some(counts.dead.get(kind.as_str()).copied().unwrap_or_default()),
        running,
        held: running,
        oldest: since.map(|since| SystemClock.now().duration_since(since).as_secs_f64().max(0.0)),
        ..KindReport::default()
    }
}

fn unknown(dead: &BTreeMap<String, u64>) -> u64 {
    dead.iter().filter(|(kind, _)| kind.parse::<Kind>().is_err()).map(|(_, count)| count).sum()
}
