//! The minimal worker for the other kinds: for each job it sends the same requests in the same order.

use std::{ffi::OsStr, fs, ops::Range, sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt};
use lapin::{message::Delivery, options::BasicAckOptions};
use serde::Deserialize;
use tokio::{sync::Mutex, time::sleep};

use crate::{Worker, recorded::Recorded, variable};

/// The requests of each job.
pub struct Replay {
    requests: Vec<Recorded>,
    alone: Range<usize>,
    turn: Mutex<()>,
}

#[derive(Deserialize)]
struct Job<'a> {
    /// A poll is published again with its own result.
    #[serde(alias = "subject")]
    id: &'a str,
}

impl Replay {
    pub fn of(file: &OsStr) -> Self {
        let requests = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        let alone = variable("ALONE");
        let (start, end) = alone.split_once("..").unwrap();
        Self { requests, alone: start.parse().unwrap()..end.parse().unwrap(), turn: Mutex::default() }
    }
}

/// Works all jobs at the same time; the broker limits their number.
pub async fn work_all(worker: Arc<Worker>, mut deliveries: impl Stream<Item = Delivery> + Unpin, replay: Replay) {
    let replay = Arc::new(replay);
    while let Some(delivery) = deliveries.next().await {
        let (worker, replay) = (worker.clone(), replay.clone());
        tokio::spawn(async move {
            let status = worker.replay(&replay).await;
            let job: Job<'_> = serde_json::from_slice(&delivery.data).unwrap();
            assert!(worker.publish(job.id, status).await.await.unwrap().is_ack());
            delivery.ack(BasicAckOptions::default()).await.unwrap();
        });
    }
}

impl Worker {
    /// Sends the requests and returns the status of the last answer.
    async fn replay(&self, replay: &Replay) -> u16 {
        let (mut status, mut turn) = (0, None);
        for (at, request) in replay.requests.iter().enumerate() {
            if request.after_ms > 0 {
                sleep(Duration::from_millis(request.after_ms)).await;
            }
            if at == replay.alone.start && !replay.alone.is_empty() {
                turn = Some(replay.turn.lock().await);
            }
            status = self.repeat(request).await;
            if at + 1 == replay.alone.end {
                turn = None;
            }
        }
        drop(turn);
        status
    }

    async fn repeat(&self, recorded: &Recorded) -> u16 {
        let _slot = self.requests.acquire().await.unwrap();
        let method = recorded.method.parse().unwrap();
        let mut request = self.http.request(method, format!("{}{}", self.api, recorded.path));
        request = request.header("authorization", &self.authorization);
        if let Some(version) = &recorded.if_match {
            request = request.header("if-match", version);
        }
        if !recorded.body.is_empty() {
            request = request.header("content-type", "application/json").body(recorded.body.clone());
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        answer.bytes().await.unwrap();
        status
    }
}
