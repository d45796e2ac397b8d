#![expect(clippy::unnecessary_wraps, reason = "what a script answers is written as it is answered")]

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use serde_json::json;
use tokio::time::Instant;

use super::*;
use crate::payload::Payload;

/// Answers in the order given, and fails after that; notes what was asked for.
struct Script {
    puts: Mutex<VecDeque<Put>>,
    gets: Mutex<VecDeque<Option<StoredDefinition>>>,
    failure: ApiError,
    asked: Mutex<Vec<String>>,
}

impl Script {
    fn note(&self, asked: String) {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(asked);
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl EventStreams for Script {
    async fn put(&self, _definition: &Definition, if_match: &str) -> Result<Put, ApiError> {
        self.note(format!("put {if_match}"));
        self.puts.lock().unwrap().pop_front().ok_or_else(|| self.failure.clone())
    }

    async fn get(&self, _id: &str) -> Result<Option<StoredDefinition>, ApiError> {
        self.note("get".to_owned());
        self.gets.lock().unwrap().pop_front().ok_or_else(|| self.failure.clone())
    }
}

fn done() -> Put {
    Put::Registered { status: 200, etag: Some("new".to_owned()) }
}

/// `requests` above one: the answer to an earlier one was lost.
fn conflict(requests: u32) -> Put {
    let error = ApiError::new(ErrorClass::Permanent, "conflict", "PUT: 412");
    Put::Conflict(ApiError { requests, status: Some(412), ..error })
}

fn failed(class: ErrorClass, requests: u32) -> ApiError {
    ApiError { requests, ..ApiError::new(class, "api_unavailable", "503") }
}

fn other(etag: &str) -> Option<StoredDefinition> {
    Some(StoredDefinition { status: 200, etag: Some(etag.to_owned()), body: json!({"id": "other"}) })
}

fn same() -> Option<StoredDefinition> {
    let body = definition().body.clone();
    Some(StoredDefinition { status: 200, etag: Some("same".to_owned()), body })
}

fn definition() -> Definition {
    Definition::of(&Payload { source_id: "orders".to_owned(), ..Payload::default() })
}

struct Run {
    etag: Option<&'static str>,
    on_conflict: OnConflict,
    may_have_been_sent: bool,
    stop: CancellationToken,
    failure: ApiError,
}

impl Run {
    fn new(etag: Option<&'static str>) -> Self {
        let on_conflict = OnConflict::Overwrite;
        let failure = failed(ErrorClass::Transient, 4);
        Self { etag, on_conflict, may_have_been_sent: false, stop: CancellationToken::new(), failure }
    }

    fn failing(etag: &'static str) -> Self {
        Self { on_conflict: OnConflict::Fail, ..Self::new(Some(etag)) }
    }

    async fn with(
        self,
        puts: impl IntoIterator<Item = Put>,
        gets: impl IntoIterator<Item = Option<StoredDefinition>>,
    ) -> (Result<Registered, JobError>, Vec<String>) {
        let script = Script {
            puts: Mutex::new(puts.into_iter().collect()),
            gets: Mutex::new(gets.into_iter().collect()),
            failure: self.failure,
            asked: Mutex::default(),
        };
        let order = Order {
            definition: &definition(),
            etag: self.etag,
            on_conflict: self.on_conflict,
            may_have_been_sent: self.may_have_been_sent,
            stop: &self.stop,
        };
        let result = register(&script, order).await;
        (result, script.asked())
    }
}

fn registered(etag: &str, unchanged: bool, conflicts_resolved: u32) -> Registered {
    Registered { status: 200, etag: Some(etag.to_owned()), unchanged, conflicts_resolved }
}

#[tokio::test]
async fn without_an_etag_any_version_is_replaced() {
    let (result, asked) = Run::new(None).with([done()], []).await;
    assert_eq!((result.unwrap(), asked), (registered("new", false, 0), vec!["put *".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn each_round_sends_it_again_for_the_version_that_is_there() {
    let puts = [conflict(1), conflict(1), conflict(1), done()];
    let (result, asked) = Run::new(Some("\"1\"")).with(puts, [other("\"2\""), None, other("W/\"4\"")]).await;
    assert_eq!(result.unwrap(), registered("new", false, 3));
    assert_eq!(asked, ["put \"1\"", "get", "put \"2\"", "get", "put *", "get", "put \"4\""]);
}

#[tokio::test(start_paused = true)]
async fn after_five_rounds_it_is_a_conflict_and_the_rounds_did_not_take_long() {
    let begun = Instant::now();
    let (result, asked) =
        Run::new(Some("1")).with((0..6).map(|_| conflict(1)), ["2", "3", "4", "5", "6"].map(other)).await;
    let error = result.unwrap_err();
    assert_eq!((error.class, error.code, error.status), (ErrorClass::Permanent, "conflict", Some(412)));
    assert_eq!((&error.details["conflicts"], &error.state), (&json!(6), &None));
    assert_eq!(asked.len(), 11);
    assert!(error.message.contains("somebody else was first 6 times"), "{}", error.message);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_fifth_round_still_counts() {
    let puts = (0..5).map(|_| conflict(1)).chain([done()]);
    let (result, _) = Run::new(Some("1")).with(puts, (0..5).map(|_| other("2"))).await;
    assert_eq!(result.unwrap(), registered("new", false, 5));
}

#[tokio::test(start_paused = true)]
async fn a_version_that_a_gateway_rewrote_is_named_as_it_was_and_then_as_it_was_told() {
    for summary in ["W/\"7\"", "\"7-gzip\"", "W/\"7-gzip\""] {
        let (result, asked) = Run::new(Some("\"6\"")).with([conflict(1), done()], [other(summary)]).await;
        assert_eq!((result.unwrap(), asked[2].as_str()), (registered("new", false, 1), "put \"7\""), "{summary}");
        let (_, asked) =
            Run::new(Some("\"6\"")).with([conflict(1), conflict(1), done()], [other(summary), other(summary)]).await;
        assert_eq!(asked[4], format!("put {summary}"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_version_that_is_refused_though_nobody_changed_it_is_told_so() {
    let summary = || other("W/\"7\"");
    let (result, _) = Run::new(None).with((0..6).map(|_| conflict(1)), (0..5).map(|_| summary())).await;
    let message = result.unwrap_err().message;
    assert!(message.contains("nobody changed it") && message.contains("rewrites ETag"), "{message}");
    assert!(!message.contains("somebody else"), "{message}");
}

#[tokio::test]
async fn with_fail_a_rewritten_version_of_the_jobs_is_named_as_it_was_before_it_is_a_conflict() {
    let (result, asked) = Run::failing("W/\"7-gzip\"").with([conflict(1), done()], []).await;
    assert_eq!((result.unwrap(), asked[1].as_str()), (registered("new", false, 0), "put \"7\""));
    let (result, asked) = Run::failing("W/\"7-gzip\"").with([conflict(1), conflict(1)], []).await;
    assert_eq!((result.unwrap_err().code, asked.len()), ("conflict", 2));
}

#[tokio::test]
async fn what_is_there_already_is_left_as_it_is() {
    let (result, asked) = Run::new(Some("1")).with([conflict(1)], [same()]).await;
    assert_eq!((result.unwrap(), asked.len()), (registered("same", true, 1), 2));
}

#[tokio::test]
async fn with_fail_a_conflict_is_told_at_once() {
    let (result, asked) = Run::failing("1").with([conflict(1)], []).await;
    let error = result.unwrap_err();
    assert_eq!((error.code, error.class, asked.len()), ("conflict", ErrorClass::Permanent, 1));
}

#[tokio::test]
async fn with_fail_a_conflict_with_what_this_job_sent_itself_is_none() {
    let (result, _) = Run::failing("1").with([conflict(2)], [same()]).await;
    assert_eq!(result.unwrap(), registered("same", true, 1));
    let resumed = Run { may_have_been_sent: true, ..Run::failing("1") };
    assert_eq!(resumed.with([conflict(1)], [same()]).await.0.unwrap(), registered("same", true, 1));
    let resumed = Run { may_have_been_sent: true, ..Run::failing("1") };
    assert_eq!(resumed.with([conflict(1)], [other("2")]).await.0.unwrap_err().code, "conflict");
}

#[tokio::test(start_paused = true)]
async fn the_last_rounds_conflict_with_itself_is_none_either() {
    let puts = (0..5).map(|_| conflict(1)).chain([conflict(2)]);
    let gets = (0..5).map(|_| other("2")).chain([same()]);
    assert_eq!(Run::new(Some("1")).with(puts, gets).await.0.unwrap(), registered("same", true, 6));
}

#[tokio::test]
async fn an_error_remembers_that_the_definition_may_have_been_sent() {
    let state = |error: JobError| error.state.map(|state| serde_json::from_value::<StreamState>(state).unwrap());
    let sent = Some(StreamState { unanswered: true });
    let (lost, _) = Run::failing("1").with([], []).await;
    assert_eq!(state(lost.unwrap_err()), sent);
    let unsent = Run { failure: failed(ErrorClass::Transient, 0), ..Run::failing("1") };
    assert_eq!(state(unsent.with([], []).await.0.unwrap_err()), None);
    let (later, _) = Run::failing("1").with([conflict(2)], []).await;
    assert_eq!(state(later.unwrap_err()), sent);
    let refused = Run { failure: failed(ErrorClass::Permanent, 1), ..Run::new(None) };
    assert_eq!(state(refused.with([], []).await.0.unwrap_err()), None);
}

#[tokio::test]
async fn a_definition_without_a_version_cannot_be_replaced() {
    let found = StoredDefinition { status: 200, etag: None, body: json!({}) };
    let (result, _) = Run::new(Some("1")).with([conflict(1)], [Some(found)]).await;
    assert_eq!(result.unwrap_err().code, "unexpected_response");
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_though_nothing_is_there_is_told_so() {
    let (result, asked) = Run::new(None).with((0..6).map(|_| conflict(1)), (0..5).map(|_| None)).await;
    let error = result.unwrap_err();
    assert_eq!((error.code, asked.len()), ("conflict", 11));
    assert!(error.message.contains("nothing was there the last 5 times"), "{}", error.message);
    assert!(!error.message.contains("somebody else was first"), "{}", error.message);
    let gets = [other("2"), None, None, None, other("3")];
    let (result, _) = Run::new(None).with((0..6).map(|_| conflict(1)), gets).await;
    assert!(result.unwrap_err().message.contains("somebody else was first"), "it came back as another version");
}

#[tokio::test]
async fn once_asked_to_stop_no_round_is_waited_for() {
    let run = Run::new(Some("1"));
    run.stop.cancel();
    let (result, asked) = run.with([conflict(1), conflict(1)], [other("2")]).await;
    assert_eq!((result.unwrap_err().class, asked.len()), (ErrorClass::Interrupted, 3));
}
