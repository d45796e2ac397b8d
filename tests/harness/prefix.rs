//! A queue prefix for a test on a shared broker (`--queue-prefix`), and the deletion of its queues and exchanges.

use std::{fmt, ops::Deref, time::Duration};

use genfleet_core::job::Kind;
use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};
use tokio::time::timeout;

use crate::{Amqp, Broker};

/// Maximum time for the deletion if the broker does not answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// All kinds of jobs.
pub const KINDS: [&str; Kind::ALL.len()] = {
    let mut names = [""; Kind::ALL.len()];
    let mut index = 0;
    while index < names.len() {
        names[index] = Kind::ALL[index].as_str();
        index += 1;
    }
    names
};

/// A unique queue prefix. When it is dropped, its queues and exchanges are deleted if possible.
/// Create it before the processes that use it, so that it is dropped after them.
pub struct Prefix {
    name: String,
    broker_url: String,
}

impl Prefix {
    /// Creates a prefix on this broker.
    pub fn on(broker: &Broker) -> Self {
        let random = uuid::Uuid::new_v4().simple().to_string();
        Self { name: format!("t{}", &random[..8]), broker_url: broker.url().to_owned() }
    }
}

impl Deref for Prefix {
    type Target = str;

    fn deref(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Drop for Prefix {
    fn drop(&mut self) {
        // It needs its own thread and runtime, because the test's runtime is blocked by the drop.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                if let Ok(runtime) = runtime {
                    let deleting = async { timeout(PATIENCE, delete_all(&self.broker_url, &self.name)).await };
                    let _ = runtime.block_on(deleting);
                }
            });
        });
    }
}

async fn delete_all(url: &str, prefix: &str) -> anyhow::Result<()> {
    let amqp = Amqp::try_connect(url).await?;
    let exclusive = Kind::ALL.into_iter().filter(|kind| kind.is_exclusive());
    let marks = exclusive.map(|kind| format!("{prefix}.lock.{kind}"));
    for exchange in exchanges(prefix).into_iter().chain(marks) {
        let options = ExchangeDeleteOptions::default();
        amqp.channel().exchange_delete(exchange.into(), options).await?;
    }
    for queue in queues(prefix, &KINDS) {
        let options = QueueDeleteOptions::default();
        amqp.channel().queue_delete(queue.into(), options).await?;
    }
    Ok(())
}

/// Every exchange of the topology.
fn exchanges(prefix: &str) -> Vec<String> {
    let single = ["jobs", "work", "dead", "events", "unrouted", "control"];
    let single = single.iter().map(|name| format!("{prefix}.{name}"));
    single.chain(delays(prefix)).collect()
}

/// Every durable queue of the topology, with those of `kinds`.
fn queues(prefix: &str, kinds: &[&str]) -> Vec<String> {
    let single = ["events", "unrouted", "jobs.unknown"].iter().map(|name| format!("{prefix}.{name}"));
    let of_kinds = kinds
        .iter()
        .flat_map(|kind| ["jobs", "resume", "suspect", "dead"].map(|queue| format!("{prefix}.{queue}.{kind}")));
    single.chain(delays(prefix)).chain(of_kinds).collect()
}

fn delays(prefix: &str) -> impl Iterator<Item = String> {
    (0..16).map(move |bit| format!("{prefix}.delay.{bit:02}"))
}
