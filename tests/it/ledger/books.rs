//! Counts for each job: its publication, its final events, and the lanes of its messages.
//!
//! Two queues get a copy of every event and of every message between workers. They are read only while no
//! fault is injected, so that each publication is counted once.

use std::{collections::BTreeMap, future::Future, pin::pin, time::Duration};

use harness::{Amqp, Message, Prefix, assert_keeps_contract, json_properties};
use lapin::{
    options::{QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use serde_json::Value;
use tokio::time::{Instant, interval};

use super::jobs::{self, Job, KINDS};

/// Number of jobs before the first fault, and the rate of further jobs a second.
const AT_FIRST: usize = 200;
const A_SECOND: u32 = 24;
/// Maximum number of copies that are kept, so that a job that loops does not fill the disk.
const MOST_COPIES: usize = 50_000;
const AT_A_TIME: usize = 2_000;

/// The counts of a scenario.
pub(super) struct Books<'a> {
    prefix: &'a Prefix,
    gateway: u16,
    pub opened: Instant,
    pub ends: Ends,
    /// All messages between workers, by job.
    pub travels: BTreeMap<String, Travels>,
}

/// The jobs and their events.
#[derive(Default)]
pub(super) struct Ends {
    /// The published jobs, by id.
    pub jobs: BTreeMap<String, Job>,
    /// All events, by job.
    pub events: BTreeMap<String, Vec<Value>>,
}

impl Ends {
    /// The jobs without an event.
    pub(super) fn missing(&self) -> Vec<&Job> {
        self.jobs.values().filter(|job| !self.events.contains_key(&job.id)).collect()
    }

    /// Adds an event.
    pub(super) fn enter(&mut self, event: Value) {
        assert_keeps_contract(&event);
        let job = event["subject"].as_str().unwrap().to_owned();
        self.events.entry(job).or_default().push(event);
    }
}

/// The messages of a job.
#[derive(Clone, Debug, Default)]
pub(super) struct Travels {
    /// Publications by lane: `resume`, `suspect`, or `jobs` for those that have not begun.
    pub lanes: BTreeMap<&'static str, usize>,
    /// The `genfleet-*` headers of the last one.
    pub last: BTreeMap<String, Value>,
}

impl<'a> Books<'a> {
    /// Starts counting; the topology must exist.
    pub(super) async fn open(amqp: &Amqp, prefix: &'a Prefix) -> Self {
        bind_copies(amqp, &events_queue(prefix), &format!("{prefix}.events")).await;
        bind_copies(amqp, &travels_queue(prefix), &format!("{prefix}.work")).await;
        Self {
            prefix,
            gateway: jobs::gateway(),
            opened: Instant::now(),
            ends: Ends::default(),
            travels: BTreeMap::new(),
        }
    }

    /// Publishes the first jobs.
    pub(super) async fn begin(&mut self, amqp: &Amqp) {
        self.publish(amqp, AT_FIRST).await;
    }

    /// Publishes further jobs at an even rate until `over` ends.
    pub(super) async fn offer_until<T>(&mut self, amqp: &Amqp, over: impl Future<Output = T>) -> T {
        let (mut over, mut due) = (pin!(over), interval(Duration::from_secs(1) / A_SECOND));
        loop {
            tokio::select! {
                over = &mut over => return over,
                _ = due.tick() => self.publish(amqp, 1).await,
            }
        }
    }

    /// The same for this time.
    pub(super) async fn offer_for(&mut self, amqp: &Amqp, time: Duration) {
        self.offer_until(amqp, tokio::time::sleep(time)).await;
    }

    async fn publish(&mut self, amqp: &Amqp, count: usize) {
        let first = self.ends.jobs.len();
        let new: Vec<Job> = (first..first + count).map(|n| jobs::job(n, self.gateway)).collect();
        for kind in KINDS {
            let of_kind = new.iter().filter(|job| job.kind == kind).map(|job| (job.body(), json_properties()));
            amqp.publish_jobs(self.prefix, kind, of_kind).await;
        }
        self.ends.jobs.extend(new.into_iter().map(|job| (job.id.clone(), job)));
    }

    /// Reads new events and messages. No fault may be injected meanwhile.
    pub(super) async fn enter(&mut self, amqp: &Amqp) {
        for message in amqp.take(&events_queue(self.prefix), AT_A_TIME).await {
            self.ends.enter(message.json());
        }
        for message in amqp.take(&travels_queue(self.prefix), AT_A_TIME).await {
            let travels = self.travels.entry(job_of(&message)).or_default();
            *travels.lanes.entry(lane(&message.routing_key)).or_default() += 1;
            travels.last = message.headers();
            travels.last.retain(|name, _| name.starts_with("genfleet-"));
        }
    }

    /// Number of publications into a lane, of all jobs of a kind.
    pub(super) fn travelled(&self, lane: &str, kind: &str) -> usize {
        let of_kind =
            self.travels.iter().filter(|(job, _)| self.ends.jobs.get(*job).is_some_and(|job| job.kind == kind));
        of_kind.filter_map(|(_, travels)| travels.lanes.get(lane)).sum()
    }

    /// Returns the queues that can contain jobs and are not empty, with their numbers of ready messages.
    pub(super) async fn depths(&self, amqp: &Amqp) -> BTreeMap<String, u32> {
        let mut depths = BTreeMap::new();
        for queue in self.queues() {
            let count = amqp.count(&queue).await;
            if count > 0 {
                depths.insert(queue, count);
            }
        }
        depths
    }

    /// Every queue that can contain a job.
    pub(super) fn queues(&self) -> Vec<String> {
        let prefix = self.prefix;
        let lanes = ["jobs", "resume", "suspect", "dead"];
        let of_kinds = KINDS.iter().flat_map(|kind| lanes.map(|lane| format!("{prefix}.{lane}.{kind}")));
        let delays = (0..16).map(|bit| format!("{prefix}.delay.{bit:02}"));
        of_kinds.chain(delays).chain([format!("{prefix}.unrouted")]).collect()
    }
}

fn events_queue(prefix: &Prefix) -> String {
    format!("{prefix}.ledger.events")
}

fn travels_queue(prefix: &Prefix) -> String {
    format!("{prefix}.ledger.travels")
}

/// Declares a durable queue that receives all messages of an exchange.
async fn bind_copies(amqp: &Amqp, queue: &str, exchange: &str) {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(MOST_COPIES.try_into().unwrap()));
    arguments.insert("x-expires".into(), AMQPValue::LongInt(600_000));
    let channel = amqp.channel();
    channel.queue_declare(queue.into(), QueueDeclareOptions::durable(), arguments).await.unwrap();
    let options = QueueBindOptions::default();
    channel.queue_bind(queue.into(), exchange.into(), "#".into(), options, FieldTable::default()).await.unwrap();
}

fn lane(routing_key: &str) -> &'static str {
    let lanes = ["resume", "suspect"].into_iter();
    lanes.into_iter().find(|lane| routing_key.rsplit('.').next() == Some(lane)).unwrap_or("jobs")
}

/// Returns the job of a message.
pub(super) fn job_of(message: &Message) -> String {
    let body: Value = serde_json::from_slice(&message.body).unwrap_or_default();
    let own = message.properties.message_id().as_ref().map(ToString::to_string);
    body["id"].as_str().map(str::to_owned).or(own).unwrap_or_default()
}
