//! The `vni-provisioner` on `RabbitMQ`: of two processes one works. They are killed and drained, and create no
//! duplicates.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::TcpListener,
    time::Duration,
};

use genfleet_simulator::{RecordedRequest, Simulator, SimulatorOptions};
use harness::{Amqp, Broker, Prefix, Process, eventually, json_properties, seconds};
use serde_json::{Value, json};
use tokio::{io::copy_bidirectional, net::TcpStream, sync::watch};

use crate::stack::{assert_all_succeeded, outcomes, random_moment, simulator, simulator_with, worker};

const CONNECTIONS: &str = "/api/v2/organization/privateconnectivity/connections";
const TABLES: &str = "/api/v2/architect/networking/routingtables/";
const ORGANISATIONS: usize = 10;
const JOBS: usize = 150;

/// The ways in which a process ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Killed,
    Drained,
}

/// Starts a gateway that accepts connections until the end of the test; returns its port.
fn gateway() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    port
}

/// Job `n` of organisation `n % ORGANISATIONS`. It has its own routing table, so that every request identifies its job.
fn job(n: usize, gateway_port: u16, change: &Value) -> String {
    let organisation = n % ORGANISATIONS;
    let mut job = json!({"id": format!("vni-{n}"), "payload": {
        "name": format!("vni-{n}"), "organizationId": format!("00000000-0000-4000-8000-00000000000{organisation}"),
        "localIp": format!("10.{n}.0.1"), "subnetCidr": format!("10.{n}.0.0/16"), "remoteIp": "127.0.0.1",
        "gatewayPort": gateway_port, "dnsServers": ["8.8.8.8"], "routingTableId": format!("rt-{n}"),
    }});
    for (member, value) in change.as_object().unwrap() {
        job[member] = value.clone();
    }
    job.to_string()
}

fn start(broker: &Broker, prefix: &Prefix, simulator: &Simulator) -> Process {
    let fast = ["--gateway-allow", "127.0.0.0/8", "--routing-poll-interval", "100ms", "--retry-initial", "50ms"];
    worker("vni-provisioner", broker, prefix, simulator).args(fast).start()
}

/// Waits for the process that works while the others stand by. The broker releases the lock of a killed one.
async fn working(processes: &[Process; 2]) -> usize {
    let holds = |process: &Process| process.stderr().contains("holds the lock of this kind");
    eventually(seconds(30), "one holds the lock", async || processes.iter().position(holds)).await
}

/// Runs many jobs. The working process ends in each of these ways after some requests, and another one replaces it.
async fn provisioned_while_processes_end(ends: &[End]) {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let latency = Duration::from_millis(20);
    let simulator = simulator_with(SimulatorOptions { latency, ..SimulatorOptions::default() }).await;
    simulator.set("network", &json!({"convergesAfter": 3})).unwrap();
    let port = gateway();
    let mut processes = [start(broker, &prefix, &simulator), start(broker, &prefix, &simulator)];
    for process in &processes {
        process.wait_ready(seconds(30)).await;
    }
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    let jobs = (0..JOBS).map(|n| (job(n, port, &json!({})), json_properties()));
    amqp.publish_jobs(&prefix, "vni.provision", jobs).await;

    for end in ends {
        let worker = working(&processes).await;
        random_moment(&simulator, 20, 30).await;
        let ended = &processes[worker];
        match end {
            End::Killed => ended.kill9(),
            End::Drained => {
                ended.terminate();
                assert_eq!(ended.wait(seconds(30)).await, 0);
            }
        }
        processes[worker] = start(broker, &prefix, &simulator);
    }

    let by_job = outcomes(&mut events, JOBS, seconds(180)).await;
    assert_all_succeeded(&by_job);
    assert_eq!(amqp.count(&format!("{prefix}.dead.vni.provision")).await, 0);
    let network = &simulator.state()["network"];
    assert_eq!((&network["created"], &network["deleted"]), (&json!(JOBS), &json!(0)), "one interface a job");
    let output: BTreeSet<_> =
        by_job.values().map(|events| events[0]["data"]["report"]["interfaceId"].clone().to_string()).collect();
    assert_eq!(output.len(), JOBS, "and none repeated");
    assert_one_job_of_an_organisation_at_a_time(&simulator.requests());
}

/// Returns the job of a request, if it can be identified.
fn job_of(request: &RecordedRequest) -> Option<usize> {
    let table = request.path.strip_prefix(TABLES).map(|rest| rest.trim_end_matches("/sync").trim_start_matches("rt-"));
    let name = request.body["name"].as_str().map(|name| name.trim_start_matches("vni-"));
    table.or(name)?.parse().ok()
}

/// The consecutive requests of a process for a job, without other requests for the organisation.
#[derive(Debug)]
struct Turn {
    process: String,
    job: usize,
    asked: Vec<&'static str>,
}

impl Turn {
    /// Returns true if it was completed: the table converges at the third read after it was synchronised.
    fn is_whole(&self) -> bool {
        self.asked.ends_with(&["sync", "look", "look", "look"])
    }
}

fn asked(request: &RecordedRequest) -> &'static str {
    match (request.method.as_str(), request.path.starts_with(TABLES)) {
        ("POST", false) => "create",
        ("POST", true) => "sync",
        _ => "look",
    }
}

/// In the whole fleet, a job ends before another one of its organisation begins. Only the end of a process
/// interrupts a job. A job may run twice if a process died between its publication and its acknowledgement: then
/// both runs are complete, one after the other.
fn assert_one_job_of_an_organisation_at_a_time(requests: &[RecordedRequest]) {
    let mut turns: BTreeMap<usize, Vec<Turn>> = BTreeMap::new();
    for (request, job) in requests.iter().filter_map(|request| Some((request, job_of(request)?))) {
        let process = request.token.clone().unwrap();
        let turns = turns.entry(job % ORGANISATIONS).or_default();
        if turns.last().is_none_or(|turn| turn.job != job || turn.process != process) {
            turns.push(Turn { process, job, asked: Vec::new() });
        }
        turns.last_mut().unwrap().asked.push(asked(request));
    }
    for (organisation, turns) in turns {
        let is_well = |pair: &[Turn]| pair[0].is_whole() || pair[0].process != pair[1].process;
        assert!(turns.windows(2).all(is_well), "organisation {organisation}: {turns:#?}");
    }
    assert_one_process_at_a_time(requests);
}

/// After a process has taken over, no earlier process works again.
fn assert_one_process_at_a_time(requests: &[RecordedRequest]) {
    let of_jobs = requests.iter().filter(|request| job_of(request).is_some() || request.path == CONNECTIONS);
    let mut processes: Vec<&str> = of_jobs.filter_map(|request| request.token.as_deref()).collect();
    processes.dedup();
    let different: BTreeSet<_> = processes.iter().collect();
    assert_eq!(different.len(), processes.len(), "a process went on after another had taken over: {processes:?}");
}

/// The changing requests of the process that sent the first request.
fn changes_of_the_first(simulator: &Simulator) -> usize {
    let requests = simulator.requests();
    let first = requests.iter().find_map(|request| request.token.clone());
    requests.iter().filter(|one| one.method != "GET" && one.token.is_some() && one.token == first).count()
}

/// A proxy to the broker that can be frozen: the broker sees the end of a connection, its client only after the thaw.
struct Way {
    url: String,
    frozen: watch::Sender<bool>,
}

impl Way {
    async fn to(broker: &Broker) -> Self {
        let (user, place) = broker.url().split_once('@').unwrap();
        let (address, vhost) = place.split_once('/').unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("{user}@{}/{vhost}", listener.local_addr().unwrap());
        let frozen = watch::Sender::new(false);
        let (address, freezes) = (address.to_owned(), frozen.subscribe());
        tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let far = TcpStream::connect(&address).await.unwrap();
                tokio::spawn(pass(near, far, freezes.clone()));
            }
        });
        Self { url, frozen }
    }
}

async fn pass(mut near: TcpStream, mut far: TcpStream, mut freezes: watch::Receiver<bool>) {
    let freezing = async {
        let _ = freezes.wait_for(|frozen| *frozen).await;
    };
    tokio::select! {
        _ = copy_bidirectional(&mut near, &mut far) => return,
        () = freezing => {}
    }
    drop(far);
    let _ = freezes.wait_for(|frozen| !frozen).await;
}

/// A suspended process continues where it was, and does not know yet that its session is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_was_suspended_while_another_took_over_changes_nothing_any_more() {
    const AT_ONCE: usize = 8;
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    // Long enough that all jobs check a second time before one receives the answer, even if a process starts slowly.
    let slow = format!("latency=8s,method=GET,path={CONNECTIONS}");
    simulator.set_faults(vec![slow.parse().unwrap()]);
    let port = gateway();
    let launch = || worker("vni-provisioner", broker, &prefix, &simulator).args(["--gateway-allow", "127.0.0.0/8"]);
    let way = Way::to(broker).await;
    let first = launch().env("GENFLEET_QUEUE_URL", &way.url).start();
    first.wait_ready(seconds(30)).await;
    let second = launch().start();
    second.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    let jobs = (0..AT_ONCE).map(|n| (job(n, port, &json!({})), json_properties()));
    amqp.publish_jobs(&prefix, "vni.provision", jobs).await;
    // The creation follows immediately after the second check.
    let looks = || simulator.requests().iter().filter(|one| one.path == CONNECTIONS && one.method == "GET").count();
    eventually(seconds(30), "all look a second time", async || looks() >= 2 * AT_ONCE).await;
    first.signal("STOP");
    way.frozen.send_replace(true);
    let by_job = outcomes(&mut events, AT_ONCE, seconds(90)).await;
    assert_all_succeeded(&by_job);
    let before = changes_of_the_first(&simulator);
    first.signal("CONT");
    let goes_on = || first.stderr().contains("not known to hold the lock") || changes_of_the_first(&simulator) > before;
    eventually(seconds(30), "the first is about to change something", async || goes_on()).await;
    way.frozen.send_replace(false);
    let stands_by = || first.stderr().contains("standing by");
    eventually(seconds(60), "the first finds that it lost the lock", async || stands_by()).await;
    assert_eq!(changes_of_the_first(&simulator), before, "it sent no change after it was suspended");
    assert_eq!(simulator.state()["network"]["created"], json!(AT_ONCE));
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_deaths_of_the_working_process_make_no_second_interface() {
    provisioned_while_processes_end(&[End::Killed; 20]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_process_hands_over_and_no_interface_is_made_twice() {
    provisioned_while_processes_end(&[End::Drained]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn out_of_attempts_the_event_says_what_became_of_the_interface() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    simulator.set("network", &json!({"convergesAfter": "never"})).unwrap();
    let port = gateway();
    let process = start(broker, &prefix, &simulator);
    process.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    let twice = job(1, port, &json!({"maxAttempts": 2}));
    amqp.publish_job(&prefix, "vni.provision", twice, json_properties()).await;
    let event = events.next_event(seconds(60)).await;
    let error = &event["data"]["error"];
    assert_eq!((&error["code"], &error["cause"]), (&json!("attempts_exhausted"), &json!("routing_not_converged")));
    assert_eq!((&error["rolledBack"], &event["data"]["attempts"]), (&json!(true), &json!(2)), "{event}");
    let created: Vec<_> =
        simulator.requests().into_iter().filter(|one| one.method == "POST" && one.path == CONNECTIONS).collect();
    let deleted = format!("{CONNECTIONS}/{}", error["interfaceId"].as_str().unwrap());
    assert_eq!((created.len(), simulator.requests().iter().filter(|one| one.path == deleted).count()), (1, 1));
    assert_eq!(simulator.state()["network"]["connections"], json!([]));
    let dead = format!("{prefix}.dead.vni.provision");
    eventually(seconds(10), "its bytes are kept", async || amqp.count(&dead).await == 1).await;
}
