//! Traces (SPEC 1, 9): a job's API requests, its event and its webhooks are in its producer's trace. A slow or unavailable
//! collector causes a loss of spans, but not of jobs.

use genfleet_simulator::{RecordedRequest, Simulator, SimulatorOptions};
use harness::{
    Amqp, Broker, Collector, Events, Launch, Message, Prefix, Process, Receiver, Span, eventually, headers,
    json_properties, seconds,
};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

use crate::stack::{
    assert_all_succeeded, outcomes, publish_one_path_jobs, purge_job, simulator, simulator_with, worker,
};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PRODUCER: &str = "b7ad6b7169203331";
const PURGE: &str = "POST /api/v2/external/cdn/purge";

/// All requests of an attempt fail.
const FAULT: &str = "status=503,times=4,path=/api/v2/external/cdn/purge";

fn traceparent() -> String {
    format!("00-{TRACE}-{PRODUCER}-01")
}

async fn publish(amqp: &Amqp, prefix: &Prefix, id: &str, traceparent: &str) {
    let trace = headers([("traceparent", traceparent), ("tracestate", "producer=1")]);
    let properties = json_properties().with_headers(trace).with_message_id(id.into());
    amqp.publish_job(prefix, "cdn.purge", purge_job(id, &[&format!("/{id}")]), properties).await;
}

async fn event(events: &mut Events) -> Message {
    events.next_message(seconds(60)).await.expect("an event")
}

/// The headers of the received purge requests.
fn purges(simulator: &Simulator) -> Vec<(Option<String>, Option<String>)> {
    let requests = simulator.requests().into_iter().filter(|request| request.path.ends_with("/cdn/purge"));
    let header = |name: &str, request: &RecordedRequest| request.headers.get(name).cloned();
    requests.map(|request| (header("traceparent", &request), header("tracestate", &request))).collect()
}

fn queue(prefix: &Prefix) -> String {
    format!("process {}.jobs.cdn.purge", &**prefix)
}

#[tokio::test(flavor = "multi_thread")]
async fn request_event_and_webhook_are_in_the_trace_of_the_jobs_producer() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let (simulator, collector, receiver) = (simulator().await, Collector::start().await, Receiver::start().await);
    // No spans are exported until it stops.
    let purger = collector
        .collect_from(worker("purger", broker, &prefix, &simulator))
        .env("OTEL_BSP_SCHEDULE_DELAY", "600000")
        .env("GENFLEET_WEBHOOK_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
        .env("GENFLEET_WEBHOOK_ALLOW", "127.0.0.1")
        .env("GENFLEET_WEBHOOK_URL", &receiver.url())
        .start();
    purger.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    publish(&amqp, &prefix, "job-1", &traceparent()).await;
    let event = event(&mut events).await;
    eventually(seconds(30), "the webhook is delivered", async || !receiver.taken().is_empty()).await;
    assert_eq!(collector.spans().len(), 0);
    purger.terminate();
    assert_eq!(purger.wait(seconds(30)).await, 0);

    let spans = collector.spans();
    let named = |name: &str| {
        let found: Vec<&Span> = spans.iter().filter(|span| span.name == name).collect();
        assert_eq!(found.len(), 1, "{name:?} of {spans:#?}");
        found[0].clone()
    };
    let process = named(&queue(&prefix));
    assert_eq!((process.kind, process.trace.as_str(), process.parent.as_str()), (SpanKind::Consumer, TRACE, PRODUCER));
    for (name, value) in [
        ("messaging.system", "rabbitmq"),
        ("messaging.operation.name", "process"),
        ("messaging.operation.type", "process"),
        ("messaging.destination.name", &format!("{}.jobs.cdn.purge", &*prefix)),
        ("messaging.message.id", "job-1"),
        ("messaging.message.body.size", &purge_job("job-1", &["/job-1"]).len().to_string()),
        ("genfleet.job.id", "job-1"),
        ("genfleet.job.outcome", "succeeded"),
    ] {
        assert_eq!(process.says(name), value, "{name}");
    }
    assert_eq!(process.resource["service.name"], "purger");

    let request = named(PURGE);
    assert!(request.kind == SpanKind::Client && request.belongs_to(&process) && !request.failed);
    assert_eq!(purges(&simulator), [(Some(request.traceparent()), Some("producer=1".to_owned()))]);
    for (name, value) in [
        ("http.request.method", "POST"),
        ("http.response.status_code", "202"),
        ("url.template", "/api/v2/external/cdn/purge"),
        ("server.address", "127.0.0.1"),
    ] {
        assert_eq!(request.says(name), value, "{name}");
    }
    assert_eq!(named("POST /oauth/token").parent, "", "a token is for all jobs");

    let send = named(&format!("send {}.events", &*prefix));
    assert!(send.kind == SpanKind::Producer && send.belongs_to(&process));
    assert_eq!(send.says("messaging.rabbitmq.destination.routing_key"), "cdn.purge.succeeded");
    assert_eq!(event.json()["traceparent"], send.traceparent());
    assert_eq!(event.header("traceparent"), Some(send.traceparent()));
    assert_eq!(event.header("tracestate").as_deref(), Some("producer=1"));

    let deliver = named(&format!("process {}.jobs.webhook.deliver", &*prefix));
    let post = named("POST");
    assert!(deliver.belongs_to(&send) && post.belongs_to(&deliver) && post.kind == SpanKind::Client);
    let delivered = &receiver.deliveries()[0];
    assert_eq!(delivered.header("traceparent"), post.traceparent());
    assert_eq!(delivered.header("tracestate"), "", "what the producer tells its tracing system is not for receivers");
    assert_eq!(post.says("url.full"), receiver.url().trim_end_matches("/hook"));

    let output = format!("{spans:?}");
    for secret in ["/hook", "hush", "whsec_", "/job-1\""] {
        assert!(!output.contains(secret), "{secret} in {output}");
    }
    let logs = purger.logs();
    let closing = logs.iter().find(|line| line["message"] == "job ended").expect("a closing line");
    assert_eq!(closing["trace_id"], TRACE);
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_are_siblings_and_without_a_producers_trace_children_of_the_first() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let faults = vec![FAULT.parse().unwrap()];
    let simulator = simulator_with(SimulatorOptions { faults, ..SimulatorOptions::default() }).await;
    let collector = Collector::start().await;
    let purger = collector.collect_from(worker("purger", broker, &prefix, &simulator)).start();
    purger.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    publish(&amqp, &prefix, "siblings", &traceparent()).await;
    assert_eq!(event(&mut events).await.json()["data"]["attempts"], 2);

    let both = attempts(&collector, &prefix, "siblings").await;
    for attempt in &both {
        assert_eq!((attempt.trace.as_str(), attempt.parent.as_str()), (TRACE, PRODUCER));
    }
    let outcomes = both.each_ref().map(|attempt| (attempt.says("genfleet.job.outcome"), attempt.says("error.type")));
    assert_eq!(outcomes, [("again", "api_unavailable"), ("succeeded", "")]);
    let requests = collector.named(PURGE, 5).await;
    let mut sent: Vec<_> = requests.iter().filter(|request| request.belongs_to(&both[0])).collect();
    sent.sort_by_key(|request| request.says("http.request.resend_count").to_owned());
    let output =
        |request: &&Span| (request.says("http.request.resend_count").to_owned(), request.says("error.type").to_owned());
    let expected = ["", "1", "2", "3"].map(|count| (count.to_owned(), "503".to_owned()));
    assert_eq!(sent.iter().map(output).collect::<Vec<_>>(), expected);

    simulator.set_faults(vec![FAULT.parse().unwrap()]);
    amqp.publish_job(&prefix, "cdn.purge", purge_job("of-its-own", &["/b"]), json_properties()).await;
    let output = event(&mut events).await.json();
    let [first, second] = attempts(&collector, &prefix, "of-its-own").await;
    assert_eq!(first.parent, "");
    assert_eq!((&second.trace, &second.parent), (&first.trace, &first.id));
    assert_eq!(output["traceparent"].as_str().map(|place| &place[3..35]), Some(first.trace.as_str()));
}

/// Returns both attempts of a job, in order.
async fn attempts(collector: &Collector, prefix: &Prefix, job: &str) -> [Span; 2] {
    let attempts = eventually(seconds(30), "both attempts are exported", async || {
        let mut attempts = collector.spans();
        attempts.retain(|span| span.says("genfleet.job.id") == job);
        attempts.sort_by_key(|span| span.says("genfleet.job.attempts").to_owned());
        <[Span; 2]>::try_from(attempts).map_err(|attempts| format!("{attempts:#?}"))
    })
    .await;
    let resumed = queue(prefix).replace(".jobs.", ".resume.");
    assert_eq!(attempts.each_ref().map(|attempt| attempt.name.as_str()), [queue(prefix).as_str(), &resumed]);
    attempts
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_jobs_share_belongs_to_all_of_them() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    // While the request of the first job is in progress, the others are collected.
    let faults = vec!["latency=500,times=1,path=/api/v2/external/cdn/purge".parse().unwrap()];
    let simulator = simulator_with(SimulatorOptions { faults, ..SimulatorOptions::default() }).await;
    let collector = Collector::start().await;
    let purger = collector.collect_from(worker("purger", broker, &prefix, &simulator)).start();
    purger.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    for number in 1..=20 {
        publish(&amqp, &prefix, &format!("job-{number}"), &format!("00-{number:032x}-{PRODUCER}-01")).await;
    }
    assert_all_succeeded(&outcomes(&mut events, 20, seconds(60)).await);

    let jobs = collector.named(&queue(&prefix), 20).await;
    let requests = collector.named(PURGE, purges(&simulator).len()).await;
    for job in &jobs {
        assert!(requests.iter().any(|request| request.belongs_to(job)), "{job:?} of {requests:#?}");
    }
    let shared = requests.iter().find(|request| !request.links.is_empty()).expect("they shared a request");
    assert_eq!(shared.says("genfleet.request.jobs"), (shared.links.len() + 1).to_string());
    for job in jobs.iter().filter(|job| job.trace != shared.trace && shared.belongs_to(job)) {
        assert!(job.belongs_to(shared), "the way back: {job:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_sent_twice_is_worked_once_and_is_in_both_traces() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let faults = vec!["latency=3000,times=1,path=/api/v2/external/cdn/purge".parse().unwrap()];
    let simulator = simulator_with(SimulatorOptions { faults, ..SimulatorOptions::default() }).await;
    let collector = Collector::start().await;
    let purger = collector.collect_from(worker("purger", broker, &prefix, &simulator)).start();
    purger.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    let other = traceparent().replace("0af7", "1111");
    publish(&amqp, &prefix, "twice", &traceparent()).await;
    eventually(seconds(30), "it is worked", async || purges(&simulator).len() == 1).await;
    publish(&amqp, &prefix, "twice", &other).await;
    let output =
        [event(&mut events).await, event(&mut events).await].map(|event| event.json()["traceparent"].to_string());

    assert_eq!(purges(&simulator).len(), 1);
    let jobs = collector.named(&queue(&prefix), 2).await;
    let of = |parent: &str| jobs.iter().find(|job| parent.contains(&job.trace)).expect("one in each trace");
    assert!(of(&other).belongs_to(of(&traceparent())), "{jobs:#?}");
    for parent in [&traceparent(), &other] {
        assert!(output.iter().any(|output| output.contains(&parent[3..35])), "{parent} of {output:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_variable_nothing_is_exported_and_a_trace_goes_on_as_it_came() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let (simulator, collector) = (simulator().await, Collector::start().await);
    let off = [("OTEL_TRACES_SAMPLER", "always_on"), ("OTEL_SERVICE_NAME", "nobody")];
    let disabled = [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint()), ("OTEL_SDK_DISABLED", "true".to_owned())];
    let not_set = off.map(|(name, value)| (name, value.to_owned()));
    for settings in [not_set, disabled] {
        let launch = worker("purger", broker, &prefix, &simulator);
        let purger = settings.iter().fold(launch, |launch, (name, value)| launch.env(name, value)).start();
        purger.wait_ready(seconds(30)).await;
        let amqp = Amqp::connect(broker.url()).await;
        let mut events = amqp.declare_events_queue(&prefix).await;
        let before = purges(&simulator).len();
        publish(&amqp, &prefix, "with", &traceparent()).await;
        let output = event(&mut events).await;
        assert_eq!(output.json()["traceparent"], traceparent());
        assert_eq!(output.header("traceparent"), Some(traceparent()));
        amqp.publish_job(&prefix, "cdn.purge", purge_job("without", &["/b"]), json_properties()).await;
        let output = event(&mut events).await;
        assert_eq!((output.json().get("traceparent"), output.header("traceparent")), (None, None), "none is made up");
        let came = (Some(traceparent()), Some("producer=1".to_owned()));
        assert_eq!(purges(&simulator)[before..], [came, (None, None)]);
        purger.terminate();
        assert_eq!(purger.wait(seconds(30)).await, 0);
    }
    assert_eq!(collector.receiver.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_slow_or_unwilling_costs_spans_and_no_jobs() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    let mut collector = Collector::start().await;
    for (number, state) in ["away", "slow", "unwilling"].into_iter().enumerate() {
        match state {
            "away" => collector.receiver.down().await,
            "slow" => {
                collector.receiver.up().await;
                collector.receiver.hang();
            }
            _ => collector.receiver.answer("500 No"),
        }
        let purger = collector
            .collect_from(worker("purger", broker, &prefix, &simulator))
            .env("OTEL_EXPORTER_OTLP_TIMEOUT", "500")
            .env("OTEL_BSP_MAX_QUEUE_SIZE", "32")
            .env("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "16")
            .start();
        purger.wait_ready(seconds(30)).await;
        let amqp = Amqp::connect(broker.url()).await;
        let mut events = amqp.declare_events_queue(&prefix).await;
        publish_one_path_jobs(&amqp, &prefix, &format!("{state}-{number}"), 300).await;
        assert_all_succeeded(&outcomes(&mut events, 300, seconds(60)).await);
        eventually(seconds(30), "it says that spans are lost", async || purger.stderr().contains("spans are lost"))
            .await;
        purger.terminate();
        assert_eq!(purger.wait(seconds(30)).await, 0, "{state}");
        let logs = purger.logs();
        let output = logs.iter().filter(|line| line["message"].to_string().contains("spans are lost")).count();
        assert_eq!(output, 1, "{state}: not again within a minute");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_traced_too_and_collector_headers_are_never_shown() {
    let collector = Collector::start().await;
    let batch = collector
        .collect_from(Process::binary("genfleet"))
        .args(["run", "--simulate", "--log", "info", "-"])
        .env("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20hush,no-header")
        .env("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        .stdin(r#"{"id":"a","kind":"cdn.purge","payload":{"paths":["/a"]}}"#)
        .start();
    assert_eq!(batch.wait(seconds(60)).await, 0);
    let spans = collector.named("process genfleet.jobs.cdn.purge", 1).await;
    assert_eq!(spans[0].says("messaging.system"), "sqlite");
    assert_eq!(
        (&*spans[0].resource["service.name"], &*spans[0].resource["deployment.environment.name"]),
        ("genfleet", "test")
    );
    assert_eq!(collector.receiver.deliveries()[0].header("authorization"), "Bearer hush");
    assert!(!batch.stderr().contains("hush"), "{}", batch.stderr());
    assert!(batch.stderr().contains("OTEL_EXPORTER_OTLP_HEADERS"), "an entry that is none is reported");
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_make_no_sense_are_reported() {
    let check = |name: &str, value: &str| {
        let launch: Launch = Process::binary("purger").args(["--check-config"]).env(name, value);
        let launch = if name.ends_with("ENDPOINT") {
            launch
        } else {
            launch.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
        };
        launch
            .env("GENFLEET_QUEUE_URL", "amqp://127.0.0.1:1")
            .env("GENESYS_CLIENT_ID", "id")
            .env("GENESYS_CLIENT_SECRET", "hush")
            .start()
    };
    for (name, value, exit, output) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1", 0, ""),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318", 64, "OTEL_EXPORTER_OTLP_ENDPOINT: not the address"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "nowhere", 64, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: not the address"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/no/such/file", 64, "/no/such/file, which cannot be read"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", 0, "only http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon", 0, "OTEL_EXPORTER_OTLP_TIMEOUT"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "many", 0, "OTEL_BSP_MAX_QUEUE_SIZE"),
        ("OTEL_TRACES_SAMPLER", "sometimes", 0, "OTEL_TRACES_SAMPLER"),
        ("OTEL_RESOURCE_ATTRIBUTES", "what", 0, "OTEL_RESOURCE_ATTRIBUTES"),
        ("OTEL_SDK_DISABLED", "perhaps", 0, "OTEL_SDK_DISABLED"),
    ] {
        let process = check(name, value);
        assert_eq!(process.wait(seconds(20)).await, exit, "{name}={value}: {}", process.stderr());
        assert!(process.stderr().contains(output), "{name}={value}: {}", process.stderr());
    }
}
