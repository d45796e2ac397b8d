//! The start of most tests: a broker, a prefix, a simulator, and a worker with them.

use std::{collections::BTreeMap, time::Duration};

use genfleet_simulator::{Simulator, SimulatorOptions};
use harness::{Amqp, Broker, Events, Launch, Prefix, Process, eventually, json_properties, seconds};
use serde_json::{Value, json};

/// A limit that tests do not reach unintentionally.
pub(crate) const UNLIMITED: u32 = 60_000;

pub(crate) async fn simulator() -> Simulator {
    simulator_with(SimulatorOptions::default()).await
}

/// Starts a simulator with high limits, unless `options` sets them.
pub(crate) async fn simulator_with(options: SimulatorOptions) -> Simulator {
    let untouched = options.requests_per_minute == SimulatorOptions::default().requests_per_minute;
    let requests_per_minute = if untouched { UNLIMITED } else { options.requests_per_minute };
    let default = SimulatorOptions::default().client_requests_per_minute;
    let client_requests_per_minute =
        if options.client_requests_per_minute == default { UNLIMITED } else { options.client_requests_per_minute };
    Simulator::start(SimulatorOptions { requests_per_minute, client_requests_per_minute, ..options }).await.unwrap()
}

/// Launches a worker with this broker, prefix and simulator. Later arguments override these.
pub(crate) fn worker(binary: &str, broker: &Broker, prefix: &Prefix, simulator: &Simulator) -> Launch {
    Process::binary(binary)
        .args(["--admin-addr", "127.0.0.1:0"])
        .env("GENFLEET_QUEUE_URL", broker.url())
        .env("GENFLEET_QUEUE_PREFIX", prefix)
        .env("GENESYS_BASE_URL", &simulator.base_url())
        .env("GENESYS_CLIENT_ID", "client")
        .env("GENESYS_CLIENT_SECRET", "hush")
        .env("GENFLEET_REQUESTS_PER_MINUTE", &UNLIMITED.to_string())
        // Shared by all processes.
        .env("GENFLEET_CLIENT_REQUESTS_PER_MINUTE", &(100 * UNLIMITED).to_string())
        // Reads show earlier writes at once, unless a test changes this.
        .env("GENFLEET_TAKEOVER_WAIT", "0s")
}

/// A worker with a broker and a simulator, and a client that publishes its jobs and reads its events. The process ends
/// before the queues are deleted, because fields are dropped in their order.
pub(crate) struct Stack {
    launch: fn(&Broker, &Prefix, &Simulator) -> Launch,
    broker: &'static Broker,
    pub(crate) process: Process,
    pub(crate) events: Events,
    pub(crate) amqp: Amqp,
    pub(crate) simulator: Simulator,
    pub(crate) prefix: Prefix,
}

impl Stack {
    /// Starts a worker, and waits until it is ready.
    pub(crate) async fn start(simulator: Simulator, launch: fn(&Broker, &Prefix, &Simulator) -> Launch) -> Self {
        let broker = Broker::shared().await;
        let prefix = Prefix::on(broker);
        let process = launch(broker, &prefix, &simulator).start();
        process.wait_ready(seconds(30)).await;
        let amqp = Amqp::connect(broker.url()).await;
        let events = amqp.declare_events_queue(&prefix).await;
        Self { launch, broker, process, events, amqp, simulator, prefix }
    }

    pub(crate) async fn publish(&self, kind: &str, job: impl ToString) {
        self.amqp.publish_job(&self.prefix, kind, job.to_string(), json_properties()).await;
    }

    pub(crate) async fn publish_all(&self, kind: &str, jobs: impl IntoIterator<Item = impl ToString>) {
        let jobs = jobs.into_iter().map(|job| (job.to_string(), json_properties()));
        self.amqp.publish_jobs(&self.prefix, kind, jobs.collect::<Vec<_>>()).await;
    }

    /// Kills the process in the middle of the work, and starts another one.
    pub(crate) async fn kill_and_start(&mut self) {
        random_moment(&self.simulator, 30, 40).await;
        self.process.kill9();
        self.start_another();
    }

    /// Starts another process instead of the one that was killed.
    pub(crate) fn start_another(&mut self) {
        self.process = (self.launch)(self.broker, &self.prefix, &self.simulator).start();
    }

    /// Reads events as [`outcomes`] does.
    pub(crate) async fn outcomes(&mut self, count: usize, timeout: Duration) -> BTreeMap<String, Vec<Value>> {
        outcomes(&mut self.events, count, timeout).await
    }

    /// Counts the dead letters of `kind`.
    pub(crate) async fn count_dead(&self, kind: &str) -> u32 {
        self.amqp.count(&format!("{}.dead.{kind}", self.prefix)).await
    }

    /// Asks the process to end, which it does without an error.
    pub(crate) async fn terminate(&self) {
        self.process.terminate();
        assert_eq!(self.process.wait(seconds(30)).await, 0);
    }
}

pub(crate) fn purge_job(id: &str, paths: &[&str]) -> String {
    json!({ "id": id, "payload": { "paths": paths } }).to_string()
}

/// Publishes `count` jobs with one path each: `<name>-<n>` purges `/<name>/<n>`.
pub(crate) async fn publish_one_path_jobs(amqp: &Amqp, prefix: &Prefix, name: &str, count: usize) {
    let jobs = (0..count).map(|n| (purge_job(&format!("{name}-{n}"), &[&format!("/{name}/{n}")]), json_properties()));
    amqp.publish_jobs(prefix, "cdn.purge", jobs).await;
}

/// Reads events, possibly repeated, until each of `count` jobs has one. Returns the outcomes by job.
pub(crate) async fn outcomes(events: &mut Events, count: usize, timeout: Duration) -> BTreeMap<String, Vec<Value>> {
    let deadline = tokio::time::Instant::now() + timeout;
    let mut by_job: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    while by_job.len() < count {
        let left = deadline.saturating_duration_since(tokio::time::Instant::now());
        let Some(message) = events.next_message(left).await else {
            panic!("{} of {count} jobs have an event after {timeout:?}", by_job.len());
        };
        let event = message.json();
        by_job.entry(event["subject"].as_str().unwrap().to_owned()).or_default().push(event);
    }
    by_job
}

/// Asserts that all events say `succeeded`, and that repeated events have the same id.
pub(crate) fn assert_all_succeeded(by_job: &BTreeMap<String, Vec<Value>>) {
    for (job, events) in by_job {
        for event in events {
            assert_eq!(event["data"]["outcome"], "succeeded", "{job}: {event}");
            assert_eq!(event["id"], events[0]["id"], "{job}");
        }
    }
}

pub(crate) fn purge_requests(simulator: &Simulator) -> usize {
    simulator.requests().iter().filter(|request| request.path.ends_with("/cdn/purge")).count()
}

/// Returns a random number below `below`.
pub(crate) fn random(below: usize) -> usize {
    usize::from_le_bytes(uuid::Uuid::new_v4().as_bytes()[..8].try_into().unwrap()) % below
}

/// Waits for `least` further requests and a random number of more, below `more`, to reach a moment in the middle of the
/// work. If a process never completes its jobs before it is killed, they count as crash loops.
pub(crate) async fn random_moment(simulator: &Simulator, least: usize, more: usize) {
    let enough = simulator.requests().len() + least + random(more);
    eventually(seconds(60), "more requests come", async || simulator.requests().len() >= enough).await;
}
