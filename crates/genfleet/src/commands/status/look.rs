//! Where it is looked: a broker that counts and a fleet that answers, or a store and the notice beside it.

use genfleet_core::tell;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

use genfleet_core::{
    clock::{Clock, SharedClock, SystemClock},
    genesys::Credentials,
    job::Kind,
    membership::{FleetListener, read_live_status},
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

use super::seen::{OfKind, RunningIs, Seen};

/// Of each kind: new, begun, suspect, dead.
const QUEUES: usize = 4;

/// What is looked at, again and again.
pub(super) enum Look {
    /// A broker.
    Broker { inspector: RabbitInspector, prefix: String, listener: Option<Box<FleetListener>> },
    /// A file.
    Store { store: SqliteQueue, first: bool },
}

impl Look {
    /// Connects, or opens; nobody is asked anything yet.
    pub(super) async fn begin(options: &QueueOptions) -> anyhow::Result<Self> {
        let Some(file) = options.sqlite_file()? else {
            let inspector = RabbitInspector::connect(options.rabbit("genfleet status")?).await?;
            let listener = match FleetListener::begin(&inspector, credentials().as_ref()).await {
                Ok(listener) => Some(Box::new(listener)),
                Err(error) => {
                    tell!("warning: who is alive cannot be heard: {}", crate::terminal::line(&error.to_string()));
                    None
                }
            };
            return Ok(Self::Broker { inspector, prefix: options.queue_prefix.clone(), listener });
        };
        if !file.exists() {
            return Err(ConfigError::new(format!("no store {}: name one that is there", file.display())).into());
        }
        let clock: SharedClock = Arc::new(SystemClock);
        Ok(Self::Store { store: SqliteQueue::open(&file, Role::Tool, clock)?, first: true })
    }

    /// Looks; whoever is alive has `listen` to say so.
    pub(super) async fn seen(&mut self, listen: Duration) -> Result<Seen, QueueError> {
        match self {
            Self::Broker { inspector, prefix, listener } => {
                let processes = match listener {
                    Some(listener) => Some(listener.listen(listen).await?),
                    None => None,
                };
                let mut seen = counted(inspector, prefix).await?;
                seen.processes = processes;
                seen.add_told(RunningIs::Told);
                Ok(seen)
            }
            Self::Store { store, first } => {
                if !std::mem::replace(first, false) {
                    sleep(listen).await;
                }
                in_store(store).await
            }
        }
    }

    /// Says goodbye.
    pub(super) async fn close(self) {
        match self {
            Self::Broker { inspector, .. } => inspector.close().await,
            Self::Store { store, .. } => store.close().await,
        }
    }
}

/// Whose words can be verified; all can be shown without.
fn credentials() -> Option<Credentials> {
    Credentials::of_environment().unwrap_or_else(|error| {
        tell!(
            "warning: what processes tell of themselves cannot be verified: {}",
            crate::terminal::line(&error.to_string())
        );
        None
    })
}

async fn counted(inspector: &RabbitInspector, prefix: &str) -> Result<Seen, QueueError> {
    let of_kind = |kind: Kind| {
        let lanes = [Lane::Jobs, Lane::Resume, Lane::Suspect].map(|lane| lane_queue(prefix, lane, kind));
        lanes.into_iter().chain([dead_queue(prefix, kind)])
    };
    let of_kinds: Vec<String> = Kind::ALL.into_iter().flat_map(of_kind).collect();
    let delays: Vec<String> = delay_queues(prefix).collect();
    let all = [of_kinds.clone(), vec![unrouted(prefix)], delays].concat();
    let counts: Vec<Option<u64>> =
        inspector.counts(&all).await?.into_iter().map(|count| count.map(u64::from)).collect();
    let (kinds, others) = counts.split_at(of_kinds.len());
    if kinds.iter().all(Option::is_none) {
        return Err(QueueError::Missing(format!("there is no queue {}, nor any other of this fleet's", of_kinds[0])));
    }
    let kind = |(kind, counts): (Kind, &[Option<u64>])| {
        let [waiting, begun, suspect, dead] = [0, 1, 2, 3].map(|index| counts.get(index).copied().flatten());
        (kind, OfKind { waiting, begun, suspect, dead, ..OfKind::default() })
    };
    Ok(Seen {
        queue: "rabbitmq",
        kinds: Kind::ALL.into_iter().zip(kinds.chunks(QUEUES)).map(kind).collect(),
        unrouted: others.first().copied().flatten(),
        delayed: others.iter().skip(1).copied().sum(),
        ..Seen::default()
    })
}

async fn in_store(store: &SqliteQueue) -> Result<Seen, QueueError> {
    let counts = store.counts().await?;
    // A notice that cannot be read tells nothing.
    let notice = store.read_status().await.ok().flatten();
    let process = notice.and_then(|text| read_live_status(&text, SystemClock.now()));
    let claimed = if process.is_some() { Claimed::Run } else { Claimed::Wait };
    let mut seen = Seen {
        queue: "sqlite",
        kinds: Kind::ALL.into_iter().map(|kind| (kind, of_store(kind, &counts, claimed))).collect(),
        unknown_dead: unknown(&counts.dead),
        delayed: Some(counts.lanes.values().map(|lane| lane.delayed).sum()),
        processes: Some(process.into_iter().collect()),
        ..Seen::default()
    };
    seen.add_told(RunningIs::Counted);
    Ok(seen)
}

/// What a row is that some process claimed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Claimed {
    /// It runs.
    Run,
    /// Whoever claimed it is gone: the next process gets it back.
    Wait,
}

fn of_store(kind: Kind, counts: &StoreCounts, claimed: Claimed) -> OfKind {
    let lane = |lane| counts.lanes.get(&(kind, lane)).copied().unwrap_or_default();
    let lanes = [Lane::Jobs, Lane::Resume, Lane::Suspect].map(lane);
    let there = |lane: LaneCount| lane.waiting + if claimed == Claimed::Wait { lane.claimed } else { 0 };
    let since = lanes.iter().filter_map(|lane| lane.oldest).min();
    let running = lanes.iter().map(|lane| lane.claimed).sum();
    OfKind {
        waiting: Some(there(lanes[0])),
        begun: Some(there(lanes[1])),
        suspect: Some(there(lanes[2])),
        dead: Some(counts.dead.get(kind.as_str()).copied().unwrap_or_default()),
        running: if claimed == Claimed::Run { running } else { 0 },
        held: if claimed == Claimed::Run { running } else { 0 },
        oldest: since.map(|since| SystemClock.now().duration_since(since).as_secs_f64().max(0.0)),
        ..OfKind::default()
    }
}

fn unknown(dead: &BTreeMap<String, u64>) -> u64 {
    dead.iter().filter(|(kind, _)| kind.parse::<Kind>().is_err()).map(|(_, count)| count).sum()
}
