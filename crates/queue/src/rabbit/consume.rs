//! The consuming connection: one [`DeliveryBuffer`] for each kind, which outlives sessions, and the session that fills
//! them ([`super::serve`]). Does not know what a delivery is worth.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{
    Shared, counts,
    health::Role,
    kind_consumer::{KindConsumer, KindFlows},
    lock::{self, Lock},
    session::{Link, SessionError, Work},
    topology_check, unknown_kinds,
};
use crate::{Delivery, Settler};
use genfleet_job::{Kind, message::Lane};

/// How long a probe waits for the broker to hand out one message.
const PROBE: Duration = Duration::from_secs(5);

/// A quorum queue has at most 32 settlements of a channel in hand; further ones wait in the channel, and are
/// lost with it. They get this long before the connection is closed.
const SETTLING: Duration = Duration::from_millis(250);

/// What the session of an intake does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConsumeState {
    /// There is no session.
    Absent,
    /// It consumes, or is about to, or has not stopped yet.
    Open,
    /// It does not consume.
    Closed,
}

/// What asks for one message while the intake is closed.
pub(super) type Probe = oneshot::Sender<Option<Delivery>>;

/// The deliveries of one kind, from whichever session is there.
#[derive(Debug)]
pub(super) struct DeliveryBuffer {
    pub(super) kind: Kind,
    pub(super) prefetch: u16,
    /// What the worker wants; sessions follow.
    pub(super) wanted: watch::Sender<bool>,
    /// What the session does.
    pub(super) running: watch::Sender<ConsumeState>,
    probe: mpsc::Sender<Probe>,
    /// Held by the session that serves this intake.
    pub(super) probes: tokio::sync::Mutex<mpsc::Receiver<Probe>>,
    lanes: Mutex<BufferedLanes>,
    arrived: Notify,
    suspect_arrived: Notify,
    /// Whether anybody ever asked for a suspect: until then none is taken from the broker, whose count would rise with
    /// the end of this process.
    suspects_wanted: watch::Sender<bool>,
}

/// Handed over by the broker, not taken yet: the prefetch bounds it.
#[derive(Debug, Default)]
struct BufferedLanes {
    jobs: VecDeque<Delivery>,
    resume: VecDeque<Delivery>,
    suspects: VecDeque<Delivery>,
    begun_next: bool,
}

impl DeliveryBuffer {
    pub(super) fn new(kind: Kind, concurrency: usize) -> Self {
        let (probe, probes) = mpsc::channel(1);
        Self {
            kind,
            prefetch: u16::try_from(concurrency.max(1)).unwrap_or(u16::MAX),
            wanted: watch::Sender::new(true),
            running: watch::Sender::new(ConsumeState::Absent),
            probe,
            probes: tokio::sync::Mutex::new(probes),
            lanes: Mutex::default(),
            arrived: Notify::new(),
            suspect_arrived: Notify::new(),
            suspects_wanted: watch::Sender::new(false),
        }
    }

    /// Puts what the broker handed over where [`Self::next`] finds it.
    pub(super) fn put(&self, delivery: Delivery) {
        let lane = delivery.lane;
        self.lanes().of(lane).push_back(delivery);
        match lane {
            Lane::Jobs | Lane::Resume => self.arrived.notify_one(),
            Lane::Suspect => self.suspect_arrived.notify_one(),
        }
    }

    /// Loses no delivery when dropped: one is taken in the same breath in which it is returned.
    pub(super) async fn next(&self) -> Delivery {
        loop {
            if let Some(delivery) = self.lanes().take() {
                return delivery;
            }
            self.arrived.notified().await;
        }
    }

    pub(super) async fn next_suspect(&self) -> Delivery {
        self.suspects_wanted.send_if_modified(|wanted| !std::mem::replace(wanted, true));
        loop {
            if let Some(delivery) = first_fresh(&mut self.lanes().suspects) {
                return delivery;
            }
            self.suspect_arrived.notified().await;
        }
    }

    pub(super) async fn suspects_wanted(&self) {
        // Its sender is in this very value.
        let _ = self.suspects_wanted.subscribe().wait_for(|wanted| *wanted).await;
    }

    pub(super) fn open(&self) {
        self.wanted.send_replace(true);
    }

    /// A session says [`ConsumeState::Open`] before it looks at what is wanted: either it sees this wish, or it is
    /// seen here and waited for.
    pub(super) async fn close(&self) -> Vec<Delivery> {
        self.wanted.send_replace(false);
        let _ = self.running.subscribe().wait_for(|running| *running != ConsumeState::Open).await;
        self.lanes().clear().into_iter().filter(|delivery| !delivery.settler.is_stale()).collect()
    }

    pub(super) async fn take_one(&self) -> Option<Delivery> {
        if *self.running.borrow() != ConsumeState::Closed {
            return None;
        }
        let (probe, answer) = oneshot::channel();
        self.probe.try_send(probe).ok()?;
        // An answer that comes later finds nobody, is dropped, and so is given back.
        timeout(PROBE, answer).await.ok()?.ok()?
    }

    /// What a dead session handed over comes again by the next one.
    fn session_over(&self) {
        drop(self.lanes().clear());
        self.running.send_replace(ConsumeState::Absent);
    }

    fn lanes(&self) -> MutexGuard<'_, BufferedLanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BufferedLanes {
    fn of(&mut self, lane: Lane) -> &mut VecDeque<Delivery> {
        match lane {
            Lane::Jobs => &mut self.jobs,
            Lane::Resume => &mut self.resume,
            Lane::Suspect => &mut self.suspects,
        }
    }

    /// In turns, so that neither new nor begun jobs hold up the others.
    fn take(&mut self) -> Option<Delivery> {
        let order = if self.begun_next { [Lane::Resume, Lane::Jobs] } else { [Lane::Jobs, Lane::Resume] };
        let delivery = order.into_iter().find_map(|lane| first_fresh(self.of(lane)))?;
        self.begun_next = delivery.lane == Lane::Jobs;
        Some(delivery)
    }

    fn clear(&mut self) -> Vec<Delivery> {
        let lanes = [Lane::Resume, Lane::Jobs, Lane::Suspect];
        lanes.into_iter().flat_map(|lane| std::mem::take(self.of(lane))).collect()
    }
}

/// The first that is to be worked.
fn first_fresh(lane: &mut VecDeque<Delivery>) -> Option<Delivery> {
    std::iter::from_fn(|| lane.pop_front()).find_map(fresh)
}

/// The delivery, if it can be settled and has not been: what comes again because its acknowledgement was lost is
/// acknowledged.
pub(super) fn fresh(delivery: Delivery) -> Option<Delivery> {
    match delivery.settler {
        Settler::Rabbit(settler) if settler.is_stale() => None,
        Settler::Rabbit(settler) if settler.was_settled() => {
            tracing::debug!(lane = delivery.lane.as_str(), "settled before: acknowledged again");
            settler.acknowledge_in_background();
            None
        }
        settler => Some(Delivery { settler, ..delivery }),
    }
}

/// What the consuming connection is for.
pub(super) struct ConsumerConnection {
    shared: Arc<Shared>,
    buffers: watch::Receiver<Vec<Arc<DeliveryBuffer>>>,
}

impl ConsumerConnection {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: shared.clone(), buffers: shared.buffers.subscribe() }
    }

    /// Serves all intakes, also those that come while it runs, until the first fault of any.
    async fn serve(&mut self, link: &Arc<Link>, serving: &mut JoinSet<SessionError>) -> SessionError {
        let mut served = 0;
        let closing = self.shared.closing.clone();
        serving.spawn(counts::count_others(self.shared.clone(), link.clone()));
        serving.spawn(topology_check::look(self.shared.clone(), link.clone()));
        serving.spawn(unknown_kinds::serve(self.shared.clone(), link.clone()));
        loop {
            let buffers = self.buffers.borrow_and_update().clone();
            for buffer in buffers.iter().skip(served) {
                serving.spawn(serve_kind(self.shared.clone(), buffer.clone(), link.clone()));
            }
            served = buffers.len();
            tokio::select! {
                reason = link.session.ended() => return reason,
                Some(ended) = serving.join_next() => return ended.unwrap_or_else(|error| error.to_string()),
                Ok(()) = self.buffers.changed() => {}
                () = closing.cancelled() => {
                    sleep(SETTLING).await;
                    return "the process is stopping".to_owned();
                }
            }
        }
    }
}

/// Serves one kind until the session is lost; one that is worked by one process at a time, once it is this one.
async fn serve_kind(shared: Arc<Shared>, buffer: Arc<DeliveryBuffer>, link: Arc<Link>) -> SessionError {
    let lock = async {
        let alone = buffer.kind.is_exclusive();
        if alone { lock::hold(&shared, &link, buffer.kind).await.map(Some) } else { Ok(None) }
    };
    let lock = match lock.await {
        Ok(lock) => lock,
        Err(lost) => return lost,
    };
    let flows = Arc::new(KindFlows::new(&shared.unsettled, buffer.kind));
    let lanes = KindConsumer::new(&shared, &buffer, &link, &flows).within(lock.as_ref().map(Lock::lease));
    let unproven = async {
        match &lock {
            Some(lock) => lock.proven().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        lost = lanes.until_lost() => lost,
        lost = unproven => lost,
        lost = counts::count(shared, buffer, link, flows) => lost,
    }
}

impl Work for ConsumerConnection {
    const ROLE: Role = Role::Consume;

    async fn wanted(&mut self) {
        let _ = self.buffers.wait_for(|buffers| !buffers.is_empty()).await;
    }

    async fn run(&mut self, link: Arc<Link>) -> SessionError {
        let mut serving = JoinSet::new();
        let lost = self.serve(&link, &mut serving).await;
        link.session.end(lost.clone());
        serving.shutdown().await;
        self.shared.recent.session_lost(Instant::now());
        for buffer in self.buffers.borrow().iter() {
            buffer.session_over();
        }
        lost
    }
}
