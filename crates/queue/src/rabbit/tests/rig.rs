//! A prefix of its own on the broker under test, and messages to try.

use std::{
    panic::{AssertUnwindSafe, resume_unwind},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::FutureExt;
use lapin::{
    Channel, Connection, ConnectionProperties,
    options::{ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions},
    types::FieldTable,
};
use tokio::time::{sleep, timeout};

use super::super::{RabbitQueue, RabbitSettings, TopologyMode};
use crate::{Destination, Publication, topology::topology};
use genfleet_job::{
    Kind,
    clock::SystemClock,
    message::{Lane, Message},
};

/// Names the broker to test on.
const VARIABLE: &str = "GENFLEET_TEST_AMQP_URL";

/// See the module.
#[derive(Clone)]
pub(super) struct Rig {
    pub(super) url: String,
    pub(super) prefix: String,
    /// Closed at the end, or they would declare again what is taken away.
    pub(super) queues: Arc<Mutex<Vec<RabbitQueue>>>,
}

/// Runs `test` on the broker, if there is one, and takes away what it left there, whatever came of it.
pub(super) async fn on_broker<T: Future<Output = ()>>(test: impl FnOnce(Rig) -> T) {
    let Some(url) = std::env::var(VARIABLE).ok().filter(|url| !url.is_empty()) else {
        println!("skipped: {VARIABLE} is not set");
        return;
    };
    let rig = Rig { url, prefix: format!("t{:08x}", fastrand::u32(..)), queues: Arc::default() };
    let outcome = AssertUnwindSafe(test(rig.clone())).catch_unwind().await;
    rig.clear().await;
    if let Err(panic) = outcome {
        resume_unwind(panic);
    }
}

impl Rig {
    pub(super) fn settings(&self, url: &str, topology: TopologyMode) -> RabbitSettings {
        RabbitSettings {
            urls: vec![url.into()],
            prefix: self.prefix.clone(),
            topology,
            kinds: Kind::ALL.to_vec(),
            ca_file: None,
            client_identity: None,
            name: format!("{} under test", self.prefix),
            watchdog: Duration::from_secs(60),
        }
    }

    /// A queue that looks at its topology every second.
    pub(super) fn watchful(&self, topology: TopologyMode) -> RabbitQueue {
        let settings = RabbitSettings { watchdog: Duration::from_secs(1), ..self.settings(&self.url, topology) };
        self.queue_with(settings)
    }

    pub(super) fn queue(&self) -> RabbitQueue {
        self.queue_by(&self.url, TopologyMode::Declare)
    }

    pub(super) fn queue_by(&self, url: &str, topology: TopologyMode) -> RabbitQueue {
        self.queue_with(self.settings(url, topology))
    }

    pub(super) fn queue_with(&self, settings: RabbitSettings) -> RabbitQueue {
        let queue = RabbitQueue::connect(settings, Arc::new(SystemClock)).unwrap();
        self.queues.lock().unwrap().push(queue.clone());
        queue
    }

    /// A connection of the test's own.
    pub(super) async fn channel(&self) -> (Connection, Channel) {
        let connection = Connection::connect(&self.url, ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        (connection, channel)
    }

    /// Messages that wait in `<prefix>.<queue>`; `None` if there is no such queue.
    pub(super) async fn looked(&self, queue: &str) -> Option<u32> {
        let (connection, channel) = self.channel().await;
        let passive = QueueDeclareOptions { passive: true, ..Default::default() };
        let queue =
            channel.queue_declare(format!("{}.{queue}", self.prefix).into(), passive, FieldTable::default()).await;
        let _ = connection.close(200, "".into()).await;
        queue.ok().map(|queue| queue.message_count())
    }

    pub(super) async fn ready(&self, queue: &str) -> u32 {
        self.looked(queue).await.unwrap()
    }

    /// Waits until the topology is there: the last queue, and what is bound after it, which a queue is not well
    /// without.
    pub(super) async fn declared(&self) {
        let are_well = || self.queues.lock().unwrap().iter().all(|queue| queue.health().problems.is_empty());
        while self.looked("delay.15").await.is_none() || !are_well() {
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn clear(&self) {
        let queues = std::mem::take(&mut *self.queues.lock().unwrap());
        for queue in queues {
            queue.close().await;
        }
        let (connection, channel) = self.channel().await;
        let topology = topology(&self.prefix);
        for queue in topology.queues {
            let _ = channel.queue_delete(queue.name.as_str().into(), QueueDeleteOptions::default()).await;
        }
        for exchange in topology.exchanges {
            let _ = channel.exchange_delete(exchange.name.as_str().into(), ExchangeDeleteOptions::default()).await;
        }
        for kind in Kind::ALL.into_iter().filter(|kind| kind.is_exclusive()) {
            let mark = format!("{}.lock.{kind}", self.prefix);
            let _ = channel.exchange_delete(mark.into(), ExchangeDeleteOptions::default()).await;
        }
        let _ = connection.close(200, "".into()).await;
    }
}

/// What has to happen within ten seconds.
pub(super) async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(10), future).await.expect("within 10 s")
}

pub(super) fn job(id: &str) -> Message {
    Message { body: b"{}".as_slice().into(), message_id: Some(id.to_owned()), ..Message::default() }
}

pub(super) fn lane(lane: Lane, after: Duration, message: Message) -> Publication {
    Publication { to: Destination::Lane { kind: Kind::CdnPurge, lane, after }, message }
}

pub(super) fn event(id: &str) -> Publication {
    Publication { to: Destination::Event { kind: "cdn.purge".to_owned(), outcome: "succeeded" }, message: job(id) }
}

pub(super) fn reply(queue: &str, id: &str) -> Publication {
    Publication { to: Destination::Reply { queue: queue.to_owned() }, message: job(id) }
}
