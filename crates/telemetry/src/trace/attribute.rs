//! The names of what spans tell: the OpenTelemetry conventions for messaging, for `RabbitMQ` and for HTTP clients, and
//! what is our own. No value of them holds a payload, a secret, or more of a receiver's URL than scheme and host; so
//! [`URL_FULL`] has the path's template in place of the path, and no query.

/// What kind of queue: `rabbitmq`, or `sqlite` for the embedded one.
pub const MESSAGING_SYSTEM: &str = "messaging.system";
/// `process`, `send`.
pub const MESSAGING_OPERATION_NAME: &str = "messaging.operation.name";
/// The same in the convention's own words.
pub const MESSAGING_OPERATION_TYPE: &str = "messaging.operation.type";
/// The queue a job came from, or the exchange an event goes to.
pub const MESSAGING_DESTINATION_NAME: &str = "messaging.destination.name";
/// The routing key, where something is sent.
pub const MESSAGING_ROUTING_KEY: &str = "messaging.rabbitmq.destination.routing_key";
/// The message's id.
pub const MESSAGING_MESSAGE_ID: &str = "messaging.message.id";
/// Its `correlation_id`.
pub const MESSAGING_CONVERSATION_ID: &str = "messaging.message.conversation_id";
/// Its body's length, in bytes.
pub const MESSAGING_BODY_SIZE: &str = "messaging.message.body.size";
/// Messages sent together, where they are several.
pub const MESSAGING_BATCH_COUNT: &str = "messaging.batch.message_count";
/// The method.
pub const HTTP_METHOD: &str = "http.request.method";
/// How often the same request was sent before.
pub const HTTP_RESEND_COUNT: &str = "http.request.resend_count";
/// The answer's status.
pub const HTTP_STATUS: &str = "http.response.status_code";
/// The host.
pub const SERVER_ADDRESS: &str = "server.address";
/// The port.
pub const SERVER_PORT: &str = "server.port";
/// Scheme, host, and the path's template.
pub const URL_FULL: &str = "url.full";
/// The path's template.
pub const URL_TEMPLATE: &str = "url.template";
/// What went wrong, of a bounded set of words.
pub const ERROR_TYPE: &str = "error.type";
/// The job's id.
pub const JOB_ID: &str = "genfleet.job.id";
/// Attempts that ended before this one.
pub const JOB_ATTEMPTS: &str = "genfleet.job.attempts";
/// How a delivery ended: the job's outcome, or `again`, `postponed`, `moved`.
pub const JOB_OUTCOME: &str = "genfleet.job.outcome";
/// Jobs that a request is shared by.
pub const SHARED_BY: &str = "genfleet.request.jobs";
