//! Scans on a broker: any number can wait, none is lost with a process, and none is started twice without need.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use genfleet_simulator::{Simulator, SimulatorOptions};
use harness::{Amqp, Broker, Prefix, json_properties, seconds};
use serde_json::{Value, json};

use crate::stack::{assert_all_succeeded, outcomes, random_moment, simulator, simulator_with, worker};

/// The id of a clean file.
fn file_id(number: usize) -> String {
    format!("a0000000-0000-4000-8000-{number:012x}")
}

fn scan_job(number: usize) -> String {
    let payload = json!({"fileId": file_id(number), "scanEngine": "standard", "quarantineAction": "auto_quarantine"});
    json!({"id": format!("scan-{number}"), "payload": payload}).to_string()
}

async fn publish_scans(amqp: &Amqp, prefix: &Prefix, numbers: Range<usize>) {
    let jobs = numbers.map(|number| (scan_job(number), json_properties()));
    amqp.publish_jobs(prefix, "file.scan", jobs).await;
}

/// Returns the file of a request to scan.
fn ordered_file(path: &str) -> Option<&str> {
    path.strip_prefix("/api/v2/files/")?.strip_suffix("/scans")
}

/// The times at which the scans of each file were started, in microseconds since 1970.
fn orders(simulator: &Simulator) -> BTreeMap<String, Vec<u64>> {
    let mut orders: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for request in simulator.requests().iter().filter(|request| request.method == "POST") {
        if let Some(file) = ordered_file(&request.path) {
            orders.entry(file.to_owned()).or_default().push(request.at_us);
        }
    }
    orders
}

#[expect(clippy::disallowed_methods, reason = "the simulator's record has this time, too")]
fn now_us() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap()
}

fn answers(simulator: &Simulator) -> HashMap<u16, usize> {
    let mut answers = HashMap::new();
    for status in simulator.requests().iter().filter_map(|request| request.status) {
        *answers.entry(status).or_default() += 1;
    }
    answers
}

/// The delays with which results were noticed, shortest first.
fn notices(simulator: &Simulator) -> Vec<Duration> {
    let shown = simulator.state();
    let delay = |scan: &Value| {
        Some(Duration::from_micros(scan["noticedUs"].as_u64()?.saturating_sub(scan["verdictUs"].as_u64()?)))
    };
    let mut notices: Vec<_> = shown["files"]["scans"].as_array().unwrap().iter().filter_map(delay).collect();
    notices.sort_unstable();
    notices
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_twenty_times_every_scan_is_followed_on_and_at_most_one_a_kill_is_ordered_again() {
    const SCANS: usize = 400;
    const KILLS: usize = 20;
    const CUT_OFF_US: u64 = 1_000_000;
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    simulator.set("files", &json!({"scanMs": 4_000, "scanSpreadMs": 4_000})).unwrap();
    let start = || {
        let paced = ["--requests-per-minute", "6000", "--poll-interval", "1s"];
        worker("scan-monitor", broker, &prefix, &simulator).args(paced).start()
    };
    let mut process = start();
    process.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    let mut kills = Vec::new();
    for kill in 0..KILLS {
        publish_scans(&amqp, &prefix, kill * SCANS / KILLS..(kill + 1) * SCANS / KILLS).await;
        random_moment(&simulator, 50, 50).await;
        process.kill9();
        kills.push(now_us());
        process = start();
    }
    let by_job = outcomes(&mut events, SCANS, seconds(120)).await;
    assert_all_succeeded(&by_job);
    let orders = orders(&simulator);
    assert_eq!(orders.len(), SCANS);
    let (mut again, mut longest_us) = (0, 0);
    for (file, times) in &orders {
        for pair in times.windows(2) {
            let cut_off =
                kills.iter().filter(|kill| (pair[0]..=pair[1]).contains(kill)).map(|kill| kill - pair[0]).min();
            let Some(cut_off) = cut_off.filter(|after| *after < CUT_OFF_US) else {
                panic!("{file} was ordered at {pair:?}, and no kill cut it off: {kills:?}");
            };
            (again, longest_us) = (again + 1, cut_off.max(longest_us));
        }
        assert!(times.len() <= 1 + kills.len());
    }
    assert!(again <= KILLS, "one order at a time is sent and not recorded, and {again} were cut off");
    let repeated: usize = by_job.values().map(|events| events.len() - 1).sum();
    println!(
        "{KILLS} kills: {again} scans ordered again of {SCANS}, unrecorded for {longest_us} µs at most; {repeated} events repeated"
    );
    assert_eq!(amqp.count(&format!("{prefix}.dead.file.scan")).await, 0);
    assert!(process.is_running());
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_scans_wait_in_the_queue_and_not_in_memory_and_make_no_429() {
    const SCANS: usize = 5_000;
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator =
        simulator_with(SimulatorOptions { requests_per_minute: 6_000, ..SimulatorOptions::default() }).await;
    simulator.set("files", &json!({"scanMs": 8_000, "scanSpreadMs": 4_000})).unwrap();
    let paced = ["--requests-per-minute", "6000"];
    let process = worker("scan-monitor", broker, &prefix, &simulator).args(paced).start();
    process.wait_ready(seconds(30)).await;
    let idle = process.rss_kb();
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    let began = tokio::time::Instant::now();
    publish_scans(&amqp, &prefix, 0..SCANS).await;
    let mut by_job: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    let (mut most_kb, mut most_in_flight) = (0, 0.0_f64);
    while by_job.len() < SCANS {
        let message = events.next_message(seconds(60)).await;
        let Some(message) = message else { panic!("{} of {SCANS} scans have an event", by_job.len()) };
        let event = message.json();
        by_job.entry(event["subject"].as_str().unwrap().to_owned()).or_default().push(event);
        if by_job.len().is_multiple_of(100) {
            most_kb = most_kb.max(process.rss_kb());
            most_in_flight = most_in_flight.max(process.metrics().await.sum("genfleet_scans_in_flight", &[]));
        }
    }
    assert_all_succeeded(&by_job);
    let took = began.elapsed();
    let notices = notices(&simulator);
    assert_eq!(notices.len(), SCANS, "each scan was ordered once and its verdict noticed");
    let polls = &simulator.state()["files"]["pollsTotal"];
    println!("{SCANS} scans in {took:?}, {polls} polls, {most_in_flight} in flight at most");
    println!("RSS idle {idle} kB, at most {most_kb} kB");
    println!("noticed after the verdict: median {:?}, p99 {:?}", notices[SCANS / 2], notices[SCANS * 99 / 100]);
    println!("answers: {:?}", answers(&simulator));
    assert_eq!(answers(&simulator).get(&429), None, "429s of our own making");
    assert!(by_job.values().flatten().all(|event| event["data"]["report"]["threatDetected"] == false));
}
