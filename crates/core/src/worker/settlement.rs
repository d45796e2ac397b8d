//! Settles the delivery that ran and all that attached to it: publishes what follows from the attempt, then
//! acknowledges.
//!
//! Why this is safe when a session is lost at any moment, with any number of processes:
//!
//! 1. A message leaves its queue by an acknowledgement only, and that is written after all that follows from the
//!    attempt (event, dead letter, or the message's next round) is confirmed. So nothing is lost, whoever dies.
//! 2. A delivery whose session is gone cannot be acknowledged. Its message is in the queue again, for any process.
//!    Nothing is published for it here and nobody waits for it: the attempt's result is kept ([`super::unsettled`]) and
//!    used if the message comes to this process. If it goes to another, that one runs it from the state in its headers,
//!    as after a crash of this process: effects are safe to repeat (SPEC 3). So each loss of a session costs a message
//!    at most one more attempt, and no attempt waits for another one.
//! 3. An acknowledgement that was written may never have reached the queue. The message comes again although what
//!    follows from it is durable: this process acknowledges it again ([`genfleet_queue::rabbit`]), another one runs it
//!    once more. Its event has the same id. Where it went on to a next round there are two messages of one job now; as
//!    soon as they meet in a process, one of them ends ([`Step::Acknowledge`]).
//!    What meets is only what came before the next round was published ([`Run::close`]): the next round itself is a
//!    message that waits for this round's end.
//! 4. Every message that is not acknowledged is redelivered by the broker as soon as its session is gone, each
//!    attempt ends within its time-out, and only an attempt that ended publishes. So the number of publications is
//!    bounded by the attempts, and once sessions last, every job ends.

use std::sync::Arc;

use tokio::{sync::OwnedSemaphorePermit, time::Instant};
use tracing::debug;

use super::{
    audited::{Audited, Leave},
    conclusion::Conclusion,
    engine::Engine,
    process::not_settled,
    running::Run,
    traced,
};
use crate::handler::JobHandler;
use genfleet_job::job_headers::JobHeaders;
use genfleet_job::{JobId, decode, error::JobError, message::Message, metric};
use genfleet_queue::{Delivery, Destination, Publication, QueueError, TooLarge};

/// What is done with one of the deliveries of a job whose attempt has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Its session is gone: the result is kept for when its message comes again.
    Keep,
    /// What follows from the attempt is published for it, then it is acknowledged.
    Publish,
    /// All of it was published for another message of the same job: it is only acknowledged.
    Acknowledge,
}

/// What is to be done with a delivery. `is_stale`: its session is gone. `came_before`: it was delivered before, or this
/// product published it. `is_told`: what follows was published for a message that expects its answer in the same place.
pub fn step(is_stale: bool, came_before: bool, is_told: bool) -> Step {
    if is_stale {
        Step::Keep
    } else if came_before && is_told {
        Step::Acknowledge
    } else {
        // A message that a producer sent is told its own copy, however many are alike.
        Step::Publish
    }
}

/// Where a message expects its answer.
#[derive(Debug, PartialEq, Eq)]
struct Address {
    message_id: Option<String>,
    correlation_id: Option<String>,
    reply_to: Option<String>,
}

impl Address {
    fn of(message: &Message) -> Self {
        let Message { message_id, correlation_id, reply_to, .. } = message.clone();
        Self { message_id, correlation_id, reply_to }
    }
}

impl<H: JobHandler> Engine<H> {
    /// Settles what came for the job `id`. `slot` is free as soon as the delivery that ran is settled.
    pub(super) async fn settle(
        &self,
        id: &JobId,
        mut run: Run,
        delivery: Delivery,
        audited: Arc<Audited>,
        slot: OwnedSemaphorePermit,
    ) {
        let place = delivery.span.context().cloned();
        let mut told = Vec::new();
        if audited.conclusion.goes_on() {
            run.close();
        }
        self.settle_one(Some(id), delivery, &audited, &mut told).await;
        drop(slot);
        loop {
            while let Some(mut attached) = run.attached() {
                attached.span.link(place.as_ref());
                self.settle_one(Some(id), attached, &audited, &mut told).await;
            }
            if run.finish() {
                return;
            }
        }
    }

    /// Settles a delivery that never ran. One whose session is gone is left alone: it comes again, and is judged again.
    pub(super) async fn settle_unrun(&self, delivery: Delivery, conclusion: Conclusion) {
        if delivery.settler.is_stale() {
            return;
        }
        let audited = Arc::new(self.audited_unrun(conclusion, &delivery.message).await);
        self.settle_one(None, delivery, &audited, &mut Vec::new()).await;
    }

    async fn settle_one(
        &self,
        id: Option<&JobId>,
        mut delivery: Delivery,
        audited: &Arc<Audited>,
        told: &mut Vec<Address>,
    ) {
        let conclusion = &audited.conclusion;
        traced::concluded(&mut delivery.span, conclusion);
        if self.leave_to_settle(audited.extent).await == Leave::GiveBack {
            return delivery.settler.give_back().await;
        }
        let address = Address::of(&delivery.message);
        match step(delivery.settler.is_stale(), delivery.came_before(), told.contains(&address)) {
            Step::Keep => {
                metrics::counter!(metric::STALE_ACKS).increment(1);
                debug!("the session of this delivery is gone: its message comes again, here or elsewhere");
                if let Some(id) = id {
                    self.unsettled.keep(id, delivery.message, audited, Instant::now());
                }
            }
            Step::Acknowledge => {
                if let Err(error) = delivery.settler.settle(Vec::new()).await {
                    not_settled(&error);
                }
            }
            Step::Publish => {
                if let Some(id) = id.filter(|_| delivery.redelivered) {
                    self.unsettled.take(id, &delivery.message, Instant::now());
                }
                if self.publish(delivery, conclusion).await {
                    told.push(address);
                }
            }
        }
    }

    /// Publishes what follows for `delivery` and acknowledges it; whether all of it is durable.
    async fn publish(&self, mut delivery: Delivery, conclusion: &Conclusion) -> bool {
        let mut sending = self.sending(&delivery, conclusion);
        let place = sending.as_ref().unwrap_or(&delivery.span).context();
        let publications = conclusion.publications(&delivery.message, H::KIND, self.clock.now(), place);
        if let Some(span) = &mut sending {
            traced::sent(span, &publications);
        }
        let events = publications.iter().filter(|one| is_event(one)).count();
        match delivery.settler.settle(publications).await {
            Ok(_) => {}
            Err(QueueError::TooLarge { size, settler: Some(settler) }) => {
                delivery.settler = settler;
                return self.leave_to_broker(delivery, conclusion, size).await;
            }
            Err(error) => {
                if let Some(span) = &mut sending {
                    span.fail("unsettled");
                }
                not_settled(&error);
                return false;
            }
        }
        metrics::counter!(metric::EVENTS_PUBLISHED).increment(events as u64);
        self.count(conclusion);
        true
    }

    /// Ends a job with which the broker takes nothing more that carries its body: the broker itself puts it to its dead
    /// letters. Whether that is durable.
    async fn leave_to_broker(&self, delivery: Delivery, conclusion: &Conclusion, size: TooLarge) -> bool {
        let carried = match conclusion {
            Conclusion::GoesOn { carried, .. } => carried.clone(),
            // Its event is published: only its dead letter, or its receivers', was not taken.
            Conclusion::Ends { .. } => {
                let left = delivery.settler.leave_to_broker(Vec::new()).await;
                self.count(conclusion);
                return left.inspect_err(not_settled).is_ok();
            }
        };
        self.give_up_too_large(delivery, &carried, size).await
    }

    /// Ends a job that was to come back and that the broker takes no more, for its size.
    pub(super) async fn give_up_too_large(&self, delivery: Delivery, carried: &JobHeaders, size: TooLarge) -> bool {
        let message = &delivery.message;
        let id = decode::extract_id(&message.body, message.message_id.as_deref(), message.timestamp);
        let told =
            format!("the job can neither wait for its next attempt nor be kept with what is known of it: {size}");
        let conclusion = self.fail_unrun(&id, carried, &delivery, JobError::permanent("too_large", told));
        let Audited { conclusion, extent } = self.audited_unrun(conclusion, message).await;
        if self.leave_to_settle(extent).await == Leave::GiveBack {
            delivery.settler.give_back().await;
            return false;
        }
        let place = delivery.span.context();
        let mut publications = conclusion.publications(message, H::KIND, self.clock.now(), place);
        publications.retain(|publication| !matches!(publication.to, Destination::Dead { .. }));
        let events = publications.iter().filter(|one| is_event(one)).count();
        if let Err(error) = delivery.settler.leave_to_broker(publications).await {
            not_settled(&error);
            return false;
        }
        metrics::counter!(metric::EVENTS_PUBLISHED).increment(events as u64);
        self.count(&conclusion);
        true
    }

    fn count(&self, conclusion: &Conclusion) {
        conclusion.count();
        if let Some(outcome) = conclusion.outcome() {
            self.doing.ended(H::KIND, outcome, Instant::now());
        }
        conclusion.failure().into_iter().for_each(|failure| self.failures.note(failure));
    }
}

fn is_event(publication: &Publication) -> bool {
    matches!(publication.to, Destination::Event { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_delivery_publishes_nothing_and_a_producers_own_message_is_always_answered() {
        for (is_stale, came_before, is_told, expected) in [
            (true, false, false, Step::Keep),
            (true, true, true, Step::Keep),
            (false, false, false, Step::Publish),
            (false, false, true, Step::Publish),
            (false, true, false, Step::Publish),
            (false, true, true, Step::Acknowledge),
        ] {
            assert_eq!(step(is_stale, came_before, is_told), expected, "{is_stale} {came_before} {is_told}");
        }
    }
}
