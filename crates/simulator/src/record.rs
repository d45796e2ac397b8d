//! The record of all requests except those to the control routes, with their answers.
//!
//! A request is recorded when it arrives and completed when it is answered, so that requests whose clients timed out
//! are recorded, too. Secrets are not recorded: only the scheme of an authorization, and forms without the
//! `client_secret`.

use std::collections::{BTreeMap, VecDeque};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use serde::Serialize;
use serde_json::Value;
use url::form_urlencoded;

const MOST_RECORDS: usize = 200_000;
/// Maximum length of all bodies together, in bytes. The oldest records are removed first.
const MOST_BODY_BYTES: usize = 128 * 1024 * 1024;
const MOST_BYTES_OF_A_BODY: usize = 64 * 1024;
const HEADERS_OF_INTEREST: [&str; 6] =
    ["content-type", "if-match", "if-none-match", "traceparent", "tracestate", "user-agent"];

/// A received request and its answer.
#[derive(Clone, Debug, Serialize)]
pub struct RecordedRequest {
    /// The request's number, counted from 1 in the order of arrival.
    pub number: u64,
    /// Time of arrival, in microseconds since 1970.
    pub at_us: u64,
    /// The client, from the token or the credentials.
    pub client_id: Option<String>,
    /// The first characters of the token.
    pub token: Option<String>,
    /// The HTTP method.
    pub method: String,
    /// The path without the query.
    pub path: String,
    /// The query, without its `?`.
    pub query: Option<String>,
    /// The status of the answer; `None` before the answer, or if it was dropped.
    pub status: Option<u16>,
    /// True if the request had its effect.
    pub effect: bool,
    /// The fault that was applied: the rule's name, or `#` and its index.
    pub fault: Option<String>,
    /// The headers that tests need; of `authorization` only the scheme.
    pub headers: BTreeMap<String, String>,
    /// The body as JSON or text, cut at 64 KiB.
    pub body: Value,
}

/// Number of requests to a method and path, and of their statuses.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Tally {
    pub(crate) received: u64,
    pub(crate) answered: BTreeMap<u16, u64>,
}

/// A record with the body as bytes. It is parsed only when the record is read.
#[derive(Debug)]
struct Entry {
    request: RecordedRequest,
    body: Box<[u8]>,
}

/// The latest records, and counts of all requests.
#[derive(Debug, Default)]
pub(crate) struct Record {
    entries: VecDeque<Entry>,
    body_bytes: usize,
    last_number: u64,
    tallies: BTreeMap<(String, String), Tally>,
}

impl Record {
    /// Records a request and returns its number.
    pub(crate) fn record_request(&mut self, mut request: RecordedRequest, body: &[u8]) -> u64 {
        self.last_number += 1;
        request.number = self.last_number;
        self.tallies.entry((request.method.clone(), request.path.clone())).or_default().received += 1;
        let body: Box<[u8]> = body[..body.len().min(MOST_BYTES_OF_A_BODY)].into();
        self.body_bytes += body.len();
        self.entries.push_back(Entry { request, body });
        self.drop_the_oldest();
        self.last_number
    }

    fn drop_the_oldest(&mut self) {
        while self.entries.len() > MOST_RECORDS || self.body_bytes > MOST_BODY_BYTES {
            let Some(oldest) = self.entries.pop_front() else {
                return;
            };
            self.body_bytes -= oldest.body.len();
        }
    }

    /// Records the fault of a request.
    pub(crate) fn record_fault(&mut self, number: u64, fault: String) {
        if let Some(request) = self.find(number) {
            request.fault = Some(fault);
        }
    }

    /// Records that a request had its effect.
    pub(crate) fn record_effect(&mut self, number: u64) {
        if let Some(request) = self.find(number) {
            request.effect = true;
        }
    }

    /// Records the answer to a request.
    pub(crate) fn record_answer(&mut self, number: u64, status: u16) {
        let Some(request) = self.find(number) else {
            return;
        };
        request.status = Some(status);
        let key = (request.method.clone(), request.path.clone());
        *self.tallies.entry(key).or_default().answered.entry(status).or_default() += 1;
    }

    fn find(&mut self, number: u64) -> Option<&mut RecordedRequest> {
        let first = self.entries.front()?.request.number;
        let index = usize::try_from(number.checked_sub(first)?).ok()?;
        self.entries.get_mut(index).map(|entry| &mut entry.request)
    }

    /// Returns the records after a number whose path has a prefix.
    pub(crate) fn after(&self, number: u64, prefix: &str) -> Vec<RecordedRequest> {
        let wanted = |entry: &&Entry| entry.request.number > number && entry.request.path.starts_with(prefix);
        self.entries.iter().filter(wanted).map(Entry::read).collect()
    }

    /// Returns counts of requests and answers by method and path.
    pub(crate) fn tallies(&self) -> &BTreeMap<(String, String), Tally> {
        &self.tallies
    }

    /// Removes all records. Numbers are not reused, because a request may still be in progress.
    pub(crate) fn clear(&mut self) {
        *self = Self { last_number: self.last_number, ..Self::default() };
    }
}

impl Entry {
    fn read(&self) -> RecordedRequest {
        RecordedRequest { body: readable(&self.body), ..self.request.clone() }
    }
}

fn readable(body: &[u8]) -> Value {
    if body.is_empty() {
        return Value::Null;
    }
    serde_json::from_slice(body).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(body).into_owned()))
}

/// Returns the headers that are recorded.
pub(crate) fn headers_of_interest(headers: &HeaderMap) -> BTreeMap<String, String> {
    let text = |name: &str| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let mut kept: BTreeMap<String, String> =
        HEADERS_OF_INTEREST.iter().filter_map(|name| Some(((*name).to_owned(), text(name)?))).collect();
    if let Some(authorization) = text(AUTHORIZATION.as_str()) {
        let scheme = authorization.split_once(' ').map_or("(no scheme)", |(scheme, _)| scheme);
        kept.insert(AUTHORIZATION.to_string(), scheme.to_owned());
    }
    kept
}

/// Removes the secret from a form.
pub(crate) fn without_secret(form: &[u8]) -> Vec<u8> {
    let hidden = form_urlencoded::parse(form).map(|(name, value)| match name.as_ref() {
        "client_secret" => (name, "hidden".into()),
        _ => (name, value),
    });
    form_urlencoded::Serializer::new(String::new()).extend_pairs(hidden).finish().into_bytes()
}

/// The time of the machine, in microseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "the one place where the simulator asks for the time of day")]
pub(crate) fn now_micros() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_micros()).unwrap_or(u64::MAX)
}
