//! A receiver of webhooks under a test's control: it keeps what it is sent, and can refuse, hang, and be away.

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

/// A receiver on a port of its own. Dropped: gone.
pub struct Receiver {
    port: u16,
    shared: Arc<Mutex<Shared>>,
    serving: Option<AbortOnDropHandle<()>>,
}

/// One request that was read to its end.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The target: path and query.
    pub target: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    /// As it came.
    pub body: Vec<u8>,
    /// When it was read.
    pub at: Instant,
    /// What it was answered; `None` where it was left hanging.
    pub answered: Option<u16>,
}

#[derive(Default)]
struct Shared {
    answer: Answer,
    deliveries: Vec<Delivery>,
    /// Connections that are open.
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
    /// On a free port; it takes everything.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let shared = Arc::default();
        let serving = Some(serve(listener, &shared));
        Self { port, shared, serving }
    }

    /// Its URL, without TLS.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hook", self.port)
    }

    /// From now on it answers with this status line, and further headers: `503 Later\r\nretry-after: 2`.
    pub fn answer(&self, status: &str) {
        self.locked().answer = Answer::Status(status.to_owned());
    }

    /// From now on it reads and never answers.
    pub fn hang(&self) {
        self.locked().answer = Answer::Never;
    }

    /// Nobody can connect, until [`Self::up`].
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

    /// Everything it was sent, whatever it answered.
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.locked().deliveries.clone()
    }

    /// What it took, by `webhook-id`.
    pub fn taken(&self) -> BTreeMap<String, Vec<Delivery>> {
        let mut by_id: BTreeMap<String, Vec<Delivery>> = BTreeMap::new();
        for delivery in self.deliveries() {
            if delivery.answered.is_some_and(|status| (200..300).contains(&status)) {
                by_id.entry(delivery.header("webhook-id").to_owned()).or_default().push(delivery);
            }
        }
        by_id
    }

    /// How many connections there were, also those that sent nothing.
    pub fn connections(&self) -> usize {
        self.locked().connections
    }

    /// How many were open at once, at most.
    pub fn most_at_once(&self) -> usize {
        self.locked().most_open
    }

    fn locked(&self) -> MutexGuard<'_, Shared> {
        lock(&self.shared)
    }
}

impl Delivery {
    /// A header, empty where it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("not JSON ({error}): {self:?}"))
    }
}

fn serve(listener: TcpListener, shared: &Arc<Mutex<Shared>>) -> AbortOnDropHandle<()> {
    let shared = Arc::clone(shared);
    let serving = async move {
        // Dropped with the listener, so that a receiver that goes away drops its connections.
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

/// Counted among the open connections.
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

/// One request on a connection of its own.
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
