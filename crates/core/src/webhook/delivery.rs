//! The handler of `webhook.deliver`, which sends one event to one URL. Its jobs run like all others, but never call
//! Genesys Cloud.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Map;
use tokio::time::Instant;
use tracing::{info, warn};

use super::{
    Webhooks,
    failing::FailingReceivers,
    hosts::{HostAdmission, HostFeedback, HostLimits, HostPermit},
    options::WebhookOptions,
    post::{WebhookClient, WebhookResponse, WebhookSendError},
    receiver::Receiver,
    signature::WebhookSecrets,
    signers::{self, Signers},
};
use crate::{
    error_code::ErrorCode,
    handler::{JobContext, JobHandler, Progress, Services},
    terms::ContractTerms,
};
use genfleet_genesys::LONG_PAUSE;
use genfleet_job::{
    Kind, Violation,
    clock::SharedClock,
    error::{ErrorClass, HELD_SPREAD, JobError},
    event, metric,
    options::ConfigError,
    retry::RetryPolicy,
    trace_context::TRACESTATE,
};
use genfleet_telemetry::trace::{Span, SpanDetails, SpanKind, attribute};

/// The waits between the attempts of a delivery (SPEC 7); there is one more attempt than waits.
pub(super) const WAITS: [Duration; 6] = [
    Duration::from_secs(5),
    Duration::from_secs(5 * 60),
    Duration::from_secs(30 * 60),
    Duration::from_secs(2 * 3600),
    Duration::from_secs(5 * 3600),
    Duration::from_secs(10 * 3600),
];
/// The wait of a delivery for which this process has no secret.
const WITHOUT_SECRET: Duration = Duration::from_secs(60);

/// The outcome of one attempt to deliver; a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeliveryOutcome {
    Delivered,
    /// Not accepted; there will be another attempt.
    Retried,
    /// Not accepted in the last attempt.
    Failed,
    /// The receiver wants no more deliveries (410).
    Gone,
    /// The address gets no deliveries.
    Refused,
}

impl DeliveryOutcome {
    pub(crate) const ALL: [Self; 5] = [Self::Delivered, Self::Retried, Self::Failed, Self::Gone, Self::Refused];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Retried => "retried",
            Self::Failed => "failed",
            Self::Gone => "gone",
            Self::Refused => "refused",
        }
    }
}

/// The payload of a delivery. It has no `Debug`, because the URL may be secret.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeliveryPayload {
    /// The receiver.
    pub url: String,
    /// The value of `webhook-id`: the same for all attempts and repeats.
    #[schemars(regex(pattern = r"^[A-Za-z0-9_-]{1,64}$"))]
    pub event_id: String,
    /// The event byte for byte, which is the body.
    pub event: String,
}

/// The report of a successful delivery.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub struct DeliveryReport {
    /// The status of the response.
    pub status: u16,
}

/// The handler of deliveries.
#[derive(Debug)]
pub struct Deliverer {
    pub(super) signers: Signers,
    pub(super) client: WebhookClient,
    pub(super) hosts: HostLimits,
    pub(super) failing: FailingReceivers,
    pub(super) retry_scale: f64,
    pub(super) clock: SharedClock,
}

impl JobHandler for Deliverer {
    const KIND: Kind = Kind::WebhookDeliver;
    const ACTION: &'static str = "webhook_delivered";
    const SCOPES: &'static [&'static str] = &[];
    const CONCURRENCY: usize = 16;

    type Options = WebhookOptions;
    type Payload = DeliveryPayload;
    type State = ();
    type Report = DeliveryReport;

    fn new(options: WebhookOptions, services: &Services) -> Result<Self, ConfigError> {
        let deliverer = Webhooks::new(&options)?.deliverer(&services.clock, &FailingReceivers::default());
        deliverer.ok_or_else(|| {
            ConfigError::new("this process delivers no webhooks: it has no secret, or --webhook-concurrency is 0")
        })
    }

    /// Producers never send these jobs, but see their failures.
    fn terms() -> ContractTerms {
        let codes = vec![
            ErrorCode::new(
                "address_refused",
                "The receiver's address is not public, and --webhook-allow does not name it; or --webhook-deny does.",
            ),
            ErrorCode::new("gone", "The receiver answered 410: it accepts no more events."),
            ErrorCode::new("receiver_refused", "The receiver answered neither 2xx nor 410. Only a cause."),
            ErrorCode::new("receiver_timeout", "The receiver did not answer within 15 s. Only a cause."),
            ErrorCode::new("receiver_unavailable", "The receiver could not be reached. Only a cause."),
        ];
        ContractTerms { codes, error_members: error_members(), ..ContractTerms::default() }
    }

    fn validate(payload: &DeliveryPayload, _: &WebhookOptions) -> Vec<Violation> {
        let error = Receiver::parse(&payload.url).err();
        error.map(|message| Violation::new("/payload/url", message)).into_iter().collect()
    }

    fn retries(&self, _: RetryPolicy) -> RetryPolicy {
        RetryPolicy::Listed { waits: &WAITS, scale: self.retry_scale }
    }

    async fn handle(&self, job: &JobContext, payload: DeliveryPayload, (): ()) -> Result<Progress<Self>, JobError> {
        let receiver = Receiver::parse(&payload.url).map_err(|error| JobError::permanent("invalid_job", error))?;
        let Some(secrets) = self.signers.of(&receiver) else { return Err(hold_without_secret(job, &receiver)) };
        let permit = self.permit(job, &receiver).await?;
        let event_id = payload.event_id.clone();
        let (outcome, result) = self.attempt(job, &receiver, payload, secrets, permit).await;
        metrics::counter!(metric::WEBHOOK_DELIVERIES, "outcome" => outcome.as_str()).increment(1);
        self.log(&receiver, &event_id, outcome, result.as_ref().err());
        match result {
            Ok(report) => Ok(Progress::Done(report)),
            Err(error) => Err(JobError { details: error_details(&receiver, &event_id), ..error }),
        }
    }
}

impl Deliverer {
    /// Waits for a permit for the host, and then for its address, which is looked up once the host admits.
    async fn permit(&self, job: &JobContext, receiver: &Receiver) -> Result<HostPermit, JobError> {
        let mut permit = match self.hosts.admit(&receiver.authority(), fastrand::f64(), &job.stop).await {
            HostAdmission::Go(permit) => permit,
            HostAdmission::Later(wait) => return Err(hold(job, receiver, wait)),
            HostAdmission::Stopped => return Err(JobError::interrupted()),
        };
        if let Some(address) = self.client.address(receiver).await {
            permit.use_address(address, fastrand::f64()).map_err(|wait| hold(job, receiver, wait))?;
        }
        if job.stop.is_cancelled() { Err(JobError::interrupted()) } else { Ok(permit) }
    }

    /// Logs the outcome: a warning when a receiver begins to fail, and an information until it accepts again.
    fn log(&self, receiver: &Receiver, event_id: &str, outcome: DeliveryOutcome, error: Option<&JobError>) {
        // Unlike those of other kinds, these messages quote nothing of a payload.
        let (outcome_label, why) = (outcome.as_str(), error.map(|error| error.message.as_str()).unwrap_or_default());
        match outcome {
            DeliveryOutcome::Delivered => {
                if self.failing.note_success(receiver) {
                    info!(%receiver, "the receiver accepts events again");
                }
            }
            DeliveryOutcome::Gone => {
                self.failing.note_success(receiver);
                info!(%receiver, event_id, outcome = outcome_label, why, "not delivered");
            }
            DeliveryOutcome::Retried | DeliveryOutcome::Failed | DeliveryOutcome::Refused => {
                if self.failing.note_failure(receiver, why, Instant::now()) {
                    warn!(%receiver, event_id, outcome = outcome_label, why, "not delivered");
                } else {
                    info!(%receiver, event_id, outcome = outcome_label, why, "not delivered");
                }
            }
        }
    }

    async fn attempt(
        &self,
        job: &JobContext,
        receiver: &Receiver,
        payload: DeliveryPayload,
        secrets: &WebhookSecrets,
        permit: HostPermit,
    ) -> (DeliveryOutcome, Result<DeliveryReport, JobError>) {
        if !self.client.list.allows_scheme(receiver.url()) {
            return refuse(receiver, "does not use https; --webhook-allow permits that, on every worker that delivers");
        }
        let now = self.clock.now();
        let mut headers = headers(&payload, secrets, now);
        let span = start_span(job, receiver);
        span.inject(&mut headers);
        // What tracing systems exchange is not for strangers.
        headers.remove(TRACESTATE);
        let sent = self.client.send(receiver, headers, payload.event.into(), now).await;
        if !matches!(sent, Err(WebhookSendError::Refused(_))) {
            job.count_requests(1);
        }
        end_span(span, &sent);
        if let Some(feedback) = feedback(&sent) {
            permit.end(feedback);
        }
        let failed = if job.is_last_attempt() { DeliveryOutcome::Failed } else { DeliveryOutcome::Retried };
        match sent {
            Ok(WebhookResponse { status, .. }) if (200..300).contains(&status) => {
                (DeliveryOutcome::Delivered, Ok(DeliveryReport { status }))
            }
            Ok(WebhookResponse { status: 410, .. }) => {
                let message = format!("{receiver} answers 410: it wants no more deliveries");
                (DeliveryOutcome::Gone, Err(JobError { status: Some(410), ..JobError::permanent("gone", message) }))
            }
            Ok(response) => (failed, Err(unexpected_status(receiver, response))),
            Err(WebhookSendError::Refused(error)) => {
                warn!(%receiver, ip = ?error.ip, "the receiver's address gets no deliveries");
                refuse(receiver, &error.to_string())
            }
            Err(WebhookSendError::TimedOut) => {
                let message = format!("{receiver} does not answer within 15 s");
                (failed, Err(JobError::new(ErrorClass::Transient, "receiver_timeout", message)))
            }
            Err(WebhookSendError::Broken(why)) => {
                let message = format!("{receiver} cannot be reached: {why}");
                (failed, Err(JobError::new(ErrorClass::Transient, "receiver_unavailable", message)))
            }
        }
    }
}

fn headers(payload: &DeliveryPayload, secrets: &WebhookSecrets, now: Timestamp) -> HeaderMap {
    let signature = secrets.sign(&payload.event_id, now, payload.event.as_bytes());
    let all = [
        (CONTENT_TYPE, event::CONTENT_TYPE.to_owned()),
        (HeaderName::from_static("webhook-id"), payload.event_id.clone()),
        (HeaderName::from_static("webhook-timestamp"), now.as_second().to_string()),
        (HeaderName::from_static("webhook-signature"), signature),
    ];
    // All values are valid: the id is checked, the rest is ours.
    all.into_iter().filter_map(|(name, value)| Some((name, HeaderValue::try_from(value).ok()?))).collect()
}

/// Starts the span of an attempt; of the URL it has only scheme and host.
fn start_span(job: &JobContext, receiver: &Receiver) -> Span {
    Span::start(&job.trace, || {
        let url = receiver.url();
        SpanDetails::new(SpanKind::Client, "POST")
            .with(attribute::HTTP_REQUEST_METHOD, "POST")
            .with(attribute::URL_FULL, receiver.to_string())
            .with_some(attribute::SERVER_ADDRESS, url.host_str().map(str::to_owned))
            .with_some(attribute::SERVER_PORT, url.port_or_known_default().map(i64::from))
            .with_some(attribute::HTTP_REQUEST_RESEND_COUNT, (job.attempts > 0).then_some(i64::from(job.attempts)))
    })
}

fn end_span(mut span: Span, sent: &Result<WebhookResponse, WebhookSendError>) {
    match sent {
        Ok(WebhookResponse { status, .. }) => {
            span.set(attribute::HTTP_RESPONSE_STATUS_CODE, i64::from(*status));
            if !(200..300).contains(status) {
                span.fail(status.to_string());
            }
        }
        Err(WebhookSendError::Refused(_)) => span.fail("address_refused"),
        Err(WebhookSendError::TimedOut) => span.fail("timeout"),
        Err(WebhookSendError::Broken(_)) => span.fail("broken"),
    }
}

/// The error for any other status, redirects included: they could lead to an address that gets no deliveries.
fn unexpected_status(receiver: &Receiver, WebhookResponse { status, retry_after }: WebhookResponse) -> JobError {
    let hint = if (300..400).contains(&status) { "; redirects are not followed" } else { "" };
    let message = format!("{receiver} answers {status}{hint}");
    if let Some(wait) = retry_after.filter(|wait| *wait > LONG_PAUSE) {
        warn!(%receiver, seconds = wait.as_secs(), "the receiver asks for a pause of more than an hour (Retry-After), which is respected");
    }
    let error = JobError::new(ErrorClass::Transient, "receiver_refused", message);
    JobError { status: Some(status), retry_after: retry_after.unwrap_or_default(), ..error }
}

fn refuse(receiver: &Receiver, why: &str) -> (DeliveryOutcome, Result<DeliveryReport, JobError>) {
    (DeliveryOutcome::Refused, Err(JobError::permanent("address_refused", format!("{receiver} {why}"))))
}

/// The feedback of an attempt about its host; `None` if nothing was sent.
fn feedback(sent: &Result<WebhookResponse, WebhookSendError>) -> Option<HostFeedback> {
    match sent {
        Ok(WebhookResponse { status: 408 | 429 | 500.., retry_after }) => {
            Some(HostFeedback::Fails { asked: *retry_after })
        }
        Ok(_) => Some(HostFeedback::Answers),
        Err(WebhookSendError::TimedOut | WebhookSendError::Broken(_)) => Some(HostFeedback::Fails { asked: None }),
        Err(WebhookSendError::Refused(_)) => None,
    }
}

/// The error for a delivery that waits for its host. It counts no attempt.
fn hold(job: &JobContext, receiver: &Receiver, wait: Duration) -> JobError {
    let until = job.now().saturating_add(wait).unwrap_or(Timestamp::MAX);
    let message = format!("{receiver} is busy or failing; other receivers go first");
    JobError::new(ErrorClass::Held { until, spread: HELD_SPREAD }, "receiver_busy", message)
}

/// The error for a delivery that another process must sign. It counts no attempt.
fn hold_without_secret(job: &JobContext, receiver: &Receiver) -> JobError {
    let message = format!("this process has no secret for {receiver}: {}", signers::remedy());
    warn!(%receiver, "{message}");
    let until = job.now().saturating_add(WITHOUT_SECRET).unwrap_or(Timestamp::MAX);
    JobError::new(ErrorClass::Held { until, spread: HELD_SPREAD }, "receiver_busy", message)
}

/// The schemas of [`error_details`].
fn error_members() -> Map<String, serde_json::Value> {
    let member = |name: &str, description: &str| {
        let description = format!("webhook.deliver: {description}");
        (name.to_owned(), serde_json::json!({ "type": "string", "description": description }))
    };
    [
        member("receiver", "scheme and host of the URL that was not delivered to."),
        member("eventId", "the id of the event that was not delivered."),
    ]
    .into_iter()
    .collect()
}

fn error_details(receiver: &Receiver, event_id: &str) -> Map<String, serde_json::Value> {
    let members = [("receiver", receiver.to_string()), ("eventId", event_id.to_owned())];
    members.map(|(member, value)| (member.to_owned(), value.into())).into_iter().collect()
}

#[cfg(test)]
mod tests;
