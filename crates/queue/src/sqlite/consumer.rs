//! Delivers the rows of one kind. Rows are claimed on demand, never more than there are free slots, and waiting for
//! rows does not poll the store.
//!
//! The state of every wait is in a field, so that a dropped future loses nothing.

use std::{collections::VecDeque, future, sync::Arc, time::Duration};

use tokio::{
    select,
    sync::{Mutex, OwnedSemaphorePermit, Semaphore, watch},
    time,
};

use super::{
    changes::ChangeKey,
    claim::{Claim, ClaimedRow, ClaimedRows},
    handle::WriterHandle,
    settler::StoreSettler,
    work::OperationReply,
};
use crate::message::Delivery;
use genfleet_job::{Kind, clock::SharedClock, message::Lane};
use genfleet_telemetry::trace::Span;

/// Maximum number of rows that are claimed at once.
const BATCH: usize = 512;
/// Maximum sleep, because the wall clock may be set during it.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// The new and started jobs of one kind.
#[derive(Debug)]
pub(crate) struct Consumer {
    feed: KindFeed,
    suspects: Arc<Mutex<KindFeed>>,
    open: watch::Sender<bool>,
}

/// The suspects of one kind, of which one is unsettled at a time.
#[derive(Debug)]
pub(crate) struct Suspects {
    feed: Arc<Mutex<KindFeed>>,
    open: watch::Receiver<bool>,
}

/// A claim to which the writer has not replied yet.
#[derive(Debug)]
struct PendingClaim {
    answer: OperationReply<ClaimedRows>,
    slots: OwnedSemaphorePermit,
    /// Count of changes at the time of the request.
    seen: u64,
}

/// A pause until there may be rows to claim.
#[derive(Debug)]
struct ClaimPause {
    /// Ends when the count of changes differs from this.
    seen: u64,
    /// Ends at this time, in Unix milliseconds.
    due: Option<i64>,
}

/// Claims rows of some lanes of a kind.
#[derive(Debug)]
struct KindFeed {
    handle: WriterHandle,
    clock: SharedClock,
    kind: Kind,
    /// The lanes, beginning with the one whose turn is next.
    lanes: Vec<Lane>,
    key: ChangeKey,
    slots: Arc<Semaphore>,
    ready: VecDeque<Delivery>,
    pending: Option<PendingClaim>,
    rest: Option<ClaimPause>,
}

impl Consumer {
    pub(super) fn new(handle: WriterHandle, clock: SharedClock, kind: Kind, concurrency: usize) -> Self {
        let suspects = KindFeed::new(handle.clone(), Arc::clone(&clock), kind, vec![Lane::Suspect], 1);
        Self {
            feed: KindFeed::new(handle, clock, kind, vec![Lane::Resume, Lane::Jobs], concurrency),
            suspects: Arc::new(Mutex::new(suspects)),
            open: watch::Sender::new(true),
        }
    }

    /// Returns the next new or started job. Waits for ever after the store is closed, and while the consumer is paused.
    pub(crate) async fn next(&mut self) -> Delivery {
        if !*self.open.borrow() {
            return future::pending().await;
        }
        self.feed.next().await
    }

    pub(crate) fn suspects(&mut self) -> Suspects {
        Suspects { feed: Arc::clone(&self.suspects), open: self.open.subscribe() }
    }

    /// Claims no more rows, including suspects. Returns the rows that were claimed but not taken, of which there are
    /// few.
    pub(crate) async fn pause(&mut self) -> Vec<Delivery> {
        self.open.send_replace(false);
        let mut suspects = self.suspects.lock().await;
        let mut untaken = Vec::new();
        for feed in [&mut self.feed, &mut *suspects] {
            feed.receive().await;
            untaken.extend(feed.ready.drain(..));
        }
        untaken
    }

    pub(crate) fn resume(&mut self) {
        self.open.send_replace(true);
    }

    /// Takes one waiting job for a probe, a suspect last. `None` if none waits or no slot is free.
    pub(crate) async fn take_one(&mut self) -> Option<Delivery> {
        match self.feed.take_one().await {
            Some(delivery) => Some(delivery),
            None => self.suspects.lock().await.take_one().await,
        }
    }
}

impl Suspects {
    /// Returns the next suspect, after the previous one is settled.
    pub(crate) async fn next(&mut self) -> Delivery {
        let mut closing = self.open.clone();
        loop {
            // An error means that the consumer was dropped, so nothing can close it any more.
            let _ = self.open.wait_for(|open| *open).await;
            select! {
                biased;
                Ok(_) = closing.wait_for(|open| !open) => {}
                delivery = async { self.feed.lock().await.next().await } => return delivery,
            }
        }
    }
}

impl KindFeed {
    fn new(handle: WriterHandle, clock: SharedClock, kind: Kind, lanes: Vec<Lane>, concurrency: usize) -> Self {
        let key = ChangeKey::of(kind, lanes.first().copied().unwrap_or(Lane::Jobs));
        let slots = Arc::new(Semaphore::new(concurrency.clamp(1, Semaphore::MAX_PERMITS)));
        Self { handle, clock, kind, lanes, key, slots, ready: VecDeque::new(), pending: None, rest: None }
    }

    async fn next(&mut self) -> Delivery {
        loop {
            if let Some(delivery) = self.ready.pop_front() {
                return delivery;
            }
            if self.pending.is_none() {
                self.rest().await;
                let slots = self.free_slots().await;
                self.claim(slots);
            }
            if !self.receive().await {
                return future::pending().await;
            }
        }
    }

    async fn take_one(&mut self) -> Option<Delivery> {
        if self.ready.is_empty() && self.pending.is_none() {
            let slot = Arc::clone(&self.slots).try_acquire_owned().ok()?;
            self.claim(slot);
        }
        self.receive().await;
        self.ready.pop_front()
    }

    /// Waits until a row may have become visible.
    async fn rest(&mut self) {
        let Some(ClaimPause { seen, due }) = self.rest else { return };
        let mut changes = self.handle.state().changes.subscribe();
        select! {
            // Cannot fail: the handle holds the sender.
            _ = changes.wait_for(|changes| changes.of(self.key) != seen) => {}
            () = self.sleep_until(due) => {}
        }
        self.rest = None;
    }

    async fn sleep_until(&self, due: Option<i64>) {
        let Some(due) = due else { return future::pending().await };
        let left = due.saturating_sub(self.clock.now().as_millisecond());
        time::sleep(Duration::from_millis(u64::try_from(left).unwrap_or(0)).min(LONGEST_SLEEP)).await;
    }

    /// Waits for a free slot, and then takes all free ones.
    async fn free_slots(&self) -> OwnedSemaphorePermit {
        let Ok(mut slots) = Arc::clone(&self.slots).acquire_owned().await else { return future::pending().await };
        let more = u32::try_from(self.slots.available_permits().min(BATCH - 1)).unwrap_or(0);
        if let Ok(more) = Arc::clone(&self.slots).try_acquire_many_owned(more) {
            slots.merge(more);
        }
        slots
    }

    fn claim(&mut self, slots: OwnedSemaphorePermit) {
        let seen = self.handle.state().changes.borrow().of(self.key);
        let (kind, lanes, limit, handle) = (self.kind, self.lanes.clone(), slots.num_permits(), self.handle.clone());
        let answer = self.handle.post(Claim { kind, lanes, limit, handle });
        self.pending = Some(PendingClaim { answer, slots, seen });
    }

    /// Receives the claimed rows. Returns false if the writer has ended.
    async fn receive(&mut self) -> bool {
        let Some(pending) = &mut self.pending else { return true };
        let answer = (&mut pending.answer).await;
        let Some(PendingClaim { slots, seen, .. }) = self.pending.take() else { return true };
        match answer {
            Ok(Ok(claimed)) => self.keep(claimed, slots, seen),
            Ok(Err(_)) | Err(_) => return false,
        }
        true
    }

    fn keep(&mut self, claimed: ClaimedRows, mut slots: OwnedSemaphorePermit, seen: u64) {
        if claimed.rows.len() < slots.num_permits() {
            self.rest = Some(ClaimPause { seen, due: claimed.next_due });
        }
        if let Some((_, last)) = claimed.rows.last() {
            let next = self.lanes.iter().position(|lane| *lane == last.lane).map_or(0, |at| at + 1);
            let turn = next % self.lanes.len();
            self.lanes.rotate_left(turn);
        }
        for (claim, row) in claimed.rows {
            // There are never more rows than slots. Dropping a row would return it.
            let Some(slot) = slots.split(1) else { return };
            let settler = Box::new(StoreSettler::new(claim, slot));
            let ClaimedRow { message, lane, delivery_count, .. } = row;
            let (redelivered, defect) = (delivery_count > 0, None);
            let span = Span::default();
            self.ready.push_back(Delivery { message, lane, delivery_count, redelivered, defect, settler, span });
        }
    }
}
