//! The intake of one kind: it waits for a slot, then takes the next delivery from the queue and spawns a task for it. It
//! closes during a long pause, and while credentials are refused or the audit cannot be written. While the API does not
//! answer or forbids the kind, it takes one job at a time as a probe.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinHandle,
    time::{Instant, sleep, sleep_until, timeout},
};
use tracing::{info, warn};

use super::{audit_outcome::AUDIT_PATIENCE, context::KindContext, process::KindProcessor};
use crate::admin::LoopHeartbeat;
use genfleet_genesys::{Admission, ClosedReason};
use genfleet_job::{message::Lane, metric};
use genfleet_queue::{Consumer, Delivery, Suspects};

/// Longest wait of a loop before it checks again and sends a heartbeat.
const TICK: Duration = Duration::from_secs(5);
/// Wait before a blocked broker is checked again.
const BLOCKED_CHECK: Duration = Duration::from_millis(500);
/// Wait after a probe that could not be sent.
const NO_PROBE: Duration = Duration::from_secs(1);
/// Minimum age of a process that runs suspects.
const PROVEN: Duration = Duration::from_secs(3);
/// Delay of jobs in hand when the intake closes for an unknown time.
const HELD_WITHOUT_END: Duration = Duration::from_secs(30);

/// The loop that takes new and started jobs.
pub(crate) struct Intake {
    processor: Arc<KindProcessor>,
    consumer: Consumer,
    slots: Arc<Semaphore>,
    changes: watch::Receiver<u64>,
    open: bool,
    /// Since when the audit cannot be written.
    unaudited_since: Option<Instant>,
    probing: Option<JoinHandle<()>>,
    heartbeat: LoopHeartbeat,
}

impl Intake {
    /// Begins to consume, with at most `concurrency` jobs in flight.
    pub(crate) fn new(processor: Arc<KindProcessor>, concurrency: usize, heartbeat: LoopHeartbeat) -> Self {
        let KindContext { kind, process, .. } = processor.kind();
        let consumer = process.queue.consume(*kind, concurrency);
        let changes = process.genesys.changes();
        Self {
            processor,
            consumer,
            slots: Arc::new(Semaphore::new(concurrency)),
            changes,
            open: true,
            unaudited_since: None,
            probing: None,
            heartbeat,
        }
    }

    /// Returns the consumer of this kind's suspects, for [`work_suspects`]. Must be called only once.
    pub(crate) fn suspects(&mut self) -> Suspects {
        self.consumer.suspects()
    }

    /// Takes jobs until the process drains, then gives back what was not begun.
    pub(crate) async fn run(mut self) {
        let drain = self.processor.kind().process.drain.clone();
        while drain.run_until_cancelled(self.step()).await.is_some() {}
        for delivery in self.consumer.pause().await {
            match delivery.lane {
                Lane::Jobs | Lane::Resume => delivery.settler.give_back().await,
                // Moved, so that its count begins at 0: nothing crashed.
                Lane::Suspect => self.processor.settlement.move_to(delivery, Lane::Suspect, Duration::ZERO).await,
            }
        }
    }

    /// Checks the admission and begins at most one job. Cancel-safe: nothing taken is dropped.
    async fn step(&mut self) {
        self.heartbeat.beat();
        self.changes.mark_unchanged();
        let admission = self.processor.kind().admission();
        if self.waits_for_audit(admission) {
            return wait_for_change(&mut self.changes).await;
        }
        match admission {
            Admission::Closed { reason, reopens, probe } => {
                if self.open {
                    self.close(reason, reopens.or(probe)).await;
                }
                self.wait_or_probe(probe).await;
            }
            Admission::Open if self.processor.kind().process.queue.health().publishing_blocked => {
                sleep(BLOCKED_CHECK).await;
            }
            Admission::Open => {
                if !self.open {
                    info!(kind = self.processor.kind().label(), "intake opens");
                    self.consumer.resume();
                    self.open = true;
                }
                self.take().await;
            }
        }
    }

    /// Returns true if the audit cannot be written, but only for a short time so far. The jobs at hand wait here
    /// meanwhile.
    fn waits_for_audit(&mut self, admission: Admission) -> bool {
        let Admission::Closed { reason: ClosedReason::Audit, .. } = admission else {
            self.unaudited_since = None;
            return false;
        };
        let since = *self.unaudited_since.get_or_insert_with(Instant::now);
        self.open && since.elapsed() < AUDIT_PATIENCE
    }

    async fn take(&mut self) {
        let slots = Arc::clone(&self.slots);
        tokio::select! {
            biased;
            () = wait_for_change(&mut self.changes) => {}
            taken = async {
                // The semaphore is never closed.
                let slot = slots.acquire_owned().await.ok()?;
                Some((slot, self.consumer.next().await))
            } => {
                if let Some((slot, delivery)) = taken {
                    self.begin(delivery, slot);
                }
            }
        }
    }

    fn begin(&self, delivery: Delivery, slot: OwnedSemaphorePermit) -> JoinHandle<()> {
        // Boxed: it is large, and would be copied on its way into the task.
        self.processor.kind().process.work.spawn(Box::pin(Arc::clone(&self.processor).process(delivery, slot)))
    }

    /// Stops taking jobs. Those in hand that were not begun go back to wait in the queue.
    async fn close(&mut self, reason: ClosedReason, reopens: Option<Instant>) {
        self.open = false;
        let held = self.consumer.pause().await;
        warn!(kind = self.processor.kind().label(), reason = reason.as_str(), held = held.len(), "intake closes");
        let class = match reason {
            // To be delayed they would have to be acknowledged.
            ClosedReason::Audit => return give_back(held).await,
            ClosedReason::Credentials => "credentials",
            ClosedReason::Throttled
            | ClosedReason::ServiceLimit
            | ClosedReason::ApiUnavailable
            | ClosedReason::Forbidden
            | ClosedReason::Worker(_) => "throttled",
        };
        let wait = reopens.map_or(HELD_WITHOUT_END, |at| at.saturating_duration_since(Instant::now()));
        for delivery in held {
            metrics::counter!(metric::JOB_RETRIES, "kind" => self.processor.kind().label(), "class" => class)
                .increment(1);
            let processor = Arc::clone(&self.processor);
            let spread = Duration::from_secs_f64(fastrand::f64() * 2.0);
            self.processor.kind().process.work.spawn(async move {
                let lane = delivery.lane;
                processor.settlement.move_to(delivery, lane, wait + spread).await;
            });
        }
    }

    /// While closed: waits for a change, or begins one waiting job when a probe is due. One probe at a time.
    async fn wait_or_probe(&mut self, probe: Option<Instant>) {
        if let Some(probing) = &mut self.probing {
            let ended = tokio::select! {
                biased;
                () = wait_for_change(&mut self.changes) => false,
                // A probe that panics has ended all the same.
                _ = probing => true,
            };
            self.probing.take_if(|_| ended);
            return;
        }
        let due = async {
            match probe {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = wait_for_change(&mut self.changes) => return,
            () = due => {}
        }
        let slot = Arc::clone(&self.slots).try_acquire_owned();
        let blocked = self.processor.kind().process.queue.health().publishing_blocked;
        let (Ok(slot), false) = (slot, blocked) else { return sleep(NO_PROBE).await };
        match self.consumer.take_one().await {
            Some(delivery) => self.probing = Some(self.begin(delivery, slot)),
            None => sleep(NO_PROBE).await,
        }
    }
}

/// Waits until jobs may be admitted otherwise than before, but not for long: the loop sends heartbeats.
async fn wait_for_change(changes: &mut watch::Receiver<u64>) {
    // It fails only while the process ends.
    let _ = timeout(TICK, changes.changed()).await;
}

async fn give_back(held: Vec<Delivery>) {
    for delivery in held {
        delivery.settler.give_back().await;
    }
}

/// Works the suspects of one kind, one at a time while other work goes on, until the process drains. Not in the first
/// seconds of the process: one that is killed over and over from outside must not run into `crash_loop`.
pub(crate) async fn work_suspects(processor: Arc<KindProcessor>, mut suspects: Suspects) {
    let slots = Arc::new(Semaphore::new(1));
    let drain = processor.kind().process.drain.clone();
    if drain.run_until_cancelled(sleep(PROVEN)).await.is_none() {
        return;
    }
    loop {
        let taken = drain.run_until_cancelled(async {
            let process = &processor.kind().process;
            while process.queue.health().publishing_blocked || !process.audit.is_writable() {
                sleep(BLOCKED_CHECK).await;
            }
            let slot = Arc::clone(&slots).acquire_owned().await.ok()?;
            Some((slot, suspects.next().await))
        });
        let Some(Some((slot, delivery))) = taken.await else { return };
        processor.kind().process.work.spawn(Box::pin(Arc::clone(&processor).process(delivery, slot)));
    }
}
