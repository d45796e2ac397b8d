//! The minimal worker of `tests/bench`. It receives a job, sends its request, publishes a result, waits for the
//! broker's confirmation and acknowledges. It has no validation, no retries, no budget, no audit and no metrics.
//!
//! Environment: `AMQP_URL`, `API_URL`, `JOBS` (queue), `RESULTS_EXCHANGE` and `RESULTS` (routing key); for `cdn.purge`
//! `TOGETHER` (jobs a request: 1, or up to 100); for the other kinds, see [`replay`], `REQUESTS` (a file with the
//! requests of each job), `IN_FLIGHT` (jobs) and `ALONE` (which requests are sent by one job at a time: `2..4`).
#![expect(clippy::unwrap_used, reason = "a benchmark: whatever goes wrong ends it")]
#![expect(unreachable_pub, reason = "nothing uses this but itself")]

use std::{env, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, PublisherConfirm,
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions},
    types::FieldTable,
};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::{Instant, timeout_at},
};

use self::replay::Replay;

mod recorded;
mod replay;

/// Number of unacknowledged jobs, as for the purger.
const PREFETCH: u16 = 256;
/// Maximum number of concurrent requests.
const REQUESTS: usize = 64;
/// Time that a request waits for further jobs.
const LINGER: Duration = Duration::from_millis(5);

#[derive(Deserialize)]
struct Job<'a> {
    id: &'a str,
    #[serde(borrow)]
    payload: Payload<'a>,
}

#[derive(Deserialize)]
struct Payload<'a> {
    #[serde(borrow)]
    paths: Vec<&'a str>,
}

#[derive(Serialize)]
struct Request<'a> {
    paths: Vec<&'a str>,
}

#[derive(Serialize)]
struct Done<'a> {
    subject: &'a str,
    outcome: &'static str,
    status: u16,
}

/// The connections, shared by all jobs.
struct Worker {
    http: reqwest::Client,
    api: String,
    purge: String,
    authorization: String,
    publisher: Channel,
    exchange: String,
    results: String,
    requests: Semaphore,
}

fn variable(name: &str) -> String {
    env::var(name).unwrap()
}

#[tokio::main]
async fn main() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let connection = Connection::connect(&variable("AMQP_URL"), ConnectionProperties::default()).await.unwrap();
    let (consumer, publisher) =
        (connection.create_channel().await.unwrap(), connection.create_channel().await.unwrap());
    publisher.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let replay = env::var_os("REQUESTS").map(|file| Replay::of(&file));
    let together: usize = variable("TOGETHER").parse().unwrap();
    let prefetch = match &replay {
        Some(_) => variable("IN_FLIGHT").parse().unwrap(),
        None if together == 1 => PREFETCH,
        None => 16 * 100,
    };
    consumer.basic_qos(prefetch, BasicQosOptions::default()).await.unwrap();
    let worker = Arc::new(Worker::new(publisher).await);
    let queue = variable("JOBS");
    let (options, table) = (BasicConsumeOptions::default(), FieldTable::default());
    let deliveries = consumer.basic_consume(queue.as_str().into(), "".into(), options, table).await.unwrap();
    let deliveries = deliveries.map(Result::unwrap);
    match replay {
        Some(replay) => replay::work_all(worker, deliveries, replay).await,
        None if together == 1 => one_by_one(worker, deliveries).await,
        None => gathered(worker, deliveries, together).await,
    }
}

async fn one_by_one(worker: Arc<Worker>, mut deliveries: impl Stream<Item = Delivery> + Unpin) {
    while let Some(delivery) = deliveries.next().await {
        let worker = worker.clone();
        tokio::spawn(async move {
            worker.work(std::slice::from_ref(&delivery)).await;
            delivery.ack(BasicAckOptions::default()).await.unwrap();
        });
    }
}

/// Collects jobs. The jobs of a request are acknowledged together, in the order of the requests.
async fn gathered(worker: Arc<Worker>, mut deliveries: impl Stream<Item = Delivery> + Unpin, together: usize) {
    let (acknowledge, mut in_order) = mpsc::unbounded_channel::<oneshot::Receiver<Delivery>>();
    tokio::spawn(async move {
        while let Some(last) = in_order.recv().await {
            last.await.unwrap().ack(BasicAckOptions { multiple: true }).await.unwrap();
        }
    });
    while let Some(first) = deliveries.next().await {
        let mut batch = vec![first];
        let until = Instant::now() + LINGER;
        while batch.len() < together
            && let Ok(Some(next)) = timeout_at(until, deliveries.next()).await
        {
            batch.push(next);
        }
        let (done, last) = oneshot::channel();
        acknowledge.send(last).unwrap();
        let worker = worker.clone();
        tokio::spawn(async move {
            worker.work(&batch).await;
            let _ = done.send(batch.pop().unwrap());
        });
    }
}

impl Worker {
    async fn new(publisher: Channel) -> Self {
        #[derive(Deserialize)]
        struct Token {
            access_token: String,
        }
        let (http, api) = (reqwest::Client::builder().no_proxy().build().unwrap(), variable("API_URL"));
        let answer = http.post(format!("{api}/oauth/token")).send().await.unwrap();
        let token: Token = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        Self {
            http,
            purge: format!("{api}/api/v2/external/cdn/purge"),
            api,
            authorization: format!("Bearer {}", token.access_token),
            publisher,
            exchange: variable("RESULTS_EXCHANGE"),
            results: variable("RESULTS"),
            requests: Semaphore::new(REQUESTS),
        }
    }

    /// Sends a request for all jobs, and then publishes a result for each.
    async fn work(&self, batch: &[Delivery]) {
        let jobs: Vec<Job<'_>> = batch.iter().map(|delivery| serde_json::from_slice(&delivery.data).unwrap()).collect();
        let request = Request { paths: jobs.iter().flat_map(|job| job.payload.paths.iter().copied()).collect() };
        let status = self.send(serde_json::to_vec(&request).unwrap().into()).await;
        let mut confirms = Vec::with_capacity(jobs.len());
        for job in &jobs {
            confirms.push(self.publish(job.id, status).await);
        }
        for confirm in confirms {
            assert!(confirm.await.unwrap().is_ack());
        }
    }

    /// Publishes the result of a job.
    async fn publish(&self, job: &str, status: u16) -> PublisherConfirm {
        let result = serde_json::to_vec(&Done { subject: job, outcome: "succeeded", status }).unwrap();
        let properties = BasicProperties::default().with_delivery_mode(2).with_content_type("application/json".into());
        let (exchange, key) = (self.exchange.as_str().into(), self.results.as_str().into());
        self.publisher.basic_publish(exchange, key, BasicPublishOptions::default(), &result, properties).await.unwrap()
    }

    async fn send(&self, body: Bytes) -> u16 {
        let _slot = self.requests.acquire().await.unwrap();
        let request = self.http.post(&self.purge).header("authorization", &self.authorization);
        let answer = request.header("content-type", "application/json").body(body).send().await.unwrap();
        let status = answer.status().as_u16();
        answer.bytes().await.unwrap();
        status
    }
}
