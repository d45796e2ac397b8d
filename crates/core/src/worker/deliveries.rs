//! Settles the delivery that ran and all that attached to it. One whose session is gone waits for its message to come
//! again and attach, so that what was achieved is neither lost nor done or published twice.

use std::{sync::Arc, time::Duration};

use tokio::{sync::OwnedSemaphorePermit, time::Instant};
use tracing::warn;

use super::{
    audited::{Audited, Leave},
    conclusion::Conclusion,
    engine::Engine,
    process::not_settled,
    running::Run,
    traced,
};
use crate::{
    handler::JobHandler,
    metric,
    queue::{Delivery, Destination, Publication, Settled},
};

/// How long a job whose delivery went stale waits for the message to come again.
const REDELIVERY_WAIT: Duration = Duration::from_secs(60);

/// What is still owed to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owed {
    /// It is off the queue, or another process has it.
    Nothing,
    /// Its publications are durable, but it comes again: then it is to be acknowledged, no more.
    Acknowledgement,
    /// It comes again, and nothing was published for it.
    Everything,
}

impl<H: JobHandler> Engine<H> {
    /// `slot` is free as soon as the job's work is over: a redelivery may need it.
    pub(super) async fn settle(
        self: Arc<Self>,
        mut run: Run,
        delivery: Delivery,
        audited: Audited,
        slot: OwnedSemaphorePermit,
    ) {
        let place = delivery.span.place().cloned();
        let mut owed = self.settle_one(delivery, &audited, Owed::Everything).await;
        drop(slot);
        loop {
            while let Some(mut attached) = run.attached() {
                attached.span.link(place.as_ref());
                // A message that was delivered before is taken for the one that is owed something.
                let same = owed != Owed::Nothing && attached.returns > 0;
                let left = if same { owed } else { Owed::Everything };
                let after = self.settle_one(attached, &audited, left).await;
                owed = if same || owed == Owed::Nothing { after } else { owed };
            }
            if owed == Owed::Nothing {
                if run.finish() {
                    return;
                }
            } else if !self.redelivered(&run).await {
                return warn!("the delivery was lost with its session and did not come again here");
            }
        }
    }

    /// Settles a delivery that never ran.
    pub(super) async fn settle_unrun(&self, delivery: Delivery, conclusion: Conclusion) {
        let audited = self.audited_unrun(conclusion, &delivery.message).await;
        self.settle_one(delivery, &audited, Owed::Everything).await;
    }

    /// Whether it came again, while the queue could have handed it over for so long: not while the broker is away.
    async fn redelivered(&self, run: &Run) -> bool {
        let attached = async {
            tokio::select! {
                biased;
                () = run.wait_for_attached() => true,
                () = self.queue.handing_over_for(H::KIND, REDELIVERY_WAIT) => false,
            }
        };
        self.drain.run_until_cancelled(attached).await.unwrap_or(false)
    }

    async fn settle_one(&self, mut delivery: Delivery, audited: &Audited, owed: Owed) -> Owed {
        let Audited { conclusion, extent } = audited;
        traced::concluded(&mut delivery.span, conclusion);
        if self.leave_to_settle(*extent).await == Leave::GiveBack {
            delivery.settler.give_back().await;
            return Owed::Nothing;
        }
        let publishes = owed == Owed::Everything;
        if publishes && conclusion.needs_live_delivery() && delivery.settler.is_stale() {
            metrics::counter!(metric::STALE_ACKS).increment(1);
            return Owed::Everything;
        }
        let mut sending = if publishes { self.sending(&delivery, conclusion) } else { None };
        let place = sending.as_ref().unwrap_or(&delivery.span).place();
        let all = || conclusion.publications(&delivery.message, H::KIND, self.clock.now(), place);
        let publications = if publishes { all() } else { Vec::new() };
        if let Some(span) = &mut sending {
            traced::sent(span, &publications);
        }
        let events = publications.iter().filter(|one| is_event(one)).count();
        match delivery.settler.settle(publications).await {
            Ok(settled) => {
                metrics::counter!(metric::EVENTS_PUBLISHED).increment(events as u64);
                if settled == Settled::Stale {
                    return Owed::Acknowledgement;
                }
                conclusion.count();
                if let Some(outcome) = conclusion.outcome() {
                    self.doing.ended(H::KIND, outcome, Instant::now());
                }
                conclusion.failure().into_iter().for_each(|failure| self.failures.note(failure));
            }
            Err(error) => {
                if let Some(span) = &mut sending {
                    span.fail("unsettled");
                }
                not_settled(&error);
            }
        }
        Owed::Nothing
    }
}

fn is_event(publication: &Publication) -> bool {
    matches!(publication.to, Destination::Event { .. })
}
