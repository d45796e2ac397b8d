//! A receiver of webhooks that a test controls: it records requests, and can refuse, hang and be unavailable.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::Instant,
};
use tokio_util::task::AbortOnDropHandle;

use crate::eventually;

/// A receiver on its own port. It stops when it is dropped.
pub struct Receiver {
    port: u16,
    shared: Arc<Mutex<Shared>>,
    serving: Option<AbortOnDropHandle<()>>,
}

/// A completely received request.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The target: path and query.
    pub target: String,
    /// The headers, with names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body as it was received.
    pub body: Vec<u8>,
    /// When it was received.
    pub at: Instant,
    /// The status of the answer; `None` if there was none.
    pub answered: Option<u16>,
}

#[derive(Default)]
struct Shared {
    answer: Answer,
    deliveries: Vec<Delivery>,
    /// Number of open connections.
    open: usize,
    most_open: usize,
    connections: usize,
}

#[derive(Clone)]
enum Answer {
    Status(String),
    Never,
}

impl Default for Answer {
    fn default() -> Self {
        Self::Status("204 No Content".to_owned())
    }
}

impl Receiver {
    /// Starts on a free port and accepts everything.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let shared = Arc::default();
        let serving = Some(serve(listener, &shared));
        Self { port, shared, serving }
    }

    /// The URL, without TLS.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hook", self.port)
    }

    /// Sets the status line and further headers of all answers: `503 Later\r\nretry-after: 2`.
    pub fn answer(&self, status: &str) {
        self.locked().answer = Answer::Status(status.to_owned());
    }

    /// Stops answering requests.
    pub fn hang(&self) {
        self.locked().answer = Answer::Never;
    }

    /// Refuses all connections until [`Self::up`].
    pub async fn down(&mut self) {
        self.serving = None;
        let what = "nothing listens any more";
        eventually(Duration::from_secs(10), what, async || TcpStream::connect(("127.0.0.1", self.port)).await.is_err())
            .await;
    }

    /// Listens again, on the same port.
    pub async fn up(&mut self) {
        let what = "the port is free";
        let listener =
            eventually(Duration::from_secs(10), what, async || TcpListener::bind(("127.0.0.1", self.port)).await).await;
        self.serving = Some(serve(listener, &self.shared));
    }

    /// Returns all received requests, with any answer.
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.locked().deliveries.clone()
    }

    /// Returns the accepted requests by `webhook-id`.
    pub fn taken(&self) -> BTreeMap<String, Vec<Delivery>> {
        let mut by_id: BTreeMap<String, Vec<Delivery>> = BTreeMap::new();
        for delivery in self.deliveries() {
            if delivery.answered.is_some_and(|status| (200..300).contains(&status)) {
                by_id.entry(delivery.header("webhook-id").to_owned()).or_default().push(delivery);
            }
        }
        by_id
    }

    /// Number of connections, including those without a request.
    pub fn connections(&self) -> usize {
        self.locked().connections
    }

    /// Maximum number of connections that were open at once.
    pub fn most_at_once(&self) -> usize {
        self.locked().most_open
    }

    fn locked(&self) -> MutexGuard<'_, Shared> {
        lock(&self.shared)
    }
}

impl Delivery {
    /// Returns a header; empty if it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// Parses the body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("not JSON ({error}): {self:?}"))
    }
}

fn serve(listener: TcpListener, shared: &Arc<Mutex<Shared>>) -> AbortOnDropHandle<()> {
    let shared = Arc::clone(shared);
    let serving = async move {
        // Dropped with the listener, so that an unavailable receiver closes its connections.
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let open = Open::new(&shared);
            let shared = Arc::clone(&shared);
            connections.spawn(async move {
                let _open = open;
                let _ = one(stream, &shared).await;
            });
            while connections.try_join_next().is_some() {}
        }
    };
    AbortOnDropHandle::new(tokio::spawn(serving))
}

/// Counts an open connection.
struct Open(Arc<Mutex<Shared>>);

impl Open {
    fn new(shared: &Arc<Mutex<Shared>>) -> Self {
        let mut counts = lock(shared);
        counts.connections += 1;
        counts.open += 1;
        counts.most_open = counts.most_open.max(counts.open);
        Self(Arc::clone(shared))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        lock(&self.0).open -= 1;
    }
}

/// Handles a request on its own connection.
async fn one(mut stream: TcpStream, shared: &Mutex<Shared>) -> std::io::Result<()> {
    let Some(delivery) = read(&mut stream).await? else { return Ok(()) };
    let answer = {
        let mut shared = lock(shared);
        let answer = shared.answer.clone();
        let answered = match &answer {
            Answer::Status(status) => status.split(' ').next().and_then(|code| code.parse().ok()),
            Answer::Never => None,
        };
        shared.deliveries.push(Delivery { answered, ..delivery });
        answer
    };
    match answer {
        Answer::Status(status) => {
            let text = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(text.as_bytes()).await
        }
        Answer::Never => std::future::pending().await,
    }
}

async fn read(stream: &mut TcpStream) -> std::io::Result<Option<Delivery>> {
    let (mut read, mut chunk) = (Vec::new(), vec![0; 16 * 1024]);
    loop {
        let length = stream.read(&mut chunk).await?;
        if length == 0 {
            return Ok(None);
        }
        read.extend_from_slice(&chunk[..length]);
        let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&read[..end]).into_owned();
        let headers: BTreeMap<String, String> = head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let body = &read[end + 4..];
        if body.len() >= length {
            let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
            let (body, at) = (body[..length].to_vec(), Instant::now());
            return Ok(Some(Delivery { target, headers, body, at, answered: None }));
        }
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
