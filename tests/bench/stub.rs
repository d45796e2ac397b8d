//! The API of the benchmark: it grants tokens, accepts purges, and gives every other request of a worker the answer that
//! its job succeeds with, after a given time. It can record requests.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, http::request::Parts, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    time::{Instant, sleep},
};

use crate::recorded::Recorded;

/// Time between two requests of a job from which on the job is taken to have waited.
const WAIT: Duration = Duration::from_millis(500);

/// The running API.
pub struct Stub {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    answer_after_ms: AtomicU64,
    /// True if scans have no verdict.
    scans_go_on: AtomicBool,
    requests: AtomicU64,
    polls: AtomicU64,
    under_way: AtomicU64,
    most_under_way: AtomicU64,
    /// Requests with their time, if they are recorded.
    record: Mutex<Option<Vec<(Instant, Recorded)>>>,
}

impl Stub {
    /// Listens on a free local port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stub = Self { address: listener.local_addr().unwrap(), shared: Arc::default() };
        let shared = stub.shared.clone();
        tokio::spawn(async move {
            loop {
                let (connection, _) = listener.accept().await.unwrap();
                connection.set_nodelay(true).unwrap();
                let shared = shared.clone();
                let service = service_fn(move |request| answer(request, shared.clone()));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(connection), service));
            }
        });
        stub
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its port, which also serves as a gateway that accepts connections.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Sets the time of an answer, and resets the counts.
    pub fn reset(&self, answer_after: Duration) {
        self.shared.answer_after_ms.store(u64::try_from(answer_after.as_millis()).unwrap(), Relaxed);
        self.shared.requests.store(0, Relaxed);
        self.shared.polls.store(0, Relaxed);
        self.shared.most_under_way.store(0, Relaxed);
    }

    /// Sets whether scans go on without a verdict.
    pub fn let_scans_go_on(&self, go_on: bool) {
        self.shared.scans_go_on.store(go_on, Relaxed);
    }

    /// Number of requests since [`reset`](Self::reset), without those for tokens.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Relaxed)
    }

    /// Number of polls of scans since [`reset`](Self::reset).
    pub fn polls(&self) -> u64 {
        self.shared.polls.load(Relaxed)
    }

    /// Maximum number of concurrent requests since [`reset`](Self::reset).
    pub fn most_under_way(&self) -> u64 {
        self.shared.most_under_way.load(Relaxed)
    }

    /// Starts a new record.
    pub fn record(&self) {
        *self.shared.record.lock().unwrap() = Some(Vec::new());
    }

    /// Ends the record and returns it.
    pub fn recorded(&self) -> Vec<Recorded> {
        let recorded = self.shared.record.lock().unwrap().take().unwrap_or_default();
        let times: Vec<Instant> = recorded.iter().map(|(at, _)| *at).collect();
        let mut requests: Vec<Recorded> = recorded.into_iter().map(|(_, request)| request).collect();
        for (request, times) in requests.iter_mut().skip(1).zip(times.windows(2)) {
            let after = times[1] - times[0];
            request.after_ms = if after < WAIT { 0 } else { u64::try_from(after.as_millis()).unwrap() };
        }
        requests
    }
}

async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    if parts.uri.path() == "/oauth/token" {
        return Ok(response(200, r#"{"access_token":"benchmark","token_type":"bearer","expires_in":86400}"#.into()));
    }
    if let Some(record) = &mut *shared.record.lock().unwrap() {
        record.push((Instant::now(), recorded(&parts, &body)));
    }
    let under_way = shared.under_way.fetch_add(1, Relaxed) + 1;
    shared.most_under_way.fetch_max(under_way, Relaxed);
    let after = shared.answer_after_ms.load(Relaxed);
    if after > 0 {
        sleep(Duration::from_millis(after)).await;
    }
    shared.under_way.fetch_sub(1, Relaxed);
    shared.requests.fetch_add(1, Relaxed);
    Ok(success(&parts, &body, &shared))
}

fn recorded(parts: &Parts, body: &[u8]) -> Recorded {
    let if_match = parts.headers.get("if-match").and_then(|value| value.to_str().ok());
    Recorded {
        method: parts.method.to_string(),
        path: parts.uri.path_and_query().unwrap().to_string(),
        if_match: if_match.map(str::to_owned),
        body: String::from_utf8_lossy(body).into_owned(),
        after_ms: 0,
    }
}

/// Answers as the API does where nothing is in the way of a job.
fn success(parts: &Parts, body: &[u8], shared: &Shared) -> Response<Full<Bytes>> {
    let path = parts.uri.path().trim_start_matches("/api/v2/");
    let segments: Vec<&str> = path.split('/').collect();
    let sent = || serde_json::from_slice::<Value>(body).unwrap_or_default();
    let (status, answer) = match (parts.method.as_str(), segments.as_slice()) {
        ("POST", [.., "purge"]) => return response(202, r#"{"status":"accepted"}"#.into()),
        ("PUT", ["configuration", "event-streams", id]) => (201, json!({ "id": id })),
        ("GET", ["routing", "queues", id]) => (200, json!({ "id": id, "name": "queue" })),
        ("GET", ["purecloudv2", "webchat", _]) => (404, json!({ "status": 404, "code": "not.found" })),
        ("GET", ["purecloudv2", "webchat"] | [.., "connections"]) => (200, json!({ "entities": [], "total": 0 })),
        ("POST", ["purecloudv2", "webchat"]) => (201, sent()),
        ("POST", [.., "connections"]) => {
            let mut created = sent();
            created["id"] = "d0000000-0000-4000-8000-000000000001".into();
            (201, created)
        }
        ("POST", [.., "routingtables", id, "sync"]) => (202, json!({ "id": id, "expectedHash": "synced" })),
        ("GET", [.., "routingtables", id]) => (200, json!({ "id": id, "currentHash": "synced" })),
        ("POST", ["files", file, "scans"]) => (202, json!({ "id": file, "status": "pending" })),
        ("GET", ["files", _, "scans", id]) => {
            shared.polls.fetch_add(1, Relaxed);
            (200, scan(id, shared.scans_go_on.load(Relaxed)))
        }
        _ => (404, json!({ "status": 404, "code": "not.found", "message": "the benchmark does not know this" })),
    };
    response(status, answer.to_string().into())
}

fn scan(id: &str, goes_on: bool) -> Value {
    if goes_on {
        return json!({ "id": id, "status": "pending" });
    }
    json!({ "id": id, "status": "completed", "result": "clean", "quarantined": false })
}

fn response(status: u16, body: Bytes) -> Response<Full<Bytes>> {
    let response = Response::builder().status(status).header("content-type", "application/json");
    response.header("etag", "\"1\"").body(Full::new(body)).unwrap()
}
