//! The time for which this process is the only one of the fleet that works a kind (SPEC 6.1, lock): since when, and
//! whether that is known to be still so.
//!
//! A process that is suspended, or cut off from its broker, does not see that the lock is gone, and goes on where it
//! stood. Therefore whoever is about to change something asks when the broker last answered. Does not end a session:
//! that is the queue's.

use std::time::Duration;

use tokio::{sync::watch, time::Instant};

/// An answer of the broker counts for so long: well below the time in which it lets go the lock of a silent connection.
const COUNTS_FOR: Duration = Duration::from_secs(3);

/// The time for which this process alone works a kind. Clones are the same.
#[derive(Clone, Debug)]
pub struct Tenure {
    taken_over: Option<Instant>,
    /// When the last question was put that the broker answered; `None` where nobody can take it away.
    asked: Option<watch::Receiver<Instant>>,
}

/// Who worked the kind in the moments before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// Another process, or this one in another session.
    Somebody,
    /// Nobody.
    Nobody,
}

/// Says that it is still so. Dropped once that will not be known any more.
#[derive(Debug)]
pub struct Proof(watch::Sender<Instant>);

impl Tenure {
    /// One that nobody can take away; for `taken_over` see [`Self::taken_over`].
    pub fn for_good(taken_over: Option<Instant>) -> Self {
        Self { taken_over, asked: None }
    }

    /// One that begins now, and has to be proven again and again.
    pub fn begin(before: Before) -> (Self, Proof) {
        let now = Instant::now();
        let (proof, asked) = watch::channel(now);
        let taken_over = (before == Before::Somebody).then_some(now);
        (Self { taken_over, asked: Some(asked) }, Proof(proof))
    }

    /// When it began, where another process may have worked the kind a moment before.
    pub fn taken_over(&self) -> Option<Instant> {
        self.taken_over
    }

    /// Whether it is known to be still so. After a suspension it is not, until the broker has answered.
    pub fn is_proven(&self) -> bool {
        self.asked.as_ref().is_none_or(|asked| asked.borrow().elapsed() < COUNTS_FOR)
    }

    /// Waits until it is known to be still so; for ever where it is not any more.
    pub async fn proven(&self) {
        let Some(asked) = &self.asked else { return };
        if asked.clone().wait_for(|asked| asked.elapsed() < COUNTS_FOR).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Proof {
    /// The broker has answered a question that was put at `asked`. Not when it answered: its answer may have lain here
    /// while the process was suspended.
    pub fn answered(&self, asked: Instant) {
        self.0.send_replace(asked);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pause_that_nobody_saw_asks_for_a_new_proof_and_an_answer_from_before_it_is_none() {
        let (tenure, proof) = Tenure::begin(Before::Nobody);
        assert!(tenure.is_proven());
        let before = Instant::now();
        advance(COUNTS_FOR).await;
        proof.answered(before);
        assert!(!tenure.is_proven());
        assert!(timeout(COUNTS_FOR, tenure.proven()).await.is_err());
        proof.answered(Instant::now());
        tenure.proven().await;
        assert!(tenure.is_proven());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_was_lost_is_never_proven_again_and_one_that_cannot_be_lost_always_is() {
        let (tenure, proof) = Tenure::begin(Before::Nobody);
        drop(proof);
        advance(COUNTS_FOR).await;
        assert!(timeout(COUNTS_FOR, tenure.proven()).await.is_err());
        let for_good = Tenure::for_good(None);
        advance(COUNTS_FOR).await;
        for_good.proven().await;
        assert!(for_good.is_proven());
    }
}
