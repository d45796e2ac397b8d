//! A ledger of jobs of all five kinds, with two processes of each worker, while sessions, the broker, the network and the
//! processes fail and jobs are published. A minute after the last fault each job has ended once, its effect exists
//! once, and all queues are empty.
//!
//! - [`jobs`]: the published jobs; [`crew`]: the worker processes; [`books`]: the counts.
//! - [`balance`]: the checks at the end; [`diagnosis`]: the report if one fails.
//!
//! With `GENFLEET_TEST_LEDGER=full` the faults last a minute. `GENFLEET_TEST_LEDGER_SEED` seeds all random choices;
//! each test prints its seed.

mod balance;
mod books;
mod crew;
mod diagnosis;
mod embedded;
mod jobs;

use std::{ops::Range, time::Duration};

use genfleet_simulator::{Simulator, SimulatorOptions};
use harness::{Amqp, Broker, Prefix, Process, Proxy, eventually, seconds};
use serde_json::json;
use tokio::time::Instant;

use self::{
    balance::{Faults, balance},
    books::Books,
    crew::Crew,
};
use crate::stack::simulator_with;

fn is_full() -> bool {
    std::env::var("GENFLEET_TEST_LEDGER").is_ok_and(|wanted| wanted == "full")
}

/// Duration of the faults.
fn time_of_faults() -> Duration {
    if is_full() { seconds(60) } else { seconds(25) }
}

/// A random generator whose seed is printed, so that a run can be repeated.
fn chance() -> fastrand::Rng {
    let given = std::env::var("GENFLEET_TEST_LEDGER_SEED").ok().map(|seed| seed.parse().unwrap());
    let seed = given.unwrap_or_else(|| fastrand::u64(..));
    println!("GENFLEET_TEST_LEDGER_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

fn between(random: &mut fastrand::Rng, milliseconds: Range<u64>) -> Duration {
    Duration::from_millis(random.u64(milliseconds))
}

/// The simulator's settings: answers take some time, so that requests are always in progress, and scans need several polls.
async fn slow_simulator() -> Simulator {
    let latency = Duration::from_millis(50);
    let simulator = simulator_with(SimulatorOptions { latency, ..SimulatorOptions::default() }).await;
    simulator.set("files", &json!({"scanMs": 2_000, "scanSpreadMs": 3_000})).unwrap();
    simulator
}

fn direct(broker: &Broker) -> [String; 2] {
    [(); 2].map(|()| broker.url().to_owned())
}

async fn reconnect(broker: &Broker) -> Amqp {
    eventually(seconds(60), "the broker takes the producer back", async || Amqp::try_connect(broker.url()).await).await
}

/// Closes all named connections (those of workers, not of the producer) after each of the pauses. Returns how many there
/// were each time. It runs inside the broker, because starting its tool takes seconds on a busy machine.
fn closing(pauses: &[Duration]) -> String {
    let pauses: Vec<String> = pauses.iter().map(|pause| pause.as_millis().to_string()).collect();
    format!(
        r#"[begin timer:sleep(Pause),
            Named = [Pid || Pid <- rabbit_networking:connections(),
                [{{_, Properties}}] <- [catch rabbit_networking:connection_info(Pid, [client_properties])],
                is_list(Properties) andalso lists:keymember(<<"connection_name">>, 1, Properties)],
            [catch rabbit_networking:close_connection(Pid, "a test") || Pid <- Named],
            length(Named)
        end || Pause <- [{}]]."#,
        pauses.join(", ")
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_closed_every_few_seconds_leave_every_job_ended_once() {
    let Some(broker) = Broker::private().await else { return };
    let (prefix, simulator, mut random) = (Prefix::on(&broker), slow_simulator().await, chance());
    let crew = Crew::start(&broker, direct(&broker), &prefix, &simulator).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut books = Books::open(&amqp, &prefix).await;
    books.begin(&amqp).await;
    let mut pauses = Vec::new();
    while pauses.iter().sum::<Duration>() < time_of_faults() {
        pauses.push(between(&mut random, 2_000..5_000));
    }
    let closed = books.offer_until(&amqp, broker.ctl(&["eval", &closing(&pauses)])).await;
    println!("connections closed: {}", closed.trim());
    let faults = Faults { name: "connections closed", count: pauses.len(), processes: 2 };
    balance(&mut books, &crew, &simulator, &amqp, faults).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_killed_three_times_leaves_every_job_ended_once() {
    const KILLS: usize = 3;
    let Some(mut broker) = Broker::private().await else { return };
    let (prefix, simulator, mut random) = (Prefix::on(&broker), slow_simulator().await, chance());
    let crew = Crew::start(&broker, direct(&broker), &prefix, &simulator).await;
    let mut amqp = Amqp::connect(broker.url()).await;
    let mut books = Books::open(&amqp, &prefix).await;
    books.begin(&amqp).await;
    for _ in 0..KILLS {
        books.offer_for(&amqp, between(&mut random, 3_000..5_000)).await;
        broker.kill().await;
        broker.start().await;
        amqp = reconnect(&broker).await;
    }
    books.begin(&amqp).await;
    let faults = Faults { name: "broker killed", count: KILLS, processes: 2 };
    balance(&mut books, &crew, &simulator, &amqp, faults).await;
}

fn signal(processes: &[&Process], name: &str) {
    for process in processes {
        process.signal(name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_suspended_until_the_broker_gives_them_up_leave_every_job_ended_once() {
    let broker = Broker::shared().await;
    let (prefix, simulator, mut random) = (Prefix::on(broker), slow_simulator().await, chance());
    // The broker closes connections that were silent for two heartbeats.
    let (heartbeat, suspended) = if is_full() { (15, seconds(45)) } else { (5, seconds(20)) };
    let url = format!("{}?heartbeat={heartbeat}", broker.url());
    let crew = Crew::start(broker, [url.clone(), url], &prefix, &simulator).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut books = Books::open(&amqp, &prefix).await;
    books.begin(&amqp).await;
    books.offer_for(&amqp, seconds(2)).await;
    let chosen = crew.one_of_each(&mut random);
    signal(&chosen, "STOP");
    books.offer_for(&amqp, suspended).await;
    signal(&chosen, "CONT");
    let faults = Faults { name: "one of each suspended", count: 1, processes: 1 };
    balance(&mut books, &crew, &simulator, &amqp, faults).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_cuts_and_stalls_leaves_every_job_ended_once() {
    let broker = Broker::shared().await;
    let (prefix, simulator, mut random) = (Prefix::on(broker), slow_simulator().await, chance());
    let proxies = [Proxy::to(broker.url()).await, Proxy::to(broker.url()).await];
    let urls = proxies.each_ref().map(|proxy| format!("{}?heartbeat=5", proxy.url()));
    let crew = Crew::start(broker, urls, &prefix, &simulator).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut books = Books::open(&amqp, &prefix).await;
    books.begin(&amqp).await;
    books.offer_for(&amqp, seconds(2)).await;
    // The first process of each worker receives nothing until the broker closes its connection; the second is disconnected.
    let mut count = 1;
    proxies[0].stall();
    for _ in 0..4 {
        books.offer_for(&amqp, between(&mut random, 2_000..4_000)).await;
        proxies[1].cut();
        count += 1;
    }
    proxies[0].open();
    // Then one or both, with any fault.
    let until = Instant::now() + time_of_faults() / 3;
    while Instant::now() < until {
        let hit: &[Proxy] = [&proxies[..1], &proxies[1..], &proxies[..]][random.usize(..3)];
        hit.iter().for_each([Proxy::cut, Proxy::stall, Proxy::shut][random.usize(..3)]);
        books.offer_for(&amqp, between(&mut random, 500..3_000)).await;
        hit.iter().for_each(Proxy::open);
        books.offer_for(&amqp, between(&mut random, 200..2_000)).await;
        count += 1;
    }
    let faults = Faults { name: "cut and stalled", count, processes: 2 };
    balance(&mut books, &crew, &simulator, &amqp, faults).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_killed_at_random_leave_every_job_ended_once() {
    let broker = Broker::shared().await;
    let (prefix, simulator, mut random) = (Prefix::on(broker), slow_simulator().await, chance());
    let mut crew = Crew::start(broker, direct(broker), &prefix, &simulator).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut books = Books::open(&amqp, &prefix).await;
    books.begin(&amqp).await;
    let (began, mut count) = (Instant::now(), 0);
    while began.elapsed() < time_of_faults() {
        books.offer_for(&amqp, between(&mut random, 700..2_700)).await;
        let slot = crew.any_slot(&mut random);
        crew.replace(broker, slot);
        count += 1;
    }
    let faults = Faults { name: "workers killed", count, processes: 1 };
    balance(&mut books, &crew, &simulator, &amqp, faults).await;
}
