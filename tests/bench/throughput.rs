//! How fast the purger is on `RabbitMQ`, beside a bare consumer that only acknowledges the same messages:
//!
//! ```sh
//! cargo build --release --workspace --bins
//! GENFLEET_TEST_AMQP_URL=amqp://… cargo run --release -p genfleet-tests --bin throughput [JOBS]
//! ```
//!
//! Prints figures, judges nothing.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a benchmark")]

use std::time::Duration;

use futures_util::StreamExt;
use genfleet_simulator::{Simulator, SimulatorOptions};
use harness::{Amqp, Broker, Prefix, Process, eventually, json_properties, seconds};
use lapin::{
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use serde_json::json;
use tokio::time::Instant;

const LONG: Duration = Duration::from_secs(300);

#[tokio::main]
async fn main() {
    let jobs = std::env::args().nth(1).map_or(10_000, |count| count.parse().expect("a number of jobs"));
    let broker = Broker::shared().await;
    println!("{jobs} one-path jobs, prefetch 256, on one machine with broker, simulator and producer");
    for round in 1..=3 {
        println!("round {round}");
        report("bare consumer, acknowledges only", jobs, bare(broker, jobs).await);
        purger(broker, jobs, "coalescing on (linger 20ms)", &["--batch-linger", "20ms"]).await;
        purger(broker, jobs, "the same, without an audit", &["--batch-linger", "20ms", "--audit-log", "off"]).await;
        purger(broker, jobs, "coalescing off (linger 0ms)", &["--batch-linger", "0ms"]).await;
    }
}

fn report(what: &str, jobs: usize, took: Duration) {
    #[expect(clippy::cast_precision_loss, reason = "a figure to read")]
    let rate = jobs as f64 / took.as_secs_f64();
    println!("  {what}: {rate:.0} jobs/s ({:.2} s)", took.as_secs_f64());
}

async fn publish(amqp: &Amqp, prefix: &Prefix, jobs: usize) {
    let bodies = (0..jobs).map(|n| {
        let job = json!({ "id": format!("job-{n}"), "payload": { "paths": [format!("/bench/{n}")] } });
        (job.to_string(), json_properties())
    });
    amqp.publish_jobs(prefix, "cdn.purge", bodies).await;
}

/// The same queue, declared by a purger that is stopped before the jobs come.
async fn bare(broker: &Broker, jobs: usize) -> Duration {
    let prefix = Prefix::on(broker);
    let simulator = Simulator::start(SimulatorOptions::default()).await.unwrap();
    let declaring = start(broker, &prefix, &simulator, &[]);
    declaring.wait_ready(seconds(30)).await;
    declaring.terminate();
    declaring.wait(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    publish(&amqp, &prefix, jobs).await;
    let consumer = Amqp::connect(broker.url()).await;
    consumer.channel().basic_qos(256, BasicQosOptions::default()).await.unwrap();
    let queue = format!("{prefix}.jobs.cdn.purge");
    let began = Instant::now();
    let (tag, options, table) = ("".into(), BasicConsumeOptions::default(), FieldTable::default());
    let mut deliveries = consumer.channel().basic_consume(queue.as_str().into(), tag, options, table).await.unwrap();
    for _ in 0..jobs {
        let delivery = deliveries.next().await.unwrap().unwrap();
        delivery.acker.ack(BasicAckOptions::default()).await.unwrap();
    }
    began.elapsed()
}

async fn purger(broker: &Broker, jobs: usize, what: &str, arguments: &[&str]) {
    let prefix = Prefix::on(broker);
    let limits = 10_000_000;
    let options = SimulatorOptions {
        requests_per_minute: limits,
        client_requests_per_minute: limits,
        ..SimulatorOptions::default()
    };
    let simulator = Simulator::start(options).await.unwrap();
    let began = Instant::now();
    let process = start(broker, &prefix, &simulator, arguments);
    process.wait_ready(seconds(30)).await;
    let ready = began.elapsed();
    let idle = process.rss_kb();
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    publish(&amqp, &prefix, 1).await;
    events.next_event(LONG).await;
    let first = began.elapsed();
    process.terminate();
    process.wait(seconds(30)).await;

    publish(&amqp, &prefix, jobs).await;
    let process = start(broker, &prefix, &simulator, arguments);
    events.next_event(LONG).await;
    let began = Instant::now();
    events.collect_messages(jobs - 1, LONG).await;
    let took = began.elapsed();
    report(what, jobs - 1, took);
    let sent = simulator.requests().iter().filter(|request| request.path.ends_with("/purge")).count();
    println!("    {sent} purge requests, RSS idle {idle} kB, loaded {} kB", process.rss_kb());
    println!("    start to ready {:.2} s, start to first event {:.2} s", ready.as_secs_f64(), first.as_secs_f64());
    eventually(seconds(30), "all is settled", async || amqp.count(&format!("{prefix}.jobs.cdn.purge")).await == 0)
        .await;
    process.terminate();
    process.wait(seconds(30)).await;
}

fn start(broker: &Broker, prefix: &Prefix, simulator: &Simulator, arguments: &[&str]) -> Process {
    Process::binary("purger")
        .args(["--admin-addr", "127.0.0.1:0", "--log", "error,genfleet_core::admin=info"])
        .args(arguments.iter().copied())
        .env("GENFLEET_QUEUE_URL", broker.url())
        .env("GENFLEET_QUEUE_PREFIX", prefix)
        .env("GENESYS_BASE_URL", &simulator.base_url())
        .env("GENESYS_CLIENT_ID", "client")
        .env("GENESYS_CLIENT_SECRET", "hush")
        .env("GENFLEET_REQUESTS_PER_MINUTE", "10000000")
        .env("GENFLEET_CLIENT_REQUESTS_PER_MINUTE", "10000000")
        .start()
}
