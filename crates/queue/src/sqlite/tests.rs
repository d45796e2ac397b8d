//! The promises of SPEC 6.2, each on real files. What both queues promise is in `queue::conformance`.

use std::{env, fs, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use rusqlite::Connection;
use tokio::time::{self, Instant};
use uuid::Uuid;

use super::{Consumer, Role, SqliteQueue, Suspects};
use crate::{Delivery, Destination, Publication};
use genfleet_job::{
    Kind,
    clock::{SharedClock, SystemClock},
    message::{Lane, Message},
};

mod delays;
mod deliveries;
mod files;
mod inspection;
mod recovery;
mod status_file;
mod trouble;

const KIND: Kind = Kind::FileScan;

/// A folder of its own, gone with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let folder = env::temp_dir().join(format!("genfleet-store-{}", Uuid::new_v4()));
        fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    fn store(&self) -> PathBuf {
        self.0.join("store.db")
    }

    fn worker(&self) -> SqliteQueue {
        SqliteQueue::open(&self.store(), Role::Worker, clock()).unwrap()
    }

    fn tool(&self) -> SqliteQueue {
        SqliteQueue::open(&self.store(), Role::Tool, clock()).unwrap()
    }

    /// The file under the queue's feet.
    fn raw(&self) -> Connection {
        let connection = Connection::open(self.store()).unwrap();
        connection.busy_timeout(Duration::from_secs(10)).unwrap();
        connection
    }

    /// What a process that dies now leaves: the files as they are.
    fn after_a_crash(&self) -> Self {
        let copy = Self::new();
        for name in ["store.db", "store.db-wal"] {
            fs::copy(self.0.join(name), copy.0.join(name)).unwrap();
        }
        copy
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn clock() -> SharedClock {
    Arc::new(SystemClock)
}

fn message(text: &str) -> Message {
    Message { body: Bytes::copy_from_slice(text.as_bytes()), ..Message::default() }
}

fn new_job(text: &str) -> Publication {
    Publication { to: Destination::Jobs(KIND), message: message(text) }
}

fn lane(lane: Lane, after: Duration, text: &str) -> Publication {
    Publication { to: Destination::Lane { kind: KIND, lane, after }, message: message(text) }
}

fn event(text: &str) -> Publication {
    let to = Destination::Event { kind: "file.scan".to_owned(), outcome: "succeeded" };
    Publication { to, message: message(text) }
}

fn dead(kind: &str, text: &str) -> Publication {
    Publication { to: Destination::Dead { kind: kind.to_owned() }, message: message(text) }
}

fn text(delivery: &Delivery) -> String {
    String::from_utf8(delivery.message.body.to_vec()).unwrap()
}

/// The next one, which has to come.
async fn next(consumer: &mut Consumer) -> Delivery {
    time::timeout(Duration::from_secs(10), consumer.next()).await.expect("a job should have come")
}

async fn next_suspect(suspects: &mut Suspects) -> Delivery {
    time::timeout(Duration::from_secs(10), suspects.next()).await.expect("a suspect should have come")
}

/// Nothing comes, for as long as one waits.
async fn nothing(consumer: &mut Consumer) -> bool {
    time::timeout(Duration::from_millis(60), consumer.next()).await.is_err()
}

/// Returns true if `what` becomes true in time.
async fn comes_true<F: Future<Output = bool>>(what: impl Fn() -> F) -> bool {
    let until = Instant::now() + Duration::from_secs(10);
    while Instant::now() < until {
        if what().await {
            return true;
        }
        time::sleep(Duration::from_millis(5)).await;
    }
    false
}
