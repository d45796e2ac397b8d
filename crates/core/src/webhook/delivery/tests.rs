//! One try, against a receiver on this machine.

use std::sync::Arc;

use clap::Parser;
use serde_json::json;

use super::*;
use crate::webhook::{
    SECRET_VARIABLE,
    address_guard::{AddressEntry, AddressList, system_resolver},
    stub::Stub,
};
use genfleet_genesys::{CredentialSource, Credentials, GenesysClient, GenesysOptions, Rights};
use genfleet_job::{
    JobId,
    clock::{Clock, SystemClock},
    supervisor::Supervisor,
    trace_context::TraceContext,
};
use genfleet_telemetry::http::install_tls;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const EVENT: &str = "{\"id\": \"\u{e4}\",  \"type\":\"t\"}";

#[derive(Debug)]
struct Noon;

impl Clock for Noon {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(1_614_265_330).unwrap()
    }
}

#[derive(Parser)]
struct Program {
    #[command(flatten)]
    genesys: GenesysOptions,
}

fn services() -> Services {
    install_tls();
    let options = Program::parse_from(["program"]).genesys;
    let nobody = Credentials { id: "id".to_owned().into(), secret: "hush".to_owned().into() };
    let clock: SharedClock = Arc::new(SystemClock);
    let source = CredentialSource::Given(nobody);
    let genesys =
        GenesysClient::with_credentials(&options, Vec::<(Kind, Rights)>::new(), clock.clone(), source).unwrap();
    Services { genesys, supervisor: Supervisor::new().0, clock }
}

fn job() -> JobContext {
    let first = JobContext::first(JobId::parse("a-delivery").unwrap(), Kind::WebhookDeliver, &services());
    JobContext { max_attempts: 7, ..first }
}

fn deliverer(allowed: &[&str]) -> Deliverer {
    install_tls();
    let allowed: Vec<AddressEntry> = allowed.iter().map(|entry| entry.parse().unwrap()).collect();
    Deliverer {
        signers: Signers::new(Some(WebhookSecrets::parse(SECRET_VARIABLE, &SECRET.to_owned().into()).unwrap()), &[])
            .unwrap(),
        client: WebhookClient::with_resolver(AddressList::new(&allowed, &[]), None, system_resolver()).unwrap(),
        hosts: HostLimits::new(16, 1.0),
        failing: FailingReceivers::default(),
        retry_scale: 1.0,
        clock: Arc::new(Noon),
    }
}

fn payload(url: &str) -> DeliveryPayload {
    DeliveryPayload { url: url.to_owned(), event_id: "msg_1".to_owned(), event: EVENT.to_owned() }
}

async fn answered(answer: &str) -> Result<u16, JobError> {
    let stub = Stub::answering("127.0.0.1", answer).await;
    let payload = payload(&format!("http://127.0.0.1:{}/hush", stub.port));
    match deliverer(&["127.0.0.1"]).handle(&job(), payload, ()).await? {
        Progress::Done(report) => Ok(report.status),
        Progress::Begun { .. } => panic!("a delivery has no steps"),
    }
}

#[tokio::test]
async fn a_delivery_is_the_event_signed_with_its_trace_and_nothing_of_ours() {
    let stub = Stub::answering("127.0.0.1", "202 Accepted").await;
    let job = JobContext {
        trace: TraceContext::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", Some("a=b")),
        ..job()
    };
    let url = format!("http://127.0.0.1:{}/path?query", stub.port);
    deliverer(&["127.0.0.1"]).handle(&job, payload(&url), ()).await.unwrap();
    let asked = stub.requests().remove(0);
    assert_eq!(asked.body, EVENT);
    let secrets = WebhookSecrets::parse(SECRET_VARIABLE, &SECRET.to_owned().into()).unwrap();
    for (header, value) in [
        ("content-type", event::CONTENT_TYPE),
        ("webhook-id", "msg_1"),
        ("webhook-timestamp", "1614265330"),
        ("webhook-signature", &secrets.sign("msg_1", Noon.now(), EVENT.as_bytes())),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ] {
        assert_eq!(asked.header(header), Some(value), "{header}");
    }
    assert!(asked.header("tracestate").is_none(), "what the producer's tracing system tells is not for strangers");
    assert!(asked.header("authorization").is_none() && asked.header("cookie").is_none());
    assert_eq!(job.record().requests, 1);
}

#[tokio::test]
async fn what_follows_from_each_answer() {
    for status in [200, 201, 202, 204, 299] {
        assert_eq!(answered(&format!("{status} X")).await, Ok(status));
    }
    for status in [300, 301, 302, 304, 307, 308, 400, 401, 403, 404, 408, 409, 411, 413, 422, 425, 429, 500, 501, 503] {
        let error = answered(&format!("{status} X")).await.unwrap_err();
        assert_eq!((error.class, error.code), (ErrorClass::Transient, "receiver_refused"), "{status}");
        assert_eq!(error.status, Some(status));
        assert!(!error.message.contains("hush"), "{}", error.message);
    }
    let gone = answered("410 Gone").await.unwrap_err();
    assert_eq!((gone.class, gone.code, gone.status), (ErrorClass::Permanent, "gone", Some(410)));
}

#[tokio::test]
async fn what_a_receiver_asks_for_is_what_the_delivery_waits_at_least() {
    let error = answered("429 Slow\r\nretry-after: 90").await.unwrap_err();
    assert_eq!(error.retry_after, Duration::from_secs(90));
    let date = answered("503 Later\r\nretry-after: Thu, 25 Feb 2021 15:03:00 GMT").await.unwrap_err();
    assert_eq!(date.retry_after, Duration::from_secs(50), "by the clock that is passed in");
}

#[tokio::test]
async fn an_address_that_is_not_public_is_refused_for_good_and_says_of_which_event() {
    for url in ["https://127.0.0.1:1/hush", "https://10.0.0.1/hush", "https://localhost:1/hush", "http://8.8.8.8/hush"]
    {
        let job = job();
        let error = deliverer(&[]).handle(&job, payload(url), ()).await.unwrap_err();
        assert_eq!(job.record().requests, 0, "nothing was sent");
        assert_eq!((error.class, error.code), (ErrorClass::Permanent, "address_refused"), "{url}");
        let reported = json!([error.message, error.details]).to_string();
        assert!(!reported.contains("hush") && reported.contains("--webhook-allow"), "{url}: {reported}");
        assert_eq!(error.details["eventId"], "msg_1");
    }
}

#[tokio::test]
async fn a_receiver_that_is_not_there_is_tried_again_and_its_url_is_not_told() {
    let error = deliverer(&["127.0.0.1"]).handle(&job(), payload("http://127.0.0.1:1/hush"), ()).await.unwrap_err();
    assert_eq!((error.class, error.code), (ErrorClass::Transient, "receiver_unavailable"));
    assert!(error.message.starts_with("http://127.0.0.1:1 "), "{}", error.message);
    assert!(!error.message.contains("hush"), "{}", error.message);
}

#[tokio::test]
async fn a_receiver_fails_until_it_takes_something() {
    let (down, up) = (Stub::answering("127.0.0.1", "500 No").await, Stub::answering("127.0.0.1", "200 OK").await);
    let mut deliverer = deliverer(&["127.0.0.1"]);
    deliverer.hosts = HostLimits::new(16, 0.0);
    let status = |deliverer: &Deliverer| deliverer.failing.status(tokio::time::Instant::now());
    let at = |stub: &Stub| payload(&format!("http://127.0.0.1:{}/hush", stub.port));
    for _ in 0..2 {
        deliverer.handle(&job(), at(&down), ()).await.unwrap_err();
    }
    deliverer.handle(&job(), at(&up), ()).await.unwrap();
    let failing = status(&deliverer).remove(0);
    assert_eq!((failing.in_a_row, failing.why), (2, format!("http://127.0.0.1:{} answers 500", down.port)));
    let receiver = Receiver::parse(&failing.receiver).unwrap();
    assert!(deliverer.failing.note_success(&receiver));
    deliverer.handle(&job(), payload("https://127.0.0.2/hush"), ()).await.unwrap_err();
    assert!(
        status(&deliverer).remove(0).why.starts_with("https://127.0.0.2 "),
        "refused for good, and reported as well"
    );
}

#[tokio::test]
async fn a_host_that_is_busy_counts_no_attempt_and_is_sent_nothing() {
    let stub = Stub::answering("127.0.0.1", "200 OK").await;
    let deliverer = deliverer(&["127.0.0.1"]);
    let authority = format!("127.0.0.1:{}", stub.port);
    let mut permits = Vec::new();
    for _ in 0..4 {
        permits.push(deliverer.hosts.admit(&authority, 0.0, &job().stop).await);
    }
    let held = deliverer.handle(&job(), payload(&format!("http://{authority}/")), ()).await.unwrap_err();
    assert!(matches!(held.class, ErrorClass::Held { .. }), "{held:?}");
    assert!(stub.requests().is_empty());
}

#[tokio::test]
async fn a_process_that_stops_begins_no_delivery() {
    let stub = Stub::answering("127.0.0.1", "200 OK").await;
    let job = job();
    job.stop.cancel();
    let url = format!("http://127.0.0.1:{}/", stub.port);
    let error = deliverer(&["127.0.0.1"]).handle(&job, payload(&url), ()).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Interrupted);
    assert!(stub.requests().is_empty());
}

#[tokio::test]
async fn a_delivery_that_cannot_be_signed_here_is_left_to_others() {
    let deliverer = Deliverer { signers: Signers::default(), ..deliverer(&["127.0.0.1"]) };
    let stub = Stub::answering("127.0.0.1", "200 OK").await;
    let error = deliverer.handle(&job(), payload(&format!("http://127.0.0.1:{}/", stub.port)), ()).await.err().unwrap();
    assert!(matches!(error.class, ErrorClass::Held { .. }) && error.message.contains("--webhook-secret"), "{error:?}");
    assert_eq!(stub.requests().len(), 0);
}

#[tokio::test]
async fn an_address_that_has_enough_gets_no_more_under_another_port_and_others_do() {
    let deliverer = deliverer(&["127.0.0.0/8"]);
    let mut permits = Vec::new();
    for port in 1..=12 {
        let HostAdmission::Go(mut permit) = deliverer.hosts.admit(&format!("127.0.0.1:{port}"), 0.0, &job().stop).await
        else {
            panic!("{port} is not let in")
        };
        permit.use_address("127.0.0.1".parse().unwrap(), 0.0).unwrap();
        permits.push(permit);
    }
    let (near, far) = (Stub::answering("127.0.0.1", "200 OK").await, Stub::answering("127.0.0.2", "200 OK").await);
    let url = |ip: &str, stub: &Stub| payload(&format!("http://{ip}:{}/", stub.port));
    let held = deliverer.handle(&job(), url("127.0.0.1", &near), ()).await.err().unwrap();
    assert!(matches!(held.class, ErrorClass::Held { .. }) && near.requests().is_empty(), "{held:?}");
    assert!(deliverer.handle(&job(), url("127.0.0.2", &far), ()).await.is_ok());
    drop(permits);
    assert!(deliverer.handle(&job(), url("127.0.0.1", &near), ()).await.is_ok());
}

fn policy(scale: f64) -> RetryPolicy {
    RetryPolicy::Listed { waits: &WAITS, scale }
}

#[test]
fn a_delivery_is_tried_seven_times_in_eighteen_hours() {
    let policy = policy(1.0);
    let waits = |jitter| (1..=7).map(move |failed| policy.delay(failed, jitter, Duration::ZERO).as_secs());
    assert_eq!(waits(0.0).collect::<Vec<_>>(), [5, 300, 1800, 7200, 18_000, 36_000, 36_000]);
    assert_eq!(waits(1.0).collect::<Vec<_>>(), [5, 330, 1980, 7920, 19_800, 39_600, 39_600]);
}

#[test]
fn a_rehearsal_is_quicker_but_what_a_receiver_asks_for_is_not() {
    let policy = policy(0.001);
    assert_eq!(policy.delay(1, 0.0, Duration::ZERO), Duration::from_millis(5));
    assert_eq!(policy.delay(1, 0.0, Duration::from_secs(60)), Duration::from_secs(60));
}
