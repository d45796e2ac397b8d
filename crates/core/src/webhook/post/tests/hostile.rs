//! Receivers that send without end. Each has a thread of its own, so that nothing but the client can slow it.

use std::{
    cell::Cell,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
};

use http_body_util::StreamBody;
use hyper::body::Frame;

use super::*;

const INTERIM: &str = "HTTP/1.1 103 E\r\nL: x\r\n\r\n";

/// A receiver of its own that does `with` with every connection.
pub(super) fn receiver(with: impl Fn(TcpStream) + Clone + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let with = with.clone();
            thread::spawn(move || with(stream));
        }
    });
    port
}

/// Takes a request, and sends `first` and then `again` for as long as somebody reads.
pub(super) fn flood(mut stream: impl Read + Write, first: &str, again: &str) {
    let many = again.repeat(64 * 1024 / again.len());
    let taken = stream.read(&mut [0; 4096]).and_then(|_| stream.write_all(first.as_bytes()));
    if taken.is_ok() {
        while stream.write_all(many.as_bytes()).is_ok() {}
    }
}

fn flooding(first: &'static str, again: &'static str) -> String {
    format!("http://127.0.0.1:{}/", receiver(move |stream| flood(stream, first, again)))
}

async fn broken(post: &WebhookClient, url: &str) -> String {
    match send(post, url).await {
        Err(WebhookSendError::Broken(why)) => why,
        other => panic!("{other:?}"),
    }
}

/// On one thread: while it is busy, nobody else is served.
#[tokio::test]
async fn interim_answers_without_end_break_the_delivery_and_hold_up_nobody() {
    let (url, stub) = (flooding("", INTERIM), Stub::answering("127.0.0.1", "200 OK").await);
    let post = post(&["127.0.0.1"], names(&[]));
    let ended = Cell::new(0);
    let flooded = async || loop {
        let why = broken(&post, &url).await;
        assert!(why.contains("256 KiB without a complete response"), "{why}");
        ended.set(ended.get() + 1);
    };
    let others = async {
        while ended.get() < 12 {
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert_eq!(send(&post, &format!("http://127.0.0.1:{}/", stub.port)).await.unwrap().status, 200);
        }
    };
    tokio::select! {
        never = async { tokio::join!(flooded(), flooded(), flooded(), flooded()) } => match never {},
        () = others => {}
        () = tokio::time::sleep(WHOLE) => panic!("the others do not get on"),
    }
}

#[tokio::test]
async fn a_head_without_end_breaks_the_delivery() {
    let post = post(&["127.0.0.1"], names(&[]));
    for (first, again) in [("HTTP/1.1 200 OK\r\nL: ", "x"), ("HTTP/1.1 200 OK\r\n", "L: x\r\n")] {
        let why = broken(&post, &flooding(first, again)).await;
        assert!(why.ends_with("message head is too large"), "{why}");
    }
}

#[tokio::test]
async fn an_answer_counts_whatever_comes_after_its_head() {
    let post = post(&["127.0.0.1"], names(&[]));
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    for (first, again) in [("HTTP/1.1 200 OK\r\n\r\n", "x"), (chunked, "1\r\nx\r\n"), (chunked, "1;e\r\n")] {
        assert_eq!(send(&post, &flooding(first, again)).await.unwrap().status, 200, "{first:?} {again:?}");
    }
}

#[tokio::test]
async fn a_body_without_end_is_not_read_on_however_large_its_pieces_are() {
    for (length, taken) in [(1, PIECES), (READ / 4, 5)] {
        let mut pieces = 0;
        read(StreamBody::new(futures_util::stream::repeat_with(|| {
            pieces += 1;
            Ok::<_, io::Error>(Frame::data(Bytes::from(vec![0; length])))
        })))
        .await;
        assert_eq!(pieces, taken, "of {length} bytes each");
    }
}

#[tokio::test]
async fn a_connection_that_is_used_again_may_bring_as_much_each_time() {
    let on_one = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&on_one);
    let listening = receiver(move |mut stream| {
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n{:60000}", "");
        let mut asked = 0;
        while stream.read(&mut [0; 4096]).is_ok_and(|length| length > 0) && stream.write_all(answer.as_bytes()).is_ok()
        {
            asked += 1;
            counted.fetch_max(asked, Ordering::Relaxed);
        }
    });
    let url = format!("http://127.0.0.1:{listening}/");
    let post = post(&["127.0.0.1"], names(&[]));
    for _ in 0..24 {
        assert_eq!(send(&post, &url).await.unwrap().status, 200);
    }
    assert!(on_one.load(Ordering::Relaxed) > 5, "more on one connection than it may bring for one answer");
}
