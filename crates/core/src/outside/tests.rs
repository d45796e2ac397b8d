//! Against servers on this machine, which keep what they were sent.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{Router, body::Body, extract::Request as Received, http, response::IntoResponse};
use clap::{Args, Command, FromArgMatches};
use hyper::header::{AUTHORIZATION, LOCATION};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_util::sync::CancellationToken;

use super::*;
use genfleet_genesys::{ApiRequest, CredentialSource, Credentials, GenesysClient, GenesysOptions, Rights};
use genfleet_job::{
    JobId, Kind,
    clock::{SharedClock, SystemClock},
};
use genfleet_telemetry::http::install_tls;

/// A server, and the heads of the requests that it got.
#[derive(Clone)]
struct Host {
    address: SocketAddr,
    got: Arc<Mutex<Vec<(String, HeaderMap)>>>,
}

impl Host {
    async fn answering<A: IntoResponse>(answer: impl Fn(&str) -> A + Clone + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = Self { address: listener.local_addr().unwrap(), got: Arc::default() };
        let got = Arc::clone(&host.got);
        let router = Router::new().fallback(move |request: Received| {
            let path = request.uri().path().to_owned();
            let head = (format!("{} {path}", request.method()), request.headers().clone());
            got.lock().unwrap().push(head);
            std::future::ready(answer(&path).into_response())
        });
        tokio::spawn(async { axum::serve(listener, router).await });
        host
    }

    fn url(&self, path: &str) -> Url {
        format!("http://{}{path}", self.address).parse().unwrap()
    }

    fn requests(&self) -> Vec<String> {
        self.got.lock().unwrap().iter().map(|(line, _)| line.clone()).collect()
    }

    fn authorisations(&self) -> usize {
        self.got.lock().unwrap().iter().filter(|(_, headers)| headers.contains_key(AUTHORIZATION)).count()
    }
}

fn outside(allowed: &[&str]) -> OutsideClient {
    install_tls();
    let allowed: Vec<AddressEntry> = allowed.iter().map(|entry| entry.parse().unwrap()).collect();
    OutsideClient::new("--media-allow", &allowed, None).unwrap()
}

fn genesys(api: &Host) -> GenesysClient {
    install_tls();
    let base = format!("http://{}", api.address);
    let matches = GenesysOptions::augment_args(Command::new("test"));
    let matches = matches.get_matches_from(["test", "--genesys-base-url", &base]);
    let options = GenesysOptions::from_arg_matches(&matches).unwrap();
    let credentials = Credentials { id: "id".to_owned().into(), secret: "hush".to_owned().into() };
    let clock: SharedClock = Arc::new(SystemClock);
    GenesysClient::with_credentials(&options, Vec::<(Kind, Rights)>::new(), clock, CredentialSource::Given(credentials))
        .unwrap()
}

/// Sends on behalf of one job.
async fn send(client: &OutsideClient, request: OutsideRequest) -> Result<OutsideAnswer, OutsideError> {
    let (jobs, stop) = ([JobId::parse("job").unwrap()], CancellationToken::new());
    let caller = Caller { kind: Kind::FileScan, jobs: &jobs, traces: &[], stop: &stop, lease: None };
    client.send(request, &caller, &Audit::off()).await
}

fn get(url: Url) -> OutsideRequest {
    OutsideRequest::new(Method::GET, "a link", url)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_host_but_the_api_sees_an_authorization_header() {
    let bucket = Host::answering(|_| "bytes").await;
    let place = bucket.url("/file").to_string();
    let cdn = Host::answering(move |_| (http::StatusCode::FOUND, [(LOCATION, place.clone())])).await;
    let link = cdn.url("/link?signature=secret").to_string();
    let api = Host::answering(move |path| match path {
        "/oauth/token" => r#"{"access_token":"the-token","expires_in":3600}"#.to_owned(),
        _ => format!(r#"{{"url":"{link}"}}"#),
    })
    .await;
    let (genesys, client) = (genesys(&api), outside(&["127.0.0.1"]));
    let (jobs, stop) = ([JobId::parse("job").unwrap()], CancellationToken::new());
    let caller = Caller { kind: Kind::FileScan, jobs: &jobs, traces: &[], stop: &stop, lease: None };

    let answer = genesys.send(ApiRequest::get("/api/v2/downloads/{id}").at("/api/v2/downloads/1"), &caller).await;
    let link: serde_json::Value = answer.unwrap().json().unwrap();
    let moved = client.send(get(link["url"].as_str().unwrap().parse().unwrap()), &caller, &Audit::off()).await.unwrap();
    assert_eq!(moved.status, 302, "a redirect is not followed");
    let next = moved.headers[LOCATION].to_str().unwrap().parse().unwrap();
    let bytes = client.send(get(next), &caller, &Audit::off()).await.unwrap().read(100).await.unwrap();
    assert_eq!(bytes, "bytes");

    assert_eq!(api.requests(), ["POST /oauth/token", "GET /api/v2/downloads/1"]);
    assert_eq!((cdn.requests().len(), bucket.requests().len()), (1, 1));
    assert_eq!([&api, &cdn, &bucket].map(Host::authorisations), [2, 0, 0]);
}

#[tokio::test]
async fn an_address_that_is_not_public_is_not_connected_to_unless_the_setting_names_it() {
    let host = Host::answering(|_| "inside").await;
    let closed = outside(&[]);
    let plain = send(&closed, get(host.url("/"))).await.unwrap_err();
    assert!(
        matches!(&plain, OutsideError::Refused(why) if why.contains("does not use https; --media-allow permits that")),
        "{plain:?}"
    );
    for url in ["https://127.0.0.1/a", "https://[::1]/a", "https://10.0.0.1/a", "https://169.254.169.254/latest"] {
        let refused = send(&closed, get(url.parse().unwrap())).await.unwrap_err();
        assert!(matches!(&refused, OutsideError::Refused(why) if why.contains("--media-allow")), "{url}: {refused:?}");
    }
    let by_name = send(&closed, get(format!("https://localhost:{}/", host.address.port()).parse().unwrap())).await;
    assert!(matches!(by_name, Err(OutsideError::Refused(_))), "{by_name:?}");
    assert!(host.requests().is_empty(), "nobody connected");
    let answer = send(&outside(&["127.0.0.0/8"]), get(host.url("/"))).await.unwrap();
    assert_eq!(answer.read(6).await.unwrap(), "inside");
}

#[tokio::test]
async fn other_methods_and_headers_are_sent_as_they_are_and_the_query_is_shown_nowhere() {
    let host = Host::answering(|_| "").await;
    let purge = Method::from_bytes(b"PURGE").unwrap();
    let request = OutsideRequest::new(purge, "purge", host.url("/a%20b?signature=secret"));
    let request = request.header(HeaderName::from_static("x-ban-regex"), HeaderValue::from_static("^/a/"));
    assert!(changes(&request.method) && !changes(&Method::GET) && !changes(&Method::HEAD));
    assert_eq!(send(&outside(&["127.0.0.1"]), request).await.unwrap().status, 200);
    assert_eq!(host.requests(), ["PURGE /a%20b"]);
    assert_eq!(host.got.lock().unwrap()[0].1["x-ban-regex"], "^/a/");
    let refused = send(&outside(&[]), get(host.url("/?signature=secret"))).await.unwrap_err();
    assert!(!format!("{refused:?}").contains("secret"), "{refused:?}");
}

#[tokio::test]
async fn a_body_of_any_length_is_read_part_by_part_and_a_long_one_is_not_read_whole() {
    const LENGTH: usize = 1_000_000;
    let host = Host::answering(|_| Body::from(vec![b'x'; LENGTH])).await;
    let client = outside(&["127.0.0.1"]);
    let (mut answer, mut read) = (send(&client, get(host.url("/"))).await.unwrap(), 0);
    while let Some(part) = answer.chunk().await.unwrap() {
        read += part.len();
    }
    assert_eq!(read, LENGTH);
    let error = send(&client, get(host.url("/"))).await.unwrap().read(LENGTH - 1).await.unwrap_err();
    assert!(matches!(error, OutsideError::Failed(TransportFailure::TooLong, _)), "{error:?}");
}

#[tokio::test]
async fn what_was_never_sent_is_told_from_what_may_have_arrived() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let never = send(&outside(&["127.0.0.1"]), get(format!("http://{closed}/").parse().unwrap())).await.unwrap_err();
    assert!(matches!(&never, OutsideError::Failed(TransportFailure::NeverSent, _)), "{never:?}");
    assert!(!never.may_have_arrived());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(async move { drop(listener.accept().await) });
    let broken = send(&outside(&["127.0.0.1"]), get(url)).await.unwrap_err();
    assert!(broken.may_have_arrived() && broken.requests() == 1, "{broken:?}");
}

/// A host that answers the first request of each connection, keeps it, and closes it once the second was sent. Counts
/// all requests, and the second ones.
async fn closing_host() -> (Url, Arc<[AtomicUsize; 2]>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    let counts: Arc<[AtomicUsize; 2]> = Arc::default();
    let counted = Arc::clone(&counts);
    tokio::spawn(async move {
        loop {
            let (mut stream, counts) = (listener.accept().await.unwrap().0, Arc::clone(&counted));
            tokio::spawn(async move {
                let mut head = [0; 1024];
                for is_second in [false, true] {
                    if stream.read(&mut head).await.is_ok_and(|read| read > 0) {
                        counts[0].fetch_add(1, Ordering::SeqCst);
                        counts[1].fetch_add(is_second.into(), Ordering::SeqCst);
                    }
                    if !is_second {
                        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
                    }
                }
            });
        }
    });
    (url, counts)
}

#[tokio::test]
async fn what_changes_nothing_is_sent_again_where_a_kept_connection_was_closed() {
    for method in [Method::GET, Method::HEAD, Method::POST] {
        let (client, (url, counts)) = (outside(&["127.0.0.1"]), closing_host().await);
        let (mut sent, mut failed) = (0, 0);
        // A connection is kept shortly after its answer was read: the next request may come too early for it.
        while counts[1].load(Ordering::SeqCst) == 0 {
            sent += 1;
            assert!(sent < 1000, "no connection is used twice");
            match send(&client, OutsideRequest::new(method.clone(), "a request", url.clone())).await {
                Ok(answer) => assert_eq!(answer.read(0).await.unwrap(), ""),
                Err(error) => failed += usize::from(error.may_have_arrived()),
            }
        }
        let (repeated, lost) = if method == Method::POST { (0, 1) } else { (1, 0) };
        assert_eq!((counts[0].load(Ordering::SeqCst) - sent, failed), (repeated, lost), "{method}");
    }
}

#[tokio::test]
async fn a_new_connection_that_breaks_is_not_tried_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&accepted);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            let _ = stream.read(&mut [0; 1024]).await;
        }
    });
    let broken = send(&outside(&["127.0.0.1"]), get(url)).await.unwrap_err();
    assert!(broken.may_have_arrived(), "{broken:?}");
    assert_eq!(accepted.load(Ordering::SeqCst), 1);
}
