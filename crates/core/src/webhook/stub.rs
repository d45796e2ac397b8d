//! A receiver on this machine for tests: gives a fixed answer, and keeps what it was sent.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// See the module. Every connection is for one request.
#[derive(Clone)]
pub(super) struct Stub {
    pub(super) port: u16,
    asked: Arc<Mutex<Vec<StubRequest>>>,
}

/// One request.
#[derive(Clone, Debug, Default)]
pub(super) struct StubRequest {
    pub(super) head: String,
    pub(super) body: String,
}

impl Stub {
    /// Answers every request with `answer` (status line and headers), and nothing after it.
    pub(super) async fn answering(ip: &str, answer: &str) -> Self {
        let listener = TcpListener::bind((ip.parse::<IpAddr>().unwrap(), 0)).await.unwrap();
        let stub = Self { port: listener.local_addr().unwrap().port(), asked: Arc::default() };
        let (asked, answer) = (Arc::clone(&stub.asked), format!("HTTP/1.1 {answer}\r\nconnection: close\r\n\r\n"));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let place = {
                    let mut asked = asked.lock().unwrap();
                    asked.push(StubRequest::default());
                    asked.len() - 1
                };
                tokio::spawn(serve(stream, answer.clone(), Arc::clone(&asked), place));
            }
        });
        stub
    }

    /// Everything that connected, also if it sent nothing.
    pub(super) fn requests(&self) -> Vec<StubRequest> {
        self.asked.lock().unwrap().clone()
    }
}

impl StubRequest {
    /// A header's value.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.filter(|(each, _)| each.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }
}

async fn serve(mut stream: TcpStream, answer: String, asked: Arc<Mutex<Vec<StubRequest>>>, place: usize) {
    let (mut read, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        let length = stream.read(&mut chunk).await.unwrap_or(0);
        if length == 0 {
            return;
        }
        read.extend_from_slice(&chunk[..length]);
        let text = String::from_utf8(read.clone()).unwrap();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let one = StubRequest { head: head.to_owned(), body: body.to_owned() };
        let length: usize = one.header("content-length").unwrap().parse().unwrap();
        if body.len() < length {
            continue;
        }
        asked.lock().unwrap()[place] = one;
        let hangs = answer.contains("hangs");
        let _ = stream.write_all(answer.as_bytes()).await;
        if hangs {
            std::future::pending::<()>().await;
        }
        return;
    }
}
