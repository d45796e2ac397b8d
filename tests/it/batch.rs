//! `genfleet run`: the README's first command.

use std::{collections::BTreeSet, path::PathBuf};

use genfleet_core::queue::sqlite::{Role, SqliteQueue};
use harness::{Process, assert_keeps_contract, eventually, seconds};
use serde_json::{Value, json};

fn example(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples").join(name);
    std::fs::read_to_string(path).unwrap()
}

/// A folder that exists as long as a test, for several processes one after the other.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("genfleet-batch-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, content: &str) -> String {
        std::fs::write(self.0.join(name), content).unwrap();
        name.to_owned()
    }

    fn files(&self) -> BTreeSet<String> {
        std::fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Returns true if the batch is in the store. The job is running, so its row exists.
fn loaded(folder: &Folder) -> bool {
    let store = folder.0.join("jobs.jsonl.genfleet");
    let clock = std::sync::Arc::new(genfleet_core::clock::SystemClock);
    let Ok(store) = SqliteQueue::open(&store, Role::Tool, clock) else { return false };
    let batch = futures_util::future::FutureExt::now_or_never(store.batch());
    matches!(batch, Some(Ok(Some(_))))
}

fn run(folder: &Folder, arguments: &[&str]) -> Process {
    let arguments =
        [&["run", "--simulate", "--sim-requests-per-minute", "60000", "--requests-per-minute", "60000"], arguments]
            .concat();
    Process::binary("genfleet").args(arguments).directory(&folder.0).start()
}

fn events(process: &Process) -> Vec<Value> {
    let lines = process.stdout_lines();
    let events: Vec<Value> =
        lines.iter().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect();
    events.iter().for_each(assert_keeps_contract);
    events
}

fn ids(events: &[Value]) -> BTreeSet<String> {
    events.iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_succeeds_with_an_event_a_line_and_leaves_nothing_behind() {
    let (folder, jobs) = (Folder::new(), example("jobs.jsonl"));
    let file = folder.write("jobs.jsonl", &jobs);
    let process = run(&folder, &[&file]);
    assert_eq!(process.wait(seconds(60)).await, 0, "{}", process.stderr());
    let events = events(&process);
    assert_eq!(events.len(), jobs.lines().count());
    assert_eq!(ids(&events).len(), events.len());
    assert!(events.iter().all(|event| event["data"]["outcome"] == "succeeded"));
    assert_eq!(of(&events, "branding-logo")["type"], "genfleet.cdn.purge.succeeded");
    assert_eq!(of(&events, "branding-logo")["data"]["action"], "cache_invalidated");
    assert_eq!(of(&events, "catalogue-250")["data"]["report"]["pathsCount"], 250);
    let threat = &of(&events, "media-threat")["data"]["report"];
    assert_eq!((&threat["result"], &threat["action"]), (&json!("malware"), &json!("flag")));
    assert_eq!((&threat["engine"]["name"], &threat["engine"]["limitsTold"]), (&json!("stand-in"), &json!(false)));
    assert_eq!(of(&events, "media-message")["data"]["report"]["items"].as_array().unwrap().len(), 2);
    assert_eq!(of(&events, "media-document")["data"]["report"]["threatDetected"], false);
    assert!(process.stderr().contains("a stand-in takes the place of the engine"), "{}", process.stderr());
    assert!(process.stderr().contains("jobs ended"), "{}", process.stderr());
    assert_eq!(folder.files(), BTreeSet::from([file, "jobs.jsonl.genfleet-audit.jsonl".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mistakes_of_the_other_example_are_each_reported_and_what_is_right_succeeds() {
    let (folder, jobs) = (Folder::new(), example("jobs-with-mistakes.jsonl"));
    let file = folder.write("jobs.jsonl", &jobs);
    let process = run(&folder, &[&file]);
    assert_eq!(process.wait(seconds(60)).await, 2, "{}", process.stderr());
    let events = events(&process);
    assert_eq!(events.len(), jobs.lines().filter(|line| !line.trim().is_empty()).count());
    let well = |event: &&Value| event["data"]["outcome"] == "succeeded";
    let well: Vec<_> = events.iter().filter(well).map(|event| &event["subject"]).collect();
    assert_eq!(well, ["good-among-mistakes"]);
    for (job, code) in [
        ("scan-failed", "scan_failed"),
        ("invalid-wildcard", "invalid_job"),
        ("deployment-mistakes", "invalid_job"),
        ("eventbridge-mistakes", "invalid_job"),
        ("media-mistakes", "invalid_job"),
        ("vni-gateway-refused", "gateway_refused"),
        ("expired", "deadline_passed"),
        ("invalid-json", "undecodable"),
    ] {
        assert_eq!(of(&events, job)["data"]["error"]["code"], code, "{job}");
    }
    assert_eq!(of(&events, "invalid-wildcard")["data"]["error"]["violations"].as_array().unwrap().len(), 2);
    let unknown = of(&events, "invalid-kind");
    assert_eq!(unknown["type"], "genfleet.unknown.failed");
    let printed = unknown["data"]["error"]["violations"][0]["message"].as_str().unwrap();
    assert!(printed.contains("did you mean cdn.purge?"), "{printed}");
}

/// Runs on a terminal, with the program `script`.
#[tokio::test(flavor = "multi_thread")]
async fn on_a_terminal_a_job_is_a_line_and_the_end_says_what_failed_and_what_to_do() {
    let folder = Folder::new();
    let file = folder.write("jobs.jsonl", &example("jobs-with-mistakes.jsonl"));
    let Some(process) = Process::on_a_terminal("genfleet", &["run", "--simulate", &file]) else { return };
    let process = process.env("NO_COLOR", "1").directory(&folder.0).start();
    assert_eq!(process.wait(seconds(60)).await, 2, "{:?}", process.stdout_lines());
    let printed = process.stdout_lines().join("\n");
    for line in [
        "succeeded  cdn.purge                good-among-mistakes  cache_invalidated",
        "failed     file.scan                scan-failed  scan_failed",
        "expired    cdn.purge                expired  deadline_passed",
        "kind                     succeeded  failed  expired  requests",
        "  vni-gateway-refused  gateway_refused  the gateway 127.0.0.1 is",
        "  genfleet validate jobs.jsonl",
    ] {
        assert!(printed.contains(line), "{line} is not in:\n{printed}");
    }
    assert!(!printed.contains("{\"") && !printed.contains(" left"), "{printed}");
}

fn of<'a>(events: &'a [Value], job: &str) -> &'a Value {
    events.iter().find(|event| event["subject"] == job).unwrap_or_else(|| panic!("no event of {job}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_half_way_and_started_again_each_job_ends_in_one_event_id() {
    let folder = Folder::new();
    let lines: Vec<String> =
        (0..2_000).map(|n| json!({"kind": "cdn.purge", "payload": {"paths": [format!("/{n}")]}}).to_string()).collect();
    let file = folder.write("many.jsonl", &lines.join("\n"));
    let slow = ["--sim-latency", "50ms", "--batch-linger", "0ms", "--concurrency", "16", file.as_str()];
    let first = run(&folder, &slow);
    eventually(seconds(60), "a part of it is done", async || first.stdout_lines().len() > 200).await;
    first.kill9();
    let before = first.stdout_lines();
    assert!(before.len() < 2_000, "it was killed half-way");

    let second = run(&folder, &slow);
    assert_eq!(second.wait(seconds(120)).await, 0, "{}", second.stderr());
    let before: Vec<Value> = before.iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let all: Vec<Value> = [before, events(&second)].concat();
    assert_eq!(ids(&all).len(), 2_000);
    let jobs: BTreeSet<&str> = all.iter().map(|event| event["subject"].as_str().unwrap()).collect();
    assert_eq!(jobs.len(), 2_000);
    assert!(second.stderr().contains("2000 of 2000 jobs ended"), "{}", second.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_is_refused_and_the_store_is_kept() {
    let folder = Folder::new();
    let line = r#"{"kind":"cdn.purge","payload":{"paths":["/a"]}}"#;
    let file = folder.write("jobs.jsonl", line);
    // The batch never ends, because the API does not answer.
    let first = run(&folder, &["--sim-fault", "hang", &file]);
    eventually(seconds(20), "the store is there", async || folder.files().contains("jobs.jsonl.genfleet")).await;
    let other = run(&folder, &[&file]);
    assert_eq!(other.wait(seconds(20)).await, 64, "a second process on one store: {}", other.stderr());
    eventually(seconds(20), "the batch is in", async || loaded(&folder)).await;
    first.terminate();
    assert_eq!(first.wait(seconds(60)).await, 1, "{}", first.stderr());
    folder.write("jobs.jsonl", &format!("{line}\n{line}"));
    let second = run(&folder, &[&file]);
    assert_eq!(second.wait(seconds(20)).await, 64, "{}", second.stderr());
    assert!(second.stderr().contains("another batch"), "{}", second.stderr());
    folder.write("jobs.jsonl", line);
    let third = run(&folder, &[&file]);
    assert_eq!(third.wait(seconds(60)).await, 0, "{}", third.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_come_from_stdin_and_events_go_to_a_file() {
    let folder = Folder::new();
    let process = Process::binary("genfleet")
        .args(["run", "--simulate", "--events", "out.jsonl", "-"])
        .stdin(r#"{"id":"piped","kind":"cdn.purge","payload":{"paths":["/a"]}}"#)
        .directory(&folder.0)
        .start();
    assert_eq!(process.wait(seconds(30)).await, 0, "{}", process.stderr());
    assert!(process.stdout_lines().is_empty());
    let written = std::fs::read_to_string(folder.0.join("out.jsonl")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(written.trim()).unwrap()["subject"], "piped");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_proxy_gets_between_a_batch_and_its_own_simulator() {
    let folder = Folder::new();
    let file = folder.write("jobs.jsonl", r#"{"id":"a","kind":"cdn.purge","payload":{"paths":["/a"]}}"#);
    let mut launch = Process::binary("genfleet").args(["run", "--simulate", &file]).directory(&folder.0);
    for variable in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"] {
        launch = launch.env(variable, "http://127.0.0.1:1");
    }
    let process = launch.start();
    assert_eq!(process.wait(seconds(30)).await, 0, "{}", process.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_was_torn_costs_no_event() {
    let folder = Folder::new();
    let jobs = r#"{"id":"a","kind":"cdn.purge","payload":{"paths":["/a"]}}"#;
    let file = folder.write("jobs.jsonl", jobs);
    folder.write("out.jsonl", "{\"whole\":1}\n{\"torn");
    let process = run(&folder, &["--events", "out.jsonl", &file]);
    assert_eq!(process.wait(seconds(30)).await, 0, "{}", process.stderr());
    let written = std::fs::read_to_string(folder.0.join("out.jsonl")).unwrap();
    let lines: Vec<&str> = written.lines().collect();
    assert_eq!((lines.len(), lines[1]), (3, "{\"torn"), "{written}");
    assert_eq!(serde_json::from_str::<Value>(lines[2]).unwrap()["subject"], "a");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_jobs_are_never_written_over() {
    let folder = Folder::new();
    let jobs = r#"{"id":"a","kind":"cdn.purge","payload":{"paths":["/a"]}}"#;
    let (file, empty) = (folder.write("jobs.jsonl", jobs), folder.write("empty.jsonl", ""));
    std::os::unix::fs::symlink(&file, folder.0.join("link.jsonl")).unwrap();
    for (setting, output, input) in
        [("--events", "jobs.jsonl", &file), ("--events", "link.jsonl", &file), ("--store", "empty.jsonl", &empty)]
    {
        let process = run(&folder, &[setting, output, input]);
        assert_eq!(process.wait(seconds(30)).await, 64, "{}", process.stderr());
        assert!(process.stderr().contains("holds the jobs"), "{}", process.stderr());
    }
    assert_eq!(std::fs::read_to_string(folder.0.join(&file)).unwrap(), jobs);
    assert!(folder.0.join("empty.jsonl").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_credentials_it_refuses_and_says_how() {
    let folder = Folder::new();
    let file = folder.write("jobs.jsonl", "{}");
    for command in ["run", "up"] {
        let arguments = if command == "run" { vec![command, &file] } else { vec![command] };
        let process = Process::binary("genfleet").args(arguments).directory(&folder.0).start();
        assert_eq!(process.wait(seconds(20)).await, 64, "{}", process.stderr());
        assert!(
            process.stderr().contains("GENESYS_CLIENT_ID") && process.stderr().contains("--simulate"),
            "{}",
            process.stderr()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_not_there_leaves_nothing_behind() {
    let folder = Folder::new();
    let file = folder.write("jobs.jsonl", r#"{"kind":"cdn.purge","payload":{"paths":["/a"]}}"#);
    for arguments in [vec!["typo.jsonl"], vec!["--events", "no/folder.jsonl", &file]] {
        let process = run(&folder, &arguments);
        assert_eq!(process.wait(seconds(20)).await, 1, "{}", process.stderr());
        assert!(process.stderr().contains(arguments[arguments.len() / 2]), "{}", process.stderr());
        assert_eq!(folder.files(), BTreeSet::from([file.clone()]), "{arguments:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_of_others_is_refused_as_a_store_and_left_as_it_is() {
    let folder = Folder::new();
    let file = folder.write("jobs.jsonl", r#"{"kind":"cdn.purge","payload":{"paths":["/a"]}}"#);
    let enqueue = ["enqueue", "cdn.purge", "--queue-url", "sqlite:theirs.db", "--payload", r#"{"paths":["/b"]}"#];
    let enqueued = Process::binary("genfleet").args(enqueue).directory(&folder.0).start();
    assert_eq!(enqueued.wait(seconds(20)).await, 0, "{}", enqueued.stderr());
    let before = std::fs::read(folder.0.join("theirs.db")).unwrap();
    let process = run(&folder, &["--store", "theirs.db", &file]);
    assert_eq!(process.wait(seconds(20)).await, 64, "{}", process.stderr());
    assert!(process.stderr().contains("--store"), "{}", process.stderr());
    assert_eq!(process.stdout_lines(), [] as [String; 0]);
    assert_eq!(std::fs::read(folder.0.join("theirs.db")).unwrap(), before);
    assert_eq!(folder.files(), BTreeSet::from([file, "theirs.db".to_owned()]));
}

/// Answers every request with `status` and `body`.
async fn answering(status: &'static str, body: &'static str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 8192];
                let _ = connection.read(&mut request).await;
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
                );
                let _ = connection.write_all(answer.as_bytes()).await;
            });
        }
    });
    format!("http://{address}")
}

fn against(url: &str, folder: &Folder, arguments: &[&str]) -> Process {
    let arguments = [&["run", "jobs.jsonl", "--drain-timeout", "2s"], arguments].concat();
    let process = Process::binary("genfleet").args(arguments).directory(&folder.0).env("GENESYS_BASE_URL", url);
    process.env("GENESYS_CLIENT_ID", "client").env("GENESYS_CLIENT_SECRET", "a-secret-of-ours").start()
}

const PURGE: &str = r#"{"id": "one", "kind": "cdn.purge", "payload": {"paths": ["/a"]}}"#;

#[tokio::test(flavor = "multi_thread")]
async fn refused_credentials_are_reported_as_they_are_refused_and_in_the_summary() {
    let folder = Folder::new();
    folder.write("jobs.jsonl", PURGE);
    let body = r#"{"error": "invalid_client", "error_description": "no such \u202e client \u001b[2J\u009b"}"#;
    let url = answering("401 Unauthorized", body).await;
    let process = against(&url, &folder, &[]);
    eventually(seconds(30), "it says what holds it", async || process.stderr().contains("held: ")).await;
    process.terminate();
    assert_eq!(process.wait(seconds(30)).await, 1, "{}", process.stderr());
    let printed = process.stderr();
    assert!(printed.contains(r"held: our credentials are refused: 401 invalid_client: no such \u202e client \u{1b}[2J\u009b (tried again in"), "{printed}");
    assert!(printed.contains("  held for "), "{printed}");
    assert!(!printed.contains("is closed"), "stopping holds nothing up: {printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_job_that_is_tried_again_and_again_says_why() {
    let folder = Folder::new();
    folder.write("jobs.jsonl", PURGE);
    let url = answering("503 Service Unavailable", r#"{"message": "down", "code": "service.unavailable"}"#).await;
    let process = against(&url, &folder, &["--json", "--retry-initial", "40s"]);
    eventually(seconds(40), "it says what holds it", async || process.stderr().contains("held: jobs are tried again"))
        .await;
    process.terminate();
    assert_eq!(process.wait(seconds(30)).await, 1, "{}", process.stderr());
    let printed = process.stderr();
    assert!(printed.contains("api_unavailable") && printed.contains("503"), "{printed}");
    let summary = printed.lines().find_map(|line| serde_json::from_str::<Value>(line).ok()).unwrap();
    assert_eq!(summary["held"][0]["reason"], "retries", "{summary}");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_cannot_be_written_end_it_with_the_file_and_the_remedy() {
    if !std::path::Path::new("/dev/full").exists() {
        return harness::skip("it needs /dev/full");
    }
    let folder = Folder::new();
    folder.write("jobs.jsonl", PURGE);
    let process = run(&folder, &["--events", "/dev/full", "jobs.jsonl"]);
    assert_eq!(process.wait(seconds(60)).await, 1, "{}", process.stderr());
    let printed = process.stderr();
    assert!(
        printed.contains("--events /dev/full cannot be written: No space left") && printed.contains("start it again"),
        "{printed}"
    );
    let again = run(&folder, &["jobs.jsonl"]);
    assert_eq!(again.wait(seconds(60)).await, 0, "{}", again.stderr());
    assert_eq!(again.stdout_lines().len(), 1, "nothing is lost");
}
