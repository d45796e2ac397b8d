//! Connections to the admin port: one request each, limited in number and time, so that a client that keeps connections
//! open exhausts neither the process's file descriptors nor the port.

use std::{collections::VecDeque, time::Duration};

use axum::{Router, serve::Listener};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
    time::timeout,
};

/// The limits of connections.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectionLimits {
    most: usize,
    header: Duration,
    whole: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self { most: 64, header: Duration::from_secs(5), whole: Duration::from_secs(30) }
    }
}

/// Serves until dropped. At the limit the oldest connection is closed: normal requests take only a moment.
pub(super) async fn serve(mut listener: TcpListener, router: Router, limits: ConnectionLimits) {
    let mut tasks = JoinSet::new();
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let (stream, _) = Listener::accept(&mut listener).await;
        while tasks.try_join_next().is_some() {}
        open.retain(|task| !task.is_finished());
        // An aborted task still holds its descriptor until it is joined.
        while tasks.len() >= limits.most {
            open.pop_front().inspect(AbortHandle::abort);
            tasks.join_next().await;
        }
        open.push_back(tasks.spawn(answer(stream, router.clone(), limits)));
    }
}

async fn answer(stream: TcpStream, router: Router, limits: ConnectionLimits) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // Clients that disconnect or are too slow are not logged.
    let _ = timeout(limits.whole, connection).await;
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    async fn port(limits: ConnectionLimits) -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(async || "well")).route("/stuck", get(std::future::pending::<()>));
        tokio::spawn(serve(listener, router, limits));
        address
    }

    async fn sent(address: std::net::SocketAddr, text: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        stream
    }

    /// Everything until the other side closes; it may also reset.
    async fn rest(mut stream: TcpStream) -> String {
        let mut read = Vec::new();
        let _ = timeout(LONG, stream.read_to_end(&mut read)).await.expect("it is closed");
        String::from_utf8(read).unwrap()
    }

    #[tokio::test]
    async fn a_request_that_does_not_end_and_an_answer_that_does_not_come_are_dropped() {
        let short = Duration::from_millis(100);
        let address = port(ConnectionLimits { most: 64, header: short, whole: LONG }).await;
        assert_eq!(rest(sent(address, "GET / HTTP/1.1\r\nHost: ").await).await, "");
        let address = port(ConnectionLimits { most: 64, header: LONG, whole: short }).await;
        let stuck = sent(address, "GET /stuck HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert_eq!(rest(stuck).await, "");
    }

    #[tokio::test]
    async fn at_the_bound_the_oldest_connection_goes_and_requests_are_answered() {
        let address = port(ConnectionLimits { most: 3, header: LONG, whole: LONG }).await;
        let mut held = VecDeque::new();
        for _ in 0..10 {
            held.push_back(sent(address, "GET / HTTP/1.1\r\n").await);
        }
        let answer = rest(sent(address, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("well"), "{answer}");
        for gone in held.drain(..8) {
            assert_eq!(rest(gone).await, "");
        }
        let mut young = held.pop_back().unwrap();
        young.write_all(b"Host: localhost\r\n\r\n").await.unwrap();
        assert!(rest(young).await.ends_with("well"));
    }
}
