//! The trace of a delivery: one span for all that is done with it, a child of its producer's, and one for the publication
//! of the event in which its job ends. Names follow OpenTelemetry's conventions for messaging.

use super::{context::KindContext, outcome::JobOutcome};
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
pub(crate) const JOB_OUTCOME: &str = "genfleet.job.outcome";

/// Begins the span of a delivery that has just come.
pub(crate) fn begin(kind: &KindContext, delivery: &Delivery) -> Span {
    let message = &delivery.message;
    Span::start(&TraceContext::read(&message.headers), || {
        let queue = lane_queue(kind.process.queue.prefix(), delivery.lane, kind.kind);
        describe(kind, SpanKind::Consumer, "process", queue)
            .with_some(MESSAGING_MESSAGE_ID, message.message_id.clone())
            .with_some(MESSAGING_MESSAGE_CONVERSATION_ID, message.correlation_id.clone())
            .with(MESSAGING_MESSAGE_BODY_SIZE, i64::try_from(message.body.len()).unwrap_or(i64::MAX))
    })
}

/// Begins the span in which the event of `outcome` is published. What goes back to the queue stays at its producer's
/// place in the trace.
pub(crate) fn begin_sending(kind: &KindContext, delivery: &Delivery, outcome: &JobOutcome) -> Option<Span> {
    let JobOutcome::Ends { ending, .. } = outcome else { return None };
    outcome.has_event(kind.kind).then(|| {
        Span::start(delivery.span.context(), || {
            let event = Destination::Event { kind: ending.kind.to_owned(), outcome: ending.outcome.as_str() };
            let (exchange, key) = route(kind.process.queue.prefix(), &event);
            describe(kind, SpanKind::Producer, "send", exchange).with(MESSAGING_RABBITMQ_DESTINATION_ROUTING_KEY, key)
        })
    })
}

fn describe(kind: &KindContext, span_kind: SpanKind, operation: &'static str, destination: String) -> SpanDetails {
    SpanDetails::new(span_kind, format!("{operation} {destination}"))
        .with(MESSAGING_SYSTEM, kind.process.queue.system())
        .with(MESSAGING_OPERATION_NAME, operation)
        .with(MESSAGING_OPERATION_TYPE, operation)
        .with(MESSAGING_DESTINATION_NAME, destination)
}

/// Adds which job it is.
pub(crate) fn set_job(span: &mut Span, job: &Job, headers: &JobHeaders) {
    if span.is_recorded() {
        span.set(JOB_ID, job.id.to_string());
        span.set(JOB_ATTEMPTS, i64::from(headers.attempts));
    }
}

/// Adds what was sent: the event, and the other messages about it.
pub(crate) fn set_sent(span: &mut Span, publications: &[Publication]) {
    if !span.is_recorded() {
        return;
    }
    match publications {
        [one] => span.set(MESSAGING_MESSAGE_ID, one.message.message_id.clone().unwrap_or_default()),
        many => span.set(MESSAGING_BATCH_MESSAGE_COUNT, i64::try_from(many.len()).unwrap_or(i64::MAX)),
    }
}

/// Adds how the delivery ended.
pub(crate) fn set_outcome(span: &mut Span, outcome: &JobOutcome) {
    match outcome {
        JobOutcome::Ends { ending, dead, .. } => {
            span.set(JOB_OUTCOME, ending.outcome.as_str());
            if let Some(dead) = dead {
                span.fail(dead.cause.unwrap_or(dead.reason));
            }
        }
        JobOutcome::GoesOn { error, .. } => {
            span.set(JOB_OUTCOME, "again");
            if let Some(code) = error {
                span.fail(*code);
            }
        }
    }
}
