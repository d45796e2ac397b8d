//! The deliveries of one kind that the worker has not taken yet. A buffer outlives sessions; each session in turn fills
//! it.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::timeout,
};

use super::settle::RabbitSettler;
use crate::{defect::MessageDefect, message::Delivery};
use genfleet_job::{
    Kind,
    message::{Lane, Message},
};
use genfleet_telemetry::trace::Span;

/// Maximum wait of a probe for the broker to hand out one message.
const PROBE: Duration = Duration::from_secs(5);

/// The state of the session that serves a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConsumeState {
    /// No session exists.
    Absent,
    /// The session consumes, is about to consume, or has not stopped yet.
    Open,
    /// The session does not consume.
    Closed,
}

/// A request for one message while the consumer is paused.
pub(super) type Probe = oneshot::Sender<Option<Delivery>>;

/// A delivery that the worker has not taken yet.
#[derive(Debug)]
pub(super) struct BufferedDelivery {
    pub(super) message: Message,
    pub(super) lane: Lane,
    pub(super) delivery_count: u32,
    pub(super) redelivered: bool,
    pub(super) defect: Option<MessageDefect>,
    pub(super) settler: RabbitSettler,
}

impl BufferedDelivery {
    /// Returns the delivery for the worker. `None` if it can no longer be settled, or if it was settled before and is
    /// redelivered because its acknowledgement was lost: then it is acknowledged again.
    pub(super) fn into_fresh(self) -> Option<Delivery> {
        if self.settler.is_stale() {
            return None;
        }
        if self.settler.was_settled() {
            tracing::debug!(lane = self.lane.as_str(), "settled before: acknowledged again");
            self.settler.acknowledge_in_background();
            return None;
        }
        Some(self.into_delivery())
    }

    fn into_delivery(self) -> Delivery {
        let Self { message, lane, delivery_count, redelivered, defect, settler } = self;
        let (settler, span) = (Box::new(settler), Span::default());
        Delivery { message, lane, delivery_count, redelivered, defect, settler, span }
    }
}

/// The deliveries of one kind from the current session.
#[derive(Debug)]
pub(crate) struct DeliveryBuffer {
    pub(super) kind: Kind,
    pub(super) prefetch: u16,
    /// True while the worker wants to consume. The session follows it.
    pub(super) wanted: watch::Sender<bool>,
    /// The state of the session.
    pub(super) state: watch::Sender<ConsumeState>,
    probe: mpsc::Sender<Probe>,
    /// Locked by the current session.
    pub(super) probes: tokio::sync::Mutex<mpsc::Receiver<Probe>>,
    lanes: Mutex<BufferedLanes>,
    arrived: Notify,
    suspect_arrived: Notify,
    /// True once the worker has asked for a suspect. Until then none is taken from the broker, because the broker would
    /// count one more delivery of it if this process ended.
    suspects_wanted: watch::Sender<bool>,
}

/// The buffered deliveries by lane. The prefetch limits their number.
#[derive(Debug, Default)]
struct BufferedLanes {
    jobs: VecDeque<BufferedDelivery>,
    resume: VecDeque<BufferedDelivery>,
    suspects: VecDeque<BufferedDelivery>,
    /// True if a started job is taken next.
    started_next: bool,
}

impl DeliveryBuffer {
    pub(super) fn new(kind: Kind, concurrency: usize) -> Self {
        let (probe, probes) = mpsc::channel(1);
        Self {
            kind,
            prefetch: u16::try_from(concurrency.max(1)).unwrap_or(u16::MAX),
            wanted: watch::Sender::new(true),
            state: watch::Sender::new(ConsumeState::Absent),
            probe,
            probes: tokio::sync::Mutex::new(probes),
            lanes: Mutex::default(),
            arrived: Notify::new(),
            suspect_arrived: Notify::new(),
            suspects_wanted: watch::Sender::new(false),
        }
    }

    /// Adds a delivery from the broker.
    pub(super) fn put(&self, delivery: BufferedDelivery) {
        let lane = delivery.lane;
        self.lanes().of(lane).push_back(delivery);
        match lane {
            Lane::Jobs | Lane::Resume => self.arrived.notify_one(),
            Lane::Suspect => self.suspect_arrived.notify_one(),
        }
    }

    /// Takes the next delivery. Cancel-safe: it is taken in the same poll in which it is returned.
    pub(crate) async fn next(&self) -> Delivery {
        loop {
            if let Some(delivery) = self.lanes().take() {
                return delivery;
            }
            self.arrived.notified().await;
        }
    }

    pub(crate) async fn next_suspect(&self) -> Delivery {
        self.suspects_wanted.send_if_modified(|wanted| !std::mem::replace(wanted, true));
        loop {
            if let Some(delivery) = first_fresh(&mut self.lanes().suspects) {
                return delivery;
            }
            self.suspect_arrived.notified().await;
        }
    }

    pub(super) async fn wait_until_suspects_wanted(&self) {
        // Cannot fail: the sender is in `self`.
        let _ = self.suspects_wanted.subscribe().wait_for(|wanted| *wanted).await;
    }

    pub(crate) fn resume(&self) {
        self.wanted.send_replace(true);
    }

    /// Stops consuming, and returns the deliveries that were not taken. A session sets [`ConsumeState::Open`] before it
    /// reads `wanted`. So either it reads false there, or this function sees that it is open and waits for it.
    pub(crate) async fn pause(&self) -> Vec<Delivery> {
        self.wanted.send_replace(false);
        let _ = self.state.subscribe().wait_for(|state| *state != ConsumeState::Open).await;
        let untaken = self.lanes().clear();
        untaken.into_iter().filter(|each| !each.settler.is_stale()).map(BufferedDelivery::into_delivery).collect()
    }

    pub(crate) async fn take_one(&self) -> Option<Delivery> {
        if *self.state.borrow() != ConsumeState::Closed {
            return None;
        }
        let (probe, answer) = oneshot::channel();
        self.probe.try_send(probe).ok()?;
        // An answer that arrives later has no receiver. It is dropped, which requeues the message.
        timeout(PROBE, answer).await.ok()?.ok()?
    }

    /// Drops the deliveries of a lost session. The broker delivers them again in the next one.
    pub(super) fn session_over(&self) {
        drop(self.lanes().clear());
        self.state.send_replace(ConsumeState::Absent);
    }

    fn lanes(&self) -> MutexGuard<'_, BufferedLanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BufferedLanes {
    fn of(&mut self, lane: Lane) -> &mut VecDeque<BufferedDelivery> {
        match lane {
            Lane::Jobs => &mut self.jobs,
            Lane::Resume => &mut self.resume,
            Lane::Suspect => &mut self.suspects,
        }
    }

    /// Takes new and started jobs in turns, so that neither delays the other.
    fn take(&mut self) -> Option<Delivery> {
        let order = if self.started_next { [Lane::Resume, Lane::Jobs] } else { [Lane::Jobs, Lane::Resume] };
        let delivery = order.into_iter().find_map(|lane| first_fresh(self.of(lane)))?;
        self.started_next = delivery.lane == Lane::Jobs;
        Some(delivery)
    }

    fn clear(&mut self) -> Vec<BufferedDelivery> {
        let lanes = [Lane::Resume, Lane::Jobs, Lane::Suspect];
        lanes.into_iter().flat_map(|lane| std::mem::take(self.of(lane))).collect()
    }
}

/// Takes the first delivery that the worker has to process.
fn first_fresh(lane: &mut VecDeque<BufferedDelivery>) -> Option<Delivery> {
    std::iter::from_fn(|| lane.pop_front()).find_map(BufferedDelivery::into_fresh)
}
