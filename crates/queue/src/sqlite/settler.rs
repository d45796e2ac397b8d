//! The right to settle one row, and the consumer's slot it takes until then.

use metrics::counter;
use tokio::sync::OwnedSemaphorePermit;

use super::{change::RowRemoval, claim::RowClaim};
use crate::{Publication, QueueError, Settled};
use genfleet_job::{lease::Lease, metric};

/// The right to settle one row, once. Dropped without, the row is given back.
#[derive(Debug)]
pub struct StoreSettler {
    claim: RowClaim,
    /// Free for the consumer's next row once the settlement is on the disk.
    slot: OwnedSemaphorePermit,
}

impl StoreSettler {
    pub(super) fn new(claim: RowClaim, slot: OwnedSemaphorePermit) -> Self {
        Self { claim, slot }
    }

    /// One process works a file, and nobody takes it away: see [`crate::StoreSettler::lease`].
    pub fn lease(&self) -> Lease {
        Lease::permanent(self.claim.taken_over())
    }

    /// Puts all of `publications` into the store and takes the row out, in one transaction: see
    /// [`crate::StoreSettler::settle`]. After an error the row stays claimed; it comes back when the store is
    /// opened again.
    pub async fn settle(self, publications: Vec<Publication>) -> Result<Settled, QueueError> {
        let (id, link, _counted) = self.claim.settle();
        let found = link.change(RowRemoval::Delivery(id), publications).await;
        drop(self.slot);
        if found? {
            return Ok(Settled::Acknowledged);
        }
        counter!(metric::STALE_ACKS).increment(1);
        Ok(Settled::Stale)
    }

    /// Makes the row visible again at once; counts as a return.
    pub async fn give_back(self) {
        let (id, link, _counted) = self.claim.settle();
        // Where it fails, the row comes back when the store is opened again.
        drop(link.post_change(RowRemoval::Claim(id)).await);
        drop(self.slot);
    }
}
