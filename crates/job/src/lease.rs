//! The lease on an exclusive kind (SPEC 6.1): since when this process is the only one of the fleet that works the kind,
//! and whether the broker has confirmed that lately.
//!
//! A process that was suspended, or cut off from its broker, does not see that it lost the lock. Before it changes
//! anything it therefore asks when the lease was last renewed.

use std::time::Duration;

use tokio::{sync::watch, time::Instant};

/// Validity of one renewal: well below the time after which the broker releases the lock of a silent connection.
const COUNTS_FOR: Duration = Duration::from_secs(3);

/// The exclusive right of this process to work a kind. Clones share it.
#[derive(Clone, Debug)]
pub struct Lease {
    taken_over: Option<Instant>,
    /// Time of the last request that the broker answered; `None` if the lease cannot be lost.
    asked: Option<watch::Receiver<Instant>>,
}

/// The process that worked the kind just before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PreviousHolder {
    /// Another process, or this one in another session.
    Somebody,
    /// Nobody.
    Nobody,
}

/// Renews a lease. Dropped when the lease is lost.
#[derive(Debug)]
pub struct LeaseRenewer(watch::Sender<Instant>);

impl Lease {
    /// Creates a lease that cannot be lost; for `taken_over` see [`Self::takeover_time`].
    pub fn permanent(taken_over: Option<Instant>) -> Self {
        Self { taken_over, asked: None }
    }

    /// Creates a lease that begins now and must be renewed.
    pub fn begin(before: PreviousHolder) -> (Self, LeaseRenewer) {
        let now = Instant::now();
        let (renewer, asked) = watch::channel(now);
        let taken_over = (before == PreviousHolder::Somebody).then_some(now);
        (Self { taken_over, asked: Some(asked) }, LeaseRenewer(renewer))
    }

    /// Returns the start of the lease, if another process may have worked the kind just before.
    pub fn takeover_time(&self) -> Option<Instant> {
        self.taken_over
    }

    /// Returns true while the last renewal is valid. After a suspension it is not, until the broker has answered again.
    pub fn is_current(&self) -> bool {
        self.asked.as_ref().is_none_or(|asked| asked.borrow().elapsed() < COUNTS_FOR)
    }

    /// Waits until the lease is current; for ever once it is lost.
    pub async fn wait_until_current(&self) {
        let Some(asked) = &self.asked else { return };
        if asked.clone().wait_for(|asked| asked.elapsed() < COUNTS_FOR).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl LeaseRenewer {
    /// Renews the lease as of `asked`, the time of a request that the broker has answered. The time of the answer does
    /// not count, because the process may have been suspended before it read the answer.
    pub fn renew(&self, asked: Instant) {
        self.0.send_replace(asked);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn after_an_unnoticed_pause_only_a_question_asked_later_renews_the_lease() {
        let (lease, renewer) = Lease::begin(PreviousHolder::Nobody);
        assert!(lease.is_current());
        let before = Instant::now();
        advance(COUNTS_FOR).await;
        renewer.renew(before);
        assert!(!lease.is_current());
        assert!(timeout(COUNTS_FOR, lease.wait_until_current()).await.is_err());
        renewer.renew(Instant::now());
        lease.wait_until_current().await;
        assert!(lease.is_current());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_lease_is_never_current_again_and_a_permanent_one_always_is() {
        let (lease, renewer) = Lease::begin(PreviousHolder::Nobody);
        drop(renewer);
        advance(COUNTS_FOR).await;
        assert!(timeout(COUNTS_FOR, lease.wait_until_current()).await.is_err());
        let permanent = Lease::permanent(None);
        advance(COUNTS_FOR).await;
        permanent.wait_until_current().await;
        assert!(permanent.is_current());
    }
}
