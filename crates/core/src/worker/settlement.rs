//! Settlement of the delivery that ran and of all that attached to it: what follows from the attempt is published, then
//! the message is acknowledged.
//!
//! docs/ARCHITECTURE.md, "Settlement, and what a lost session costs", explains why this is safe when a session is lost
//! at any moment, with any number of processes. Here, a result that cannot be settled is kept ([`super::unsettled`]), two
//! messages of one job become one when they meet ([`SettlementStep::Acknowledge`]), and a job's next round is never taken
//! for one of them ([`Claim::close`]).

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    sync::{OwnedSemaphorePermit, SemaphorePermit},
    time::Instant,
};
use tracing::{Instrument, Span, debug, warn};

use super::{
    audit_outcome::{AuditedOutcome, SettlePermission, record_not_run, wait_for_permission},
    batches::Batches,
    context::KindContext,
    delivery_trace,
    in_flight::Claim,
    outcome::JobOutcome,
    publications,
    unsettled::Unsettled,
};
use genfleet_audit::AuditPosition;
use genfleet_job::{
    JobId, decode,
    error::JobError,
    job_headers::JobHeaders,
    message::{Lane, Message},
    metric,
};
use genfleet_queue::{Delivery, Destination, Publication, QueueError, TooLarge};

/// Step for one of the deliveries of a job whose attempt has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SettlementStep {
    /// Its session is gone: the result is kept until its message is redelivered.
    Keep,
    /// Everything that follows from the attempt is published for it, then it is acknowledged.
    Publish,
    /// All of it was published for another message of the same job: it is only acknowledged.
    Acknowledge,
}

/// Chooses the step for a delivery. `is_stale`: its session is gone. `came_before`: it was delivered before, or this
/// product published it. `is_answered`: what follows was published for a message with the same [`ReplyAddress`].
pub(crate) fn step(is_stale: bool, came_before: bool, is_answered: bool) -> SettlementStep {
    if is_stale {
        SettlementStep::Keep
    } else if came_before && is_answered {
        SettlementStep::Acknowledge
    } else {
        // Each message that a producer sent gets its own event, however many are alike.
        SettlementStep::Publish
    }
}

/// Address to which a message expects its answer: `message_id`, `correlation_id` and `reply_to`.
type ReplyAddress = [Option<String>; 3];

fn reply_address(message: &Message) -> ReplyAddress {
    [message.message_id.clone(), message.correlation_id.clone(), message.reply_to.clone()]
}

/// A job whose attempt has ended and is recorded.
#[derive(Debug)]
pub(crate) struct EndedJob {
    pub(crate) id: JobId,
    pub(crate) claim: Claim,
    pub(crate) delivery: Delivery,
    pub(crate) outcome: Arc<AuditedOutcome>,
    /// Place among the jobs in flight; free as soon as the delivery that ran is settled.
    pub(crate) slot: OwnedSemaphorePermit,
    /// The permits that the handler keeps until then, and the memory that is reserved for a large body.
    pub(crate) kept: (Vec<OwnedSemaphorePermit>, Option<SemaphorePermit<'static>>),
    /// The job's span in the log.
    pub(crate) span: Span,
}

/// Settles the deliveries of one kind.
#[derive(Debug)]
pub(crate) struct Settlement {
    pub(crate) kind: KindContext,
    unsettled: Unsettled<AuditedOutcome>,
    /// Batches of jobs that changed nothing, and of jobs that changed something. Only the latter wait without limit for
    /// an audit that cannot be written.
    batches: [Batches<EndedJob>; 2],
}

impl Settlement {
    pub(crate) fn new(kind: KindContext) -> Arc<Self> {
        Arc::new(Self { kind, unsettled: Unsettled::default(), batches: <[Batches<EndedJob>; 2]>::default() })
    }

    /// Returns true if an earlier delivery of this message ran here and could not be settled.
    pub(crate) fn has_result(&self, id: &JobId, delivery: &Delivery) -> bool {
        delivery.redelivered && self.unsettled.has(id, &delivery.message, Instant::now())
    }

    /// Takes the result of an earlier delivery of this message that ran here and could not be settled.
    pub(crate) fn take_result(&self, id: &JobId, delivery: &Delivery) -> Option<Arc<AuditedOutcome>> {
        let again = delivery.redelivered;
        again.then(|| self.unsettled.take(id, &delivery.message, Instant::now())).flatten()
    }

    /// Adds the job to the next batch, which is settled as soon as the audit has synced the batch before.
    pub(crate) fn settle_soon(self: &Arc<Self>, ended: EndedJob) {
        let sent = ended.outcome.position.sent;
        if self.batches(sent).add(ended) {
            self.kind.process.work.spawn(Arc::clone(self).settle_batches(sent));
        }
    }

    fn batches(&self, sent: bool) -> &Batches<EndedJob> {
        &self.batches[usize::from(sent)]
    }

    /// Settles batches until no job waits. While a batch waits for the audit, the next one gathers jobs. It does not wait
    /// for the publications and acknowledgements of the batch before.
    async fn settle_batches(self: Arc<Self>, sent: bool) {
        while let Some(jobs) = self.batches(sent).next() {
            let last = jobs.iter().filter_map(|job| job.outcome.position.last).max();
            let permission = self.permission(AuditPosition { last, sent }).await;
            self.kind.process.work.spawn(Arc::clone(&self).settle_batch(jobs, permission));
        }
    }

    async fn settle_batch(self: Arc<Self>, jobs: Vec<EndedJob>, permission: SettlePermission) {
        let settling = jobs.into_iter().map(|mut job| {
            let span = std::mem::replace(&mut job.span, Span::none());
            self.settle(job, permission).instrument(span)
        });
        let mut settling: FuturesUnordered<_> = settling.collect();
        while settling.next().await.is_some() {}
    }

    /// Settles the delivery that ran and all that attached to it.
    async fn settle(&self, ended: EndedJob, permission: SettlePermission) {
        let EndedJob { id, mut claim, delivery, outcome, slot, kept, .. } = ended;
        let place = delivery.span.context().cloned();
        let mut answered = Vec::new();
        if outcome.outcome.goes_on() {
            claim.close();
        }
        self.settle_one(Some(&id), delivery, &outcome, permission, &mut answered).await;
        drop((slot, kept));
        loop {
            while let Some(mut attached) = claim.take_attached() {
                attached.span.link(place.as_ref());
                let permission = self.permission(outcome.position).await;
                self.settle_one(Some(&id), attached, &outcome, permission, &mut answered).await;
            }
            if claim.release() {
                return;
            }
        }
    }

    /// Settles a delivery whose job did not run. One whose session is gone is left alone: the broker redelivers it.
    pub(crate) async fn settle_outcome(&self, delivery: Delivery, outcome: JobOutcome) {
        if delivery.settler.is_stale() {
            return;
        }
        let audited = Arc::new(record_not_run(&self.kind, outcome, &delivery.message).await);
        let permission = self.permission(audited.position).await;
        self.settle_one(None, delivery, &audited, permission, &mut Vec::new()).await;
    }

    /// Moves a delivery whose job did not run unchanged into `lane`, after the delay `after`.
    pub(crate) async fn move_to(&self, delivery: Delivery, lane: Lane, after: Duration) {
        let publication = publications::move_publication(&delivery.message, self.kind.kind, lane, after);
        self.requeue(delivery, publication, "moved").await;
    }

    /// Puts `publication` into the queue in place of a delivery whose job did not run.
    pub(crate) async fn requeue(&self, mut delivery: Delivery, publication: Publication, outcome: &'static str) {
        delivery.span.set(delivery_trace::JOB_OUTCOME, outcome);
        if self.permission(AuditPosition::default()).await == SettlePermission::GiveBack {
            return delivery.settler.give_back().await;
        }
        if delivery.settler.is_stale() {
            return;
        }
        match delivery.settler.settle(vec![publication]).await {
            Ok(_) => {}
            Err(QueueError::TooLarge { size, settler: Some(settler) }) => {
                delivery.settler = settler;
                let headers = JobHeaders::read(&delivery.message.headers);
                Box::pin(self.give_up_too_large(delivery, &headers, size)).await;
            }
            Err(error) => warn_not_settled(&error),
        }
    }

    async fn settle_one(
        &self,
        id: Option<&JobId>,
        mut delivery: Delivery,
        audited: &Arc<AuditedOutcome>,
        permission: SettlePermission,
        answered: &mut Vec<ReplyAddress>,
    ) {
        delivery_trace::set_outcome(&mut delivery.span, &audited.outcome);
        if permission == SettlePermission::GiveBack {
            return delivery.settler.give_back().await;
        }
        let address = reply_address(&delivery.message);
        match step(delivery.settler.is_stale(), delivery.is_repeated_or_internal(), answered.contains(&address)) {
            SettlementStep::Keep => {
                metrics::counter!(metric::STALE_ACKS).increment(1);
                debug!("the session of this delivery is gone: its message is redelivered, here or elsewhere");
                if let Some(id) = id {
                    self.unsettled.keep(id, delivery.message, audited, Instant::now());
                }
            }
            SettlementStep::Acknowledge => {
                if let Err(error) = delivery.settler.settle(Vec::new()).await {
                    warn_not_settled(&error);
                }
            }
            SettlementStep::Publish => {
                if let Some(id) = id {
                    self.take_result(id, &delivery);
                }
                if self.publish(delivery, &audited.outcome).await {
                    answered.push(address);
                }
            }
        }
    }

    async fn permission(&self, position: AuditPosition) -> SettlePermission {
        wait_for_permission(&self.kind.process, position).await
    }

    /// Publishes what follows for `delivery` and acknowledges it. Returns true if all of it is durable.
    async fn publish(&self, mut delivery: Delivery, outcome: &JobOutcome) -> bool {
        let mut sending = delivery_trace::begin_sending(&self.kind, &delivery, outcome);
        let place = sending.as_ref().unwrap_or(&delivery.span).context();
        let publications =
            outcome.publications(&delivery.message, self.kind.kind, self.kind.process.clock.now(), place);
        if let Some(span) = &mut sending {
            delivery_trace::set_sent(span, &publications);
        }
        let events = count_events(&publications);
        match delivery.settler.settle(publications).await {
            Ok(_) => {}
            Err(QueueError::TooLarge { size, settler: Some(settler) }) => {
                delivery.settler = settler;
                // Boxed: this future is large and rare, and every settlement would reserve its size.
                return Box::pin(self.leave_to_broker(delivery, outcome, size)).await;
            }
            Err(error) => {
                if let Some(span) = &mut sending {
                    span.fail("unsettled");
                }
                warn_not_settled(&error);
                return false;
            }
        }
        metrics::counter!(metric::EVENTS_PUBLISHED).increment(events);
        outcome.count(&self.kind);
        true
    }

    /// Ends a job whose body is too large for any further message: the broker itself moves it to the dead letters. Returns
    /// true if that is durable.
    async fn leave_to_broker(&self, delivery: Delivery, outcome: &JobOutcome, size: TooLarge) -> bool {
        match outcome {
            JobOutcome::GoesOn { headers, .. } => self.give_up_too_large(delivery, headers, size).await,
            // Its event is published. Only its dead letter, or a webhook job, was refused.
            JobOutcome::Ends { .. } => {
                let left = delivery.settler.leave_to_broker(Vec::new()).await;
                outcome.count(&self.kind);
                left.inspect_err(warn_not_settled).is_ok()
            }
        }
    }

    /// Ends a job that would go on, but whose next message the broker refuses because of its size.
    async fn give_up_too_large(&self, delivery: Delivery, headers: &JobHeaders, size: TooLarge) -> bool {
        let message = &delivery.message;
        let id = decode::extract_id(&message.body, message.message_id.as_deref(), message.timestamp);
        let text = format!("the job can neither wait for its next attempt nor be kept with its state: {size}");
        let error = JobError::permanent("too_large", text);
        let outcome = JobOutcome::not_run(&self.kind, &id, headers, &delivery, error);
        let AuditedOutcome { outcome, position } = record_not_run(&self.kind, outcome, message).await;
        if self.permission(position).await == SettlePermission::GiveBack {
            delivery.settler.give_back().await;
            return false;
        }
        let place = delivery.span.context();
        let mut publications = outcome.publications(message, self.kind.kind, self.kind.process.clock.now(), place);
        publications.retain(|publication| !matches!(publication.to, Destination::Dead { .. }));
        let events = count_events(&publications);
        if let Err(error) = delivery.settler.leave_to_broker(publications).await {
            warn_not_settled(&error);
            return false;
        }
        metrics::counter!(metric::EVENTS_PUBLISHED).increment(events);
        outcome.count(&self.kind);
        true
    }
}

fn count_events(publications: &[Publication]) -> u64 {
    publications.iter().filter(|one| matches!(one.to, Destination::Event { .. })).count() as u64
}

/// Logs that a delivery could not be settled.
pub(crate) fn warn_not_settled(error: &QueueError) {
    warn!(%error, "not settled: the broker redelivers the message");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_delivery_publishes_nothing_and_a_producers_own_message_is_always_answered() {
        for (is_stale, came_before, is_answered, expected) in [
            (true, false, false, SettlementStep::Keep),
            (true, true, true, SettlementStep::Keep),
            (false, false, false, SettlementStep::Publish),
            (false, false, true, SettlementStep::Publish),
            (false, true, false, SettlementStep::Publish),
            (false, true, true, SettlementStep::Acknowledge),
        ] {
            assert_eq!(step(is_stale, came_before, is_answered), expected, "{is_stale} {came_before} {is_answered}");
        }
    }
}
