//! Against listeners on this machine: what counts is who was connected to.

use std::{
    io,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::time::Instant;

use super::*;
use crate::webhook::stub::Stub;
use genfleet_telemetry::http::install_tls;

mod encrypted;
mod hostile;

/// A resolver that answers with one address after the other.
fn names(answers: &[&str]) -> Resolver {
    counted_names(answers, &Arc::default())
}

/// The same, which counts in `asked`.
fn counted_names(answers: &[&str], asked: &Arc<AtomicUsize>) -> Resolver {
    let answers: Vec<IpAddr> = answers.iter().map(|ip| ip.parse().unwrap()).collect();
    let asked = Arc::clone(asked);
    Arc::new(move |_| {
        let index = asked.fetch_add(1, Ordering::Relaxed);
        let answer = answers.get(index % answers.len().max(1)).map(|ip| vec![*ip]);
        Box::pin(std::future::ready(answer.ok_or_else(|| io::ErrorKind::NotFound.into())))
    })
}

fn post(allowed: &[&str], names: Resolver) -> WebhookClient {
    install_tls();
    let allowed: Vec<_> = allowed.iter().map(|entry| entry.parse().unwrap()).collect();
    WebhookClient::with_resolver(AddressList::new(&allowed, &[]), None, names).unwrap()
}

async fn send(post: &WebhookClient, url: &str) -> Result<WebhookResponse, WebhookSendError> {
    let receiver = Receiver::parse(url).unwrap();
    let headers = HeaderMap::from_iter([(hyper::header::CONTENT_TYPE, HeaderValue::from_static("text/plain"))]);
    post.send(&receiver, headers, "the body".into(), Timestamp::UNIX_EPOCH).await
}

#[tokio::test]
async fn what_is_sent_arrives_and_the_answer_comes_back() {
    let stub = Stub::answering("127.0.0.1", "503 Later\r\nretry-after: 17").await;
    let answer = send(&post(&["127.0.0.1"], names(&[])), &format!("http://127.0.0.1:{}/a?b", stub.port)).await;
    assert_eq!(answer, Ok(WebhookResponse { status: 503, retry_after: Some(Duration::from_secs(17)) }));
    let asked = stub.requests().remove(0);
    assert!(asked.head.starts_with("POST /a?b HTTP/1.1"), "{asked:?}");
    assert_eq!((asked.header("content-type"), asked.body.as_str()), (Some("text/plain"), "the body"));
    assert!(asked.header("user-agent").unwrap().starts_with("genfleet/"));
    assert!(asked.header("authorization").is_none());
}

#[tokio::test]
async fn nothing_connects_to_an_address_that_is_not_public_however_it_is_written() {
    let stub = Stub::answering("127.0.0.1", "200 OK").await;
    let post = post(&[], names(&["127.0.0.1"]));
    for host in ["127.0.0.1", "2130706433", "0x7f.1", "017700000001", "127.1", "[::ffff:127.0.0.1]", "hooks.example"] {
        let refused = send(&post, &format!("http://{host}:{}/", stub.port)).await;
        assert!(matches!(refused, Err(WebhookSendError::Refused(_))), "{host}: {refused:?}");
    }
    assert_eq!(stub.requests().len(), 0, "nobody connected");
}

#[tokio::test]
async fn a_name_that_changes_its_address_is_judged_by_the_one_that_is_connected_to() {
    let open = Stub::answering("127.0.0.1", "200 OK").await;
    let asked = Arc::default();
    let post = post(&["127.0.0.1"], counted_names(&["127.0.0.1", "127.0.0.2"], &asked));
    let url = format!("http://rebinds.example:{}/", open.port);
    // On the same port of the address it changes to.
    let closed = tokio::net::TcpListener::bind(("127.0.0.2", open.port)).await.unwrap();
    for round in 0..3 {
        assert_eq!(send(&post, &url).await.unwrap().status, 200, "{round}");
        assert!(matches!(send(&post, &url).await, Err(WebhookSendError::Refused(_))), "{round}");
    }
    assert_eq!(asked.load(Ordering::Relaxed), 6, "the checked address is not looked up again");
    assert_eq!(open.requests().len(), 3);
    let connected = tokio::time::timeout(Duration::from_millis(50), closed.accept()).await;
    assert!(connected.is_err(), "nobody connected to the other address");
}

#[tokio::test]
async fn a_name_that_is_allowed_at_one_port_is_connected_to_at_no_other() {
    let [open, closed] = [Stub::answering("127.0.0.1", "200 OK").await, Stub::answering("127.0.0.1", "200 OK").await];
    let post = post(&[&format!("hooks.internal:{}", open.port)], names(&["127.0.0.1"]));
    assert_eq!(send(&post, &format!("http://hooks.internal:{}/", open.port)).await.unwrap().status, 200);
    let refused = send(&post, &format!("http://hooks.internal:{}/", closed.port)).await;
    assert!(matches!(refused, Err(WebhookSendError::Refused(_))), "{refused:?}");
    assert_eq!(closed.requests().len(), 0, "nobody connected");
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let inside = Stub::answering("127.0.0.2", "200 OK").await;
    let redirect = format!("307 Elsewhere\r\nlocation: http://127.0.0.2:{}/", inside.port);
    let stub = Stub::answering("127.0.0.1", &redirect).await;
    let answer = send(&post(&["127.0.0.0/8"], names(&[])), &format!("http://127.0.0.1:{}/", stub.port)).await;
    assert_eq!(answer.unwrap().status, 307);
    assert_eq!((stub.requests().len(), inside.requests().len()), (1, 0));
}

#[tokio::test]
async fn a_name_that_is_allowed_may_have_any_address() {
    let stub = Stub::answering("127.0.0.1", "204 No Content").await;
    let post = post(&["hooks.internal"], names(&["127.0.0.1"]));
    let answer = send(&post, &format!("http://hooks.internal:{}/", stub.port)).await;
    assert_eq!(answer.unwrap().status, 204);
}

#[tokio::test]
async fn a_name_that_is_not_found_is_not_refused_and_no_error_shows_the_url() {
    let post = post(&["127.0.0.1"], names(&[]));
    for url in ["http://hooks.example/hush?hush", "http://127.0.0.1:1/hush?hush"] {
        match send(&post, url).await {
            Err(WebhookSendError::Broken(why)) => assert!(!why.contains("hush"), "{why}"),
            other => panic!("{url}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn an_answer_counts_as_soon_as_its_head_is_there() {
    let stub = Stub::answering("127.0.0.1", "200 OK\r\nx: hangs\r\ncontent-length: 10").await;
    let began = Instant::now();
    let answer = send(&post(&["127.0.0.1"], names(&[])), &format!("http://127.0.0.1:{}/", stub.port)).await;
    assert_eq!(answer.unwrap().status, 200);
    assert!(began.elapsed() < WHOLE, "its body is not waited for");
}
