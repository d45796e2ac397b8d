//! The API of the benchmark: it grants tokens and accepts purges after a given time.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, time::sleep};

/// The running API.
pub struct Stub {
    address: SocketAddr,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    answer_after_ms: AtomicU64,
    purges: AtomicU64,
    under_way: AtomicU64,
    most_under_way: AtomicU64,
}

impl Stub {
    /// Listens on a free local port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stub = Self { address: listener.local_addr().unwrap(), counts: Arc::default() };
        let counts = stub.counts.clone();
        tokio::spawn(async move {
            loop {
                let (connection, _) = listener.accept().await.unwrap();
                connection.set_nodelay(true).unwrap();
                let counts = counts.clone();
                let service = service_fn(move |request| answer(request, counts.clone()));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(connection), service));
            }
        });
        stub
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sets the time of a purge, and resets the counts.
    pub fn reset(&self, answer_after: Duration) {
        self.counts.answer_after_ms.store(u64::try_from(answer_after.as_millis()).unwrap(), Relaxed);
        self.counts.purges.store(0, Relaxed);
        self.counts.most_under_way.store(0, Relaxed);
    }

    /// Number of purge requests since [`reset`](Self::reset).
    pub fn purges(&self) -> u64 {
        self.counts.purges.load(Relaxed)
    }

    /// Maximum number of concurrent purge requests since [`reset`](Self::reset).
    pub fn most_under_way(&self) -> u64 {
        self.counts.most_under_way.load(Relaxed)
    }
}

async fn answer(request: Request<Incoming>, counts: Arc<Counts>) -> Result<Response<Full<Bytes>>, Infallible> {
    let purge = request.uri().path().ends_with("/purge");
    let _ = request.into_body().collect().await;
    if !purge {
        return Ok(json(200, r#"{"access_token":"benchmark","token_type":"bearer","expires_in":86400}"#));
    }
    let under_way = counts.under_way.fetch_add(1, Relaxed) + 1;
    counts.most_under_way.fetch_max(under_way, Relaxed);
    let after = counts.answer_after_ms.load(Relaxed);
    if after > 0 {
        sleep(Duration::from_millis(after)).await;
    }
    counts.under_way.fetch_sub(1, Relaxed);
    counts.purges.fetch_add(1, Relaxed);
    Ok(json(202, r#"{"status":"accepted"}"#))
}

fn json(status: u16, body: &'static str) -> Response<Full<Bytes>> {
    let response = Response::builder().status(status).header("content-type", "application/json");
    response.body(Full::new(Bytes::from_static(body.as_bytes()))).unwrap()
}
