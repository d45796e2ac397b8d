//! What a delivery tells in its trace: one span for all that is done with it, a child of its producer's, and one for
//! sending the event in which its job ends. By the conventions for messaging.

use std::sync::PoisonError;

use super::{conclusion::Conclusion, engine::Engine};
use crate::handler::{JobContext, JobHandler};
use genfleet_job::job_headers::JobHeaders;
use genfleet_job::{Job, trace_context::TraceContext};
use genfleet_queue::{
    Delivery, Destination, Publication,
    topology::{lane_queue, route},
};
use genfleet_telemetry::trace::{
    Span, SpanDetails, SpanKind,
    attribute::{
        MESSAGING_BATCH_MESSAGE_COUNT, MESSAGING_DESTINATION_NAME, MESSAGING_MESSAGE_BODY_SIZE,
        MESSAGING_MESSAGE_CONVERSATION_ID, MESSAGING_MESSAGE_ID, MESSAGING_OPERATION_NAME, MESSAGING_OPERATION_TYPE,
        MESSAGING_RABBITMQ_DESTINATION_ROUTING_KEY, MESSAGING_SYSTEM,
    },
};

const JOB_ID: &str = "genfleet.job.id";
/// Attempts that ended before this one.
const JOB_ATTEMPTS: &str = "genfleet.job.attempts";
/// The end of a delivery: the job's outcome, or `again`, `postponed`, `moved`.
pub(super) const JOB_OUTCOME: &str = "genfleet.job.outcome";

impl<H: JobHandler> Engine<H> {
    /// Begins the span of a delivery that has just come.
    pub(super) fn processing(&self, delivery: &Delivery) -> Span {
        let message = &delivery.message;
        Span::start(&TraceContext::read(&message.headers), || {
            let queue = lane_queue(self.queue.prefix(), delivery.lane, H::KIND);
            self.details(SpanKind::Consumer, "process", queue)
                .with_some(MESSAGING_MESSAGE_ID, message.message_id.clone())
                .with_some(MESSAGING_MESSAGE_CONVERSATION_ID, message.correlation_id.clone())
                .with(MESSAGING_MESSAGE_BODY_SIZE, i64::try_from(message.body.len()).unwrap_or(i64::MAX))
        })
    }

    /// Begins the span in which `conclusion` is told for `delivery`. What goes back to the queue is not sent on: it stays
    /// where its producer was.
    pub(super) fn sending(&self, delivery: &Delivery, conclusion: &Conclusion) -> Option<Span> {
        let Conclusion::Ends { ending, .. } = conclusion else { return None };
        if !conclusion.has_event(H::KIND) {
            return None;
        }
        let span = Span::start(delivery.span.context(), || {
            let event = Destination::Event { kind: ending.kind.to_owned(), outcome: ending.outcome.as_str() };
            let (exchange, key) = route(self.queue.prefix(), &event);
            self.details(SpanKind::Producer, "send", exchange).with(MESSAGING_RABBITMQ_DESTINATION_ROUTING_KEY, key)
        });
        Some(span)
    }

    fn details(&self, kind: SpanKind, operation: &'static str, destination: String) -> SpanDetails {
        SpanDetails::new(kind, format!("{operation} {destination}"))
            .with(MESSAGING_SYSTEM, self.queue.system())
            .with(MESSAGING_OPERATION_NAME, operation)
            .with(MESSAGING_OPERATION_TYPE, operation)
            .with(MESSAGING_DESTINATION_NAME, destination)
    }
}

/// Which job it is.
pub(super) fn read(span: &mut Span, job: &Job, carried: &JobHeaders) {
    if span.is_recorded() {
        span.set(JOB_ID, job.id.to_string());
        span.set(JOB_ATTEMPTS, i64::from(carried.attempts));
    }
}

/// The requests of others that were sent for it, too.
pub(super) fn shared(span: &mut Span, context: &JobContext) {
    span.link(context.shared.lock().unwrap_or_else(PoisonError::into_inner).iter());
}

/// What was sent: the event, and whatever else tells of it.
pub(super) fn sent(span: &mut Span, publications: &[Publication]) {
    if !span.is_recorded() {
        return;
    }
    match publications {
        [one] => span.set(MESSAGING_MESSAGE_ID, one.message.message_id.clone().unwrap_or_default()),
        many => span.set(MESSAGING_BATCH_MESSAGE_COUNT, i64::try_from(many.len()).unwrap_or(i64::MAX)),
    }
}

/// How the delivery ended.
pub(super) fn concluded(span: &mut Span, conclusion: &Conclusion) {
    match conclusion {
        Conclusion::Ends { ending, dead, .. } => {
            span.set(JOB_OUTCOME, ending.outcome.as_str());
            if let Some(dead) = dead {
                span.fail(dead.cause.unwrap_or(dead.reason));
            }
        }
        Conclusion::GoesOn { error, .. } => {
            span.set(JOB_OUTCOME, "again");
            if let Some(code) = error {
                span.fail(*code);
            }
        }
    }
}
