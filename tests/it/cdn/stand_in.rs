//! A server in the place of a CDN's API: it keeps what it is sent, and answers as it is told.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

/// A request as it came.
#[derive(Clone, Debug)]
pub(super) struct Recorded {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: Option<String>,
    /// Names in lower case.
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: String,
}

impl Recorded {
    pub(super) fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    status: u16,
    headers: Vec<(&'static str, &'static str)>,
    body: String,
}

impl Reply {
    pub(super) fn new(status: u16, body: impl Into<String>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    pub(super) fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }
}

type Judge = Box<dyn Fn(usize, &Recorded) -> Reply + Send + Sync>;

struct Shared {
    judge: Judge,
    requests: Mutex<Vec<Recorded>>,
}

/// Dropped: gone.
pub(super) struct StandIn {
    port: u16,
    shared: Arc<Shared>,
    _serving: AbortOnDropHandle<()>,
}

impl StandIn {
    /// Answers by the number of the request, from 0.
    pub(super) async fn start(judge: impl Fn(usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::with(Box::new(move |number, _| judge(number))).await
    }

    /// Answers by what the request says.
    pub(super) async fn judging(judge: impl Fn(&Recorded) -> Reply + Send + Sync + 'static) -> Self {
        Self::with(Box::new(move |_, request| judge(request))).await
    }

    async fn with(judge: Judge) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared { judge, requests: Mutex::default() });
        let serving = Arc::clone(&shared);
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&serving);
                let service = service_fn(move |request| answer(Arc::clone(&shared), request));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { port, shared, _serving: AbortOnDropHandle::new(serving) }
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What it was sent until now.
    pub(super) fn requests(&self) -> Vec<Recorded> {
        self.shared.requests.lock().unwrap().clone()
    }

    pub(super) fn forget(&self) {
        self.shared.requests.lock().unwrap().clear();
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Full<bytes::Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let headers = head
        .headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
    let recorded = Recorded {
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().map(str::to_owned),
        headers: headers.collect(),
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    let number = {
        let mut requests = shared.requests.lock().unwrap();
        requests.push(recorded.clone());
        requests.len() - 1
    };
    let Reply { status, headers, body } = (shared.judge)(number, &recorded);
    let builder =
        headers.iter().fold(Response::builder().status(status), |builder, (name, value)| builder.header(*name, *value));
    Ok(builder.body(Full::new(body.into())).unwrap())
}
