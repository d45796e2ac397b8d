//! The right to settle one row, and the consumer's slot that it occupies until then.

use futures_util::future::{BoxFuture, FutureExt, pending};
use metrics::counter;
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use super::{change::RowRemoval, handle::WriterHandle};
use crate::{
    message::{Publication, QueueError, Settle, Settled},
    unsettled::UnsettledGuard,
};
use genfleet_job::{Kind, lease::Lease, metric};

/// A claim on one row. Dropping it returns the row.
#[derive(Debug)]
pub(super) struct RowClaim {
    id: i64,
    handle: WriterHandle,
    /// Taken by the settlement.
    counted: Option<UnsettledGuard>,
}

impl RowClaim {
    pub(super) fn new(id: i64, kind: Kind, handle: WriterHandle) -> Self {
        let counted = Some(handle.state().unsettled.hold(kind));
        Self { id, handle, counted }
    }

    /// Time of opening the store, if its jobs were worked before.
    fn taken_over(&self) -> Option<Instant> {
        self.handle.state().taken_over
    }
}

impl Drop for RowClaim {
    fn drop(&mut self) {
        if self.counted.is_some() {
            drop(self.handle.post_removal(RowRemoval::Claim(self.id)));
        }
    }
}

/// The right to settle one row.
#[derive(Debug)]
pub(super) struct StoreSettler {
    claim: RowClaim,
    /// Released for the consumer's next row when the settlement is on disk.
    _slot: OwnedSemaphorePermit,
}

impl StoreSettler {
    pub(super) fn new(claim: RowClaim, slot: OwnedSemaphorePermit) -> Self {
        Self { claim, _slot: slot }
    }

    /// Stores all of `publications` and removes the row, in one transaction. After an error the row stays claimed, and
    /// is returned when the store is next opened.
    async fn settle(mut self, publications: Vec<Publication>) -> Result<Settled, QueueError> {
        let _counted = self.claim.counted.take();
        if self.claim.handle.change(RowRemoval::Delivery(self.claim.id), publications).await? {
            return Ok(Settled::Acknowledged);
        }
        counter!(metric::STALE_ACKS).increment(1);
        Ok(Settled::Stale)
    }
}

impl Settle for StoreSettler {
    fn is_stale(&self) -> bool {
        false
    }

    fn wait_until_lost(&self) -> BoxFuture<'_, ()> {
        pending().boxed()
    }

    /// Never returns, because no other process can take over the store.
    fn lease(&self) -> Option<Lease> {
        Some(Lease::permanent(self.claim.taken_over()))
    }

    fn settle(self: Box<Self>, publications: Vec<Publication>) -> BoxFuture<'static, Result<Settled, QueueError>> {
        Self::settle(*self, publications).boxed()
    }

    fn leave_to_broker(
        self: Box<Self>,
        publications: Vec<Publication>,
    ) -> BoxFuture<'static, Result<Settled, QueueError>> {
        Self::settle(*self, publications).boxed()
    }

    /// Makes the row visible again at once, which counts as a return.
    fn give_back(mut self: Box<Self>) -> BoxFuture<'static, ()> {
        async move {
            let _counted = self.claim.counted.take();
            // If it fails, the row is returned when the store is next opened.
            drop(self.claim.handle.post_removal(RowRemoval::Claim(self.claim.id)).await);
        }
        .boxed()
    }
}
