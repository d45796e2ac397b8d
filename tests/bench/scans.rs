//! Measures how scans are followed on `RabbitMQ` with a budget: memory, use of the budget, and delay of results.
//!
//! ```sh
//! cargo build --release --workspace --bins
//! GENFLEET_TEST_AMQP_URL=amqp://… cargo run --release -p genfleet-tests --bin scans [SCANS [PER_MINUTE [MINUTES]]]
//! ```
//!
//! `scans 5000 6000` runs until the last result; `scans 5000 300 10` runs for ten minutes. Only prints figures.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a benchmark")]

use std::{collections::BTreeMap, time::Duration};

use genfleet_simulator::{RecordedRequest, Simulator, SimulatorOptions};
use harness::{Amqp, Broker, Prefix, Process, json_properties, seconds};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1).map(|written| written.parse::<u32>().expect("a number"));
    let (scans, per_minute) = (arguments.next().unwrap_or(5_000), arguments.next().unwrap_or(6_000));
    let minutes = arguments.next().unwrap_or(60);
    println!("{scans} scans of 8 to 12 s, {per_minute} requests a minute, at most {minutes} minutes");
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator(per_minute).await;
    let process = start(broker, &prefix, &simulator, per_minute);
    process.wait_ready(seconds(30)).await;
    println!("RSS idle {} kB", process.rss_kb());
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    let jobs = (0..scans).map(|number| (job(number), json_properties()));
    amqp.publish_jobs(&prefix, "file.scan", jobs).await;

    let began = Instant::now();
    let mut outcomes: BTreeMap<String, usize> = BTreeMap::new();
    for minute in 1..=minutes {
        let end = began + Duration::from_secs(60) * minute;
        let seen = |outcomes: &BTreeMap<String, usize>| outcomes.values().sum::<usize>();
        while seen(&outcomes) < scans as usize {
            let left = end.saturating_duration_since(Instant::now());
            let Some(message) = events.next_message(left).await else { break };
            let data = &message.json()["data"];
            let code = data["error"]["code"].as_str().unwrap_or_default();
            *outcomes.entry(format!("{} {code}", data["outcome"].as_str().unwrap())).or_default() += 1;
        }
        println!("minute {minute}: RSS {} kB, {outcomes:?}", process.rss_kb());
        if seen(&outcomes) >= scans as usize {
            break;
        }
        let _ = timeout_at(end, std::future::pending::<()>()).await;
    }
    println!("took {:.1} s", began.elapsed().as_secs_f64());
    tell(&simulator, per_minute);
}

fn tell(simulator: &Simulator, per_minute: u32) {
    let requests: Vec<RecordedRequest> = simulator.requests();
    let first = requests.iter().find(|request| request.path.contains("/files/")).map_or(0, |request| request.at_us);
    let mut minutes: BTreeMap<u64, (u32, u32)> = BTreeMap::new();
    let mut answers: BTreeMap<u16, usize> = BTreeMap::new();
    for request in &requests {
        *answers.entry(request.status.unwrap_or_default()).or_default() += 1;
        let (orders, polls) = minutes.entry(request.at_us.saturating_sub(first) / 60_000_000).or_default();
        match request.method.as_str() {
            "GET" => *polls += 1,
            _ => *orders += 1,
        }
    }
    for (minute, (orders, polls)) in minutes {
        let share = f64::from(orders + polls) / f64::from(per_minute) * 100.0;
        println!("minute {minute}: {orders} orders, {polls} polls, {share:.1} % of the budget");
    }
    println!("answers {answers:?}");
    let state = simulator.state();
    let noticed = |scan: &Value| Some(scan["noticedUs"].as_u64()?.saturating_sub(scan["verdictUs"].as_u64()?));
    let mut noticed: Vec<u64> = state["files"]["scans"].as_array().unwrap().iter().filter_map(noticed).collect();
    noticed.sort_unstable();
    let at = |share: usize| noticed.get(noticed.len() * share / 100).copied().unwrap_or_default() / 1000;
    println!("{} verdicts noticed after: median {} ms, p99 {} ms", noticed.len(), at(50), at(99));
}

async fn simulator(per_minute: u32) -> Simulator {
    let options = SimulatorOptions {
        requests_per_minute: per_minute,
        client_requests_per_minute: 10_000_000,
        ..SimulatorOptions::default()
    };
    let simulator = Simulator::start(options).await.unwrap();
    simulator.set("files", &json!({"scanMs": 8_000, "scanSpreadMs": 4_000})).unwrap();
    simulator
}

fn job(number: u32) -> String {
    let file = format!("a0000000-0000-4000-8000-{number:012x}");
    let payload = json!({"fileId": file, "scanEngine": "standard", "quarantineAction": "auto_quarantine"});
    json!({"id": format!("scan-{number}"), "payload": payload}).to_string()
}

fn start(broker: &Broker, prefix: &Prefix, simulator: &Simulator, per_minute: u32) -> Process {
    Process::binary("scan-monitor")
        .args(["--admin-addr", "127.0.0.1:0", "--log", "error,genfleet_core::admin=info"])
        .env("GENFLEET_QUEUE_URL", broker.url())
        .env("GENFLEET_QUEUE_PREFIX", prefix)
        .env("GENESYS_BASE_URL", &simulator.base_url())
        .env("GENESYS_CLIENT_ID", "client")
        .env("GENESYS_CLIENT_SECRET", "hush")
        .env("GENFLEET_REQUESTS_PER_MINUTE", &per_minute.to_string())
        .env("GENFLEET_CLIENT_REQUESTS_PER_MINUTE", &per_minute.to_string())
        .start()
}
