//! `webhook.deliver`: one event to one URL. A job like the others, run by the same engine; what differs is that it does
//! not concern Genesys Cloud at all.

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
    hosts::{Entered, Fate, Hosts, Turn},
    options::WebhookOptions,
    post::{Answer, NoAnswer, Post},
    receiver::Receiver,
    signature::Secrets,
    signers::{self, Signers},
};
use crate::{
    contract::{Terms, code::Code},
    handler::{Defaults, JobContext, JobHandler, Progress, Services},
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
use genfleet_telemetry::trace::{
    attribute,
    span::{About, Span, SpanKind},
};

/// After so long a delivery that cannot be signed here is looked at again.
const WITHOUT_SECRET: Duration = Duration::from_secs(60);

/// What became of a try; the metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Taken.
    Delivered,
    /// Not taken; it is tried again.
    Retried,
    /// Not taken, and it was the last try.
    Failed,
    /// The receiver wants nothing any more.
    Gone,
    /// The address is not delivered to.
    Refused,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Delivered, Self::Retried, Self::Failed, Self::Gone, Self::Refused];

    /// The label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Retried => "retried",
            Self::Failed => "failed",
            Self::Gone => "gone",
            Self::Refused => "refused",
        }
    }
}

/// What a delivery needs. Not for `Debug`: the URL may be as good as a password.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Payload {
    /// Where to.
    pub url: String,
    /// Sent as `webhook-id`: the same for every try and every repeat.
    #[schemars(regex(pattern = r"^[A-Za-z0-9_-]{1,64}$"))]
    pub event_id: String,
    /// The event byte for byte: sent as the body.
    pub event: String,
}

/// What a delivery that succeeded came to.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub struct Report {
    /// The receiver's.
    pub status: u16,
}

/// Delivers.
#[derive(Debug)]
pub struct Deliverer {
    pub(super) signers: Signers,
    pub(super) post: Post,
    pub(super) hosts: Hosts,
    pub(super) failing: FailingReceivers,
    pub(super) retry_scale: f64,
    pub(super) clock: SharedClock,
}

impl JobHandler for Deliverer {
    const KIND: Kind = Kind::WebhookDeliver;
    const ACTION: &'static str = "webhook_delivered";
    const SCOPES: &'static [&'static str] = &[];
    const DEFAULTS: Defaults = Defaults { concurrency: 16 };

    type Options = WebhookOptions;
    type Payload = Payload;
    type State = ();
    type Report = Report;

    fn new(options: WebhookOptions, services: &Services) -> Result<Self, ConfigError> {
        let deliverer = Webhooks::new(&options)?.deliverer(&services.clock, &FailingReceivers::default());
        deliverer
            .ok_or_else(|| ConfigError::new("this process delivers no webhooks: it has no secret, or is told not to"))
    }

    /// Nobody upstream sends these jobs; their failures are told all the same.
    fn terms() -> Terms {
        let codes = vec![
            Code::new(
                "address_refused",
                "The receiver's address is not public, and --webhook-allow does not name it; or --webhook-deny does.",
            ),
            Code::new("gone", "The receiver wants no more of it (410)."),
            Code::new("receiver_refused", "The receiver answered neither 2xx nor 410. Only a cause."),
            Code::new("receiver_timeout", "The receiver did not answer within 15 s. Only a cause."),
            Code::new("receiver_unavailable", "The receiver could not be reached. Only a cause."),
        ];
        Terms { codes, error_members: error_members(), ..Terms::default() }
    }

    fn validate(payload: &Payload, _: &WebhookOptions) -> Vec<Violation> {
        let wrong = Receiver::parse(&payload.url).err();
        wrong.map(|told| Violation::new("/payload/url", told)).into_iter().collect()
    }

    fn retries(&self, _: RetryPolicy) -> RetryPolicy {
        RetryPolicy::webhook(self.retry_scale)
    }

    async fn handle(&self, job: &JobContext, payload: Payload, (): ()) -> Result<Progress<Self>, JobError> {
        let receiver = Receiver::parse(&payload.url).map_err(|told| JobError::permanent("invalid_job", told))?;
        let Some(secrets) = self.signers.of(&receiver) else { return Err(unsigned(job, &receiver)) };
        let turn = self.turn(job, &receiver).await?;
        let event_id = payload.event_id.clone();
        let (outcome, result) = self.tried(job, &receiver, payload, secrets, turn).await;
        metrics::counter!(metric::WEBHOOK_DELIVERIES, "outcome" => outcome.as_str()).increment(1);
        self.note(&receiver, &event_id, outcome, result.as_ref().err());
        match result {
            Ok(report) => Ok(Progress::Done(report)),
            Err(error) => Err(JobError { details: told(&receiver, &event_id), ..error }),
        }
    }
}

impl Deliverer {
    /// The right to deliver: at the host, then at its address, which is looked up once there is a seat.
    async fn turn(&self, job: &JobContext, receiver: &Receiver) -> Result<Turn, JobError> {
        let mut turn = match self.hosts.enter(&receiver.authority(), fastrand::f64(), &job.stop).await {
            Entered::Go(turn) => turn,
            Entered::Later(wait) => return Err(held(job, receiver, wait)),
            Entered::Stopped => return Err(JobError::interrupted()),
        };
        if let Some(address) = self.post.address(receiver).await {
            turn.connects_to(address, fastrand::f64()).map_err(|wait| held(job, receiver, wait))?;
        }
        if job.stop.is_cancelled() { Err(JobError::interrupted()) } else { Ok(turn) }
    }

    /// A receiver that begins to fail is worth a warning, and that it takes again a word; what is between is routine.
    fn note(&self, receiver: &Receiver, event_id: &str, outcome: Outcome, error: Option<&JobError>) {
        // Unlike those of other kinds, its messages quote nothing of a payload.
        let (outcome_told, why) = (outcome.as_str(), error.map(|error| error.message.as_str()).unwrap_or_default());
        match outcome {
            Outcome::Delivered => {
                if self.failing.took(receiver) {
                    info!(%receiver, "the receiver takes events again");
                }
            }
            Outcome::Gone => {
                self.failing.took(receiver);
                info!(%receiver, event_id, outcome = outcome_told, why, "not delivered");
            }
            Outcome::Retried | Outcome::Failed | Outcome::Refused => {
                if self.failing.took_not(receiver, why, Instant::now()) {
                    warn!(%receiver, event_id, outcome = outcome_told, why, "not delivered");
                } else {
                    info!(%receiver, event_id, outcome = outcome_told, why, "not delivered");
                }
            }
        }
    }

    async fn tried(
        &self,
        job: &JobContext,
        receiver: &Receiver,
        payload: Payload,
        secrets: &Secrets,
        turn: Turn,
    ) -> (Outcome, Result<Report, JobError>) {
        if !self.post.allows_scheme(receiver) {
            return refused(receiver, "is no https; --webhook-allow opens it, on every worker that delivers");
        }
        let now = self.clock.now();
        let mut headers = headers(&payload, secrets, now);
        let span = posting(job, receiver);
        span.inject(&mut headers);
        // What tracing systems tell each other is none of a stranger's business.
        headers.remove(TRACESTATE);
        let sent = self.post.send(receiver, headers, payload.event.into(), now).await;
        if !matches!(sent, Err(NoAnswer::Refused(_))) {
            job.count_requests(1);
        }
        posted(span, &sent);
        if let Some(fate) = fate(&sent) {
            turn.ended(fate);
        }
        let failed = if job.is_last_attempt() { Outcome::Failed } else { Outcome::Retried };
        match sent {
            Ok(Answer { status, .. }) if (200..300).contains(&status) => (Outcome::Delivered, Ok(Report { status })),
            Ok(Answer { status: 410, .. }) => {
                let told = format!("{receiver} answers 410: it wants nothing any more");
                (Outcome::Gone, Err(JobError { status: Some(410), ..JobError::permanent("gone", told) }))
            }
            Ok(answer) => (failed, Err(unexpected(receiver, answer))),
            Err(NoAnswer::Refused(error)) => {
                warn!(%receiver, ip = ?error.ip, "the receiver's address is not delivered to");
                refused(receiver, &error.to_string())
            }
            Err(NoAnswer::TimedOut) => {
                let told = format!("{receiver} does not answer within 15 s");
                (failed, Err(JobError::new(ErrorClass::Transient, "receiver_timeout", told)))
            }
            Err(NoAnswer::Broken(why)) => {
                let told = format!("{receiver} cannot be reached: {why}");
                (failed, Err(JobError::new(ErrorClass::Transient, "receiver_unavailable", told)))
            }
        }
    }
}

fn headers(payload: &Payload, secrets: &Secrets, now: Timestamp) -> HeaderMap {
    let signature = secrets.sign(&payload.event_id, now, payload.event.as_bytes());
    let all = [
        (CONTENT_TYPE, event::CONTENT_TYPE.to_owned()),
        (HeaderName::from_static("webhook-id"), payload.event_id.clone()),
        (HeaderName::from_static("webhook-timestamp"), now.as_second().to_string()),
        (HeaderName::from_static("webhook-signature"), signature),
    ];
    // All fit in headers: the id is checked, the rest is ours.
    all.into_iter().filter_map(|(name, value)| Some((name, HeaderValue::try_from(value).ok()?))).collect()
}

/// The span of a try. Of the URL it has what the log has, and so has its name.
fn posting(job: &JobContext, receiver: &Receiver) -> Span {
    Span::begin(job.trace.as_slice(), || {
        let url = receiver.url();
        About::new(SpanKind::Client, "POST")
            .with(attribute::HTTP_METHOD, "POST")
            .with(attribute::URL_FULL, receiver.to_string())
            .with_some(attribute::SERVER_ADDRESS, url.host_str().map(str::to_owned))
            .with_some(attribute::SERVER_PORT, url.port_or_known_default().map(i64::from))
            .with_some(attribute::HTTP_RESEND_COUNT, (job.attempts > 0).then_some(i64::from(job.attempts)))
    })
}

fn posted(mut span: Span, sent: &Result<Answer, NoAnswer>) {
    match sent {
        Ok(Answer { status, .. }) => {
            span.set(attribute::HTTP_STATUS, i64::from(*status));
            if !(200..300).contains(status) {
                span.fail(status.to_string());
            }
        }
        Err(NoAnswer::Refused(_)) => span.fail("address_refused"),
        Err(NoAnswer::TimedOut) => span.fail("timeout"),
        Err(NoAnswer::Broken(_)) => span.fail("broken"),
    }
}

/// A redirect, too: it could lead to where no delivery may go.
fn unexpected(receiver: &Receiver, Answer { status, retry_after }: Answer) -> JobError {
    let hint = if (300..400).contains(&status) { "; redirects are not followed" } else { "" };
    let told = format!("{receiver} answers {status}{hint}");
    if let Some(wait) = retry_after.filter(|wait| *wait > LONG_PAUSE) {
        warn!(%receiver, seconds = wait.as_secs(), "the receiver asks for a pause of more than an hour (Retry-After): it is kept");
    }
    let error = JobError::new(ErrorClass::Transient, "receiver_refused", told);
    JobError { status: Some(status), retry_after: retry_after.unwrap_or_default(), ..error }
}

fn refused(receiver: &Receiver, why: &str) -> (Outcome, Result<Report, JobError>) {
    (Outcome::Refused, Err(JobError::permanent("address_refused", format!("{receiver} {why}"))))
}

/// What a try says about its host; nothing where none was made.
fn fate(sent: &Result<Answer, NoAnswer>) -> Option<Fate> {
    match sent {
        Ok(Answer { status: 408 | 429 | 500.., retry_after }) => Some(Fate::Fails { asked: *retry_after }),
        Ok(_) => Some(Fate::Answers),
        Err(NoAnswer::TimedOut | NoAnswer::Broken(_)) => Some(Fate::Fails { asked: None }),
        Err(NoAnswer::Refused(_)) => None,
    }
}

/// Burns nothing.
fn held(job: &JobContext, receiver: &Receiver, wait: Duration) -> JobError {
    let until = job.now().saturating_add(wait).unwrap_or(Timestamp::MAX);
    let told = format!("{receiver} is busy or failing; other receivers go first");
    JobError::new(ErrorClass::Held { until, spread: HELD_SPREAD }, "receiver_busy", told)
}

/// A process that has no secret for it leaves it to one that has. Burns nothing.
fn unsigned(job: &JobContext, receiver: &Receiver) -> JobError {
    let told = format!("{receiver} has no secret here that could sign for it: {}", signers::remedy());
    warn!(%receiver, "{told}");
    let until = job.now().saturating_add(WITHOUT_SECRET).unwrap_or(Timestamp::MAX);
    JobError::new(ErrorClass::Held { until, spread: HELD_SPREAD }, "receiver_busy", told)
}

/// See [`told`].
fn error_members() -> Map<String, serde_json::Value> {
    let member = |name: &str, told: &str| {
        let told = format!("webhook.deliver: {told}");
        (name.to_owned(), serde_json::json!({ "type": "string", "description": told }))
    };
    [
        member("receiver", "scheme and host of the URL that was not delivered to."),
        member("eventId", "the id of the event that was not delivered."),
    ]
    .into_iter()
    .collect()
}

fn told(receiver: &Receiver, event_id: &str) -> Map<String, serde_json::Value> {
    let members = [("receiver", receiver.to_string()), ("eventId", event_id.to_owned())];
    members.map(|(member, value)| (member.to_owned(), value.into())).into_iter().collect()
}

#[cfg(test)]
mod tests;
