//! A transport for tests: answers out of a closure, under paused time.

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;

use super::{HttpRequest, HttpResponse, TransportError, TransportFailure};

/// The result of an exchange, and its duration.
pub(crate) struct ScriptedReply {
    pub after: Duration,
    pub result: Result<HttpResponse, TransportError>,
}

impl ScriptedReply {
    pub(crate) fn status(status: u16) -> Self {
        let received = HttpResponse { status, headers: HeaderMap::new(), body: "{}".into() };
        Self { after: Duration::from_millis(10), result: Ok(received) }
    }

    pub(crate) fn lost(failure: TransportFailure) -> Self {
        Self {
            after: Duration::from_millis(10),
            result: Err(TransportError { failure, message: "lost".to_owned(), cause: "lost".to_owned() }),
        }
    }

    pub(crate) fn token(name: &str) -> Self {
        Self::status(200).body(&format!(r#"{{"access_token":"{name}","expires_in":86400}}"#))
    }

    pub(crate) fn after(self, after: Duration) -> Self {
        Self { after, ..self }
    }

    pub(crate) fn body(mut self, body: &str) -> Self {
        if let Ok(received) = &mut self.result {
            received.body = body.to_owned().into();
        }
        self
    }

    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(received) = &mut self.result {
            received.headers.insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        self
    }
}

type Answers = dyn FnMut(&HttpRequest) -> ScriptedReply + Send;

/// Answers, and what was asked.
#[derive(Clone)]
pub(crate) struct ScriptedTransport {
    answers: Arc<Mutex<Answers>>,
    pub asked: Arc<Mutex<Vec<(Instant, HttpRequest)>>>,
}

impl ScriptedTransport {
    pub(crate) fn new(answers: impl FnMut(&HttpRequest) -> ScriptedReply + Send + 'static) -> Self {
        Self { answers: Arc::new(Mutex::new(answers)), asked: Arc::default() }
    }

    pub(crate) async fn exchange(&self, outgoing: HttpRequest) -> Result<HttpResponse, TransportError> {
        let reply = (self.answers.lock().unwrap())(&outgoing);
        self.asked.lock().unwrap().push((Instant::now(), outgoing));
        tokio::time::sleep(reply.after).await;
        reply.result
    }

    /// Lists the times of the requests to a path that ends in `path`.
    pub(crate) fn times(&self, path: &str) -> Vec<Instant> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|(_, asked)| asked.url.path().ends_with(path)).map(|(at, _)| *at).collect()
    }
}

impl fmt::Debug for ScriptedTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScriptedTransport")
    }
}
