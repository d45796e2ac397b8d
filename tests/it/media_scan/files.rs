//! A host that offers files, and does to those who fetch them what hosts do.

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
};

/// The host. Every connection is for one request.
pub(crate) struct Files {
    pub(crate) port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    answers: Mutex<Vec<(String, Vec<u8>)>>,
    heads: Mutex<Vec<String>>,
    /// The second half of a body whose path says so comes when this is told.
    goes_on: Notify,
}

impl Files {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared::default());
        let serving = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&serving)));
            }
        });
        Self { port, shared }
    }

    /// Offers a file with its length; returns its link.
    pub(crate) fn offer(&self, path: &str, body: &[u8]) -> String {
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/x-test\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        self.answer(path, [head.as_bytes(), body].concat())
    }

    /// Offers a file without saying how long it is; returns its link.
    pub(crate) fn offer_unmeasured(&self, path: &str, body: &[u8]) -> String {
        self.answer(path, [b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".as_slice(), body].concat())
    }

    /// Answers with a redirect; returns the link.
    pub(crate) fn redirect(&self, path: &str, target: &str) -> String {
        self.answer(
            path,
            format!("HTTP/1.1 302 Found\r\nconnection: close\r\nlocation: {target}\r\ncontent-length: 0\r\n\r\n")
                .into_bytes(),
        )
    }

    /// Answers with these bytes; returns the link.
    pub(crate) fn answer(&self, path: &str, answer: Vec<u8>) -> String {
        let mut answers = self.shared.answers.lock().unwrap();
        answers.retain(|(known, _)| known != path);
        answers.push((path.to_owned(), answer));
        format!("http://127.0.0.1:{}{path}?key=hush", self.port)
    }

    /// The heads of all requests for `path`.
    pub(crate) fn requests(&self, path: &str) -> Vec<String> {
        let begin = format!("GET {path}?");
        self.shared.heads.lock().unwrap().iter().filter(|head| head.starts_with(&begin)).cloned().collect()
    }

    /// The heads of all requests.
    pub(crate) fn all_requests(&self) -> Vec<String> {
        self.shared.heads.lock().unwrap().clone()
    }

    /// Lets the second half of `/halved` come.
    pub(crate) fn go_on(&self) {
        self.shared.goes_on.notify_one();
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    let (mut head, mut piece) = (Vec::new(), [0; 4096]);
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        match stream.read(&mut piece).await {
            Ok(length) if length > 0 => head.extend_from_slice(&piece[..length]),
            _ => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split([' ', '?']).nth(1).unwrap_or_default().to_owned();
    shared.heads.lock().unwrap().push(head);
    let found = shared.answers.lock().unwrap().iter().find(|(known, _)| *known == path).cloned();
    let (_, answer) = found.unwrap_or((
        path.clone(),
        b"HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_vec(),
    ));
    let half = if path == "/halved" { answer.len() / 2 } else { answer.len() };
    let _ = stream.write_all(&answer[..half]).await;
    if half < answer.len() {
        shared.goes_on.notified().await;
        let _ = stream.write_all(&answer[half..]).await;
    }
    let _ = stream.shutdown().await;
}
