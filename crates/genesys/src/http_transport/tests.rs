//! Against a listener on this machine: the only tests of this module that need a socket.

use std::sync::Once;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use super::*;

/// The listener's reaction to each request.
#[derive(Clone)]
enum Does {
    Answers(String),
    HangsUp,
    Waits,
}

struct Stub {
    url: Url,
    asked: mpsc::UnboundedReceiver<String>,
}

async fn stub(does: Does) -> Stub {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("http://{}/api/v2/things", listener.local_addr().unwrap())).unwrap();
    let (tell, asked) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, does.clone(), tell.clone()));
        }
    });
    Stub { url, asked }
}

async fn serve(mut stream: TcpStream, does: Does, tell: mpsc::UnboundedSender<String>) {
    let (mut read, mut chunk) = (Vec::new(), [0; 4096]);
    while !read.windows(4).any(|four| four == b"\r\n\r\n") {
        let length = stream.read(&mut chunk).await.unwrap();
        read.extend_from_slice(&chunk[..length]);
    }
    let _ = tell.send(String::from_utf8(read).unwrap());
    match does {
        Does::Answers(answer) => drop(stream.write_all(answer.as_bytes()).await),
        Does::HangsUp => {}
        Does::Waits => std::future::pending().await,
    }
}

fn answer(head: &str, body: &str) -> Does {
    let length = body.len();
    Does::Answers(format!("HTTP/1.1 {head}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"))
}

fn transport() -> HttpTransport {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
    let time_outs = HttpTimeouts { connect: Duration::from_secs(5), whole: Duration::from_millis(400) };
    HttpTransport::over_network(None, time_outs, ProxyUse::FromEnvironment).unwrap()
}

fn outgoing(url: &Url) -> HttpRequest {
    HttpRequest { method: Method::POST, url: url.clone(), headers: HeaderMap::new(), body: None, basic: None }
}

#[tokio::test]
async fn an_answer_comes_back_whole_and_the_request_names_the_product() {
    let mut stub = stub(answer("202 Accepted\r\nx-one: two", "body")).await;
    let basic = Some(("id".to_owned().into(), "secret".to_owned().into()));
    let received = transport().exchange(HttpRequest { basic, ..outgoing(&stub.url) }).await.unwrap();
    assert_eq!((received.status, &received.body[..]), (202, &b"body"[..]));
    assert_eq!(received.headers["x-one"], "two");
    let asked = stub.asked.recv().await.unwrap();
    assert!(asked.contains(concat!("user-agent: genfleet/", env!("CARGO_PKG_VERSION"))), "{asked}");
    assert!(asked.contains("authorization: Basic aWQ6c2VjcmV0"), "{asked}");
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_not_followed() {
    let mut stub = stub(answer("302 Found\r\nlocation: /elsewhere", "")).await;
    assert_eq!(transport().exchange(outgoing(&stub.url)).await.unwrap().status, 302);
    stub.asked.recv().await.unwrap();
    assert!(stub.asked.try_recv().is_err());
}

#[tokio::test]
async fn a_port_where_nobody_listens_means_it_was_never_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    drop(listener);
    assert_eq!(transport().exchange(outgoing(&url)).await.unwrap_err().failure, TransportFailure::NeverSent);
}

#[tokio::test]
async fn a_connection_that_breaks_after_sending_may_have_arrived() {
    let stub = stub(Does::HangsUp).await;
    assert_eq!(transport().exchange(outgoing(&stub.url)).await.unwrap_err().failure, TransportFailure::Broken);
}

#[tokio::test]
async fn an_answer_that_breaks_off_in_its_body_is_none() {
    let stub = stub(Does::Answers("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf".to_owned())).await;
    assert_eq!(transport().exchange(outgoing(&stub.url)).await.unwrap_err().failure, TransportFailure::Broken);
}

#[tokio::test]
async fn an_api_that_never_answers_times_out() {
    let stub = stub(Does::Waits).await;
    assert_eq!(transport().exchange(outgoing(&stub.url)).await.unwrap_err().failure, TransportFailure::TimedOut);
}

#[tokio::test]
async fn a_body_over_four_mebibytes_is_not_read_to_its_end() {
    let longest = stub(answer("200 OK", &"x".repeat(LONGEST_BODY))).await;
    assert_eq!(transport().exchange(outgoing(&longest.url)).await.unwrap().body.len(), LONGEST_BODY);
    let longer = stub(answer("200 OK", &"x".repeat(LONGEST_BODY + 1))).await;
    assert_eq!(transport().exchange(outgoing(&longer.url)).await.unwrap_err().failure, TransportFailure::TooLong);
}

#[tokio::test]
async fn what_is_no_success_is_known_by_its_status_and_headers_however_its_body_ends() {
    let cut = "HTTP/1.1 429 Later\r\nretry-after: 7\r\ncontent-length: 100\r\n\r\nhalf".to_owned();
    let (cut, long) =
        (stub(Does::Answers(cut)).await, answer("429 Later\r\nretry-after: 7", &"x".repeat(LONGEST_BODY + 1)));
    let long = stub(long).await;
    for url in [cut.url, long.url] {
        let received = transport().exchange(outgoing(&url)).await.unwrap();
        assert_eq!((received.status, received.headers["retry-after"].as_bytes()), (429, &b"7"[..]));
        assert!(received.body.len() <= LONGEST_BODY);
    }
}

#[tokio::test]
async fn an_error_tells_no_address_with_its_query() {
    let stub = stub(Does::HangsUp).await;
    let mut url = stub.url.clone();
    url.set_query(Some("secret=1"));
    let error = transport().exchange(outgoing(&url)).await.unwrap_err();
    assert!(!error.message.contains("secret"), "{}", error.message);
}

#[tokio::test]
async fn what_no_answer_comes_down_to_is_a_few_words() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let gone = Url::parse(&format!("http://{gone}/")).unwrap();
    let cause = async |url: &Url| transport().exchange(outgoing(url)).await.unwrap_err().cause;
    assert!(cause(&gone).await.starts_with("Connection refused"), "{}", cause(&gone).await);
    assert_eq!(cause(&stub(Does::Waits).await.url).await, "no answer in time");
    assert_eq!(cause(&stub(Does::HangsUp).await.url).await, "connection closed before message completed");
}

#[test]
fn a_ca_file_that_is_none_says_so() {
    transport();
    let missing =
        HttpTransport::over_network(Some(Path::new("/no/such/file.pem")), HttpTimeouts::default(), ProxyUse::None);
    assert!(missing.unwrap_err().to_string().contains("GENESYS_CA_FILE names /no/such/file.pem"));
}
