//! The example of `docs/ADDING-A-WORKER.md` is a complete worker: it takes jobs from the embedded queue, calls the API,
//! publishes events, keeps an audit and stops when asked.

use genfleet_simulator::Simulator;
use harness::{Launch, Process, eventually, seconds};
use serde_json::{Value, json};

use crate::stack::{purge_requests, simulator};

const QUEUE: [&str; 2] = ["--queue-url", "sqlite:jobs.db"];

fn minimal_worker(simulator: &Simulator) -> Launch {
    Process::binary("minimal-worker")
        .args(QUEUE)
        .args(["--admin-addr", "127.0.0.1:0"])
        .env("GENESYS_BASE_URL", &simulator.base_url())
        .env("GENESYS_CLIENT_ID", "client")
        .env("GENESYS_CLIENT_SECRET", "hush")
}

/// Runs the tool on the store of `worker`, and returns its output.
async fn tool(worker: &Process, arguments: &[&str]) -> Vec<String> {
    let tool = Process::binary("genfleet").args(arguments.iter().copied()).args(QUEUE).directory(worker.directory());
    let tool = tool.start();
    assert_eq!(tool.wait(seconds(30)).await, 0, "{arguments:?}: {}", tool.stderr());
    tool.stdout_lines()
}

/// Waits for the final event of the job, and returns its data.
async fn end(worker: &Process, job: &str) -> Value {
    eventually(seconds(30), format!("{job} has ended"), async || {
        let events = tool(worker, &["events"]).await;
        let mut events = events.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
        events.find(|event| event["subject"] == job).map(|event| event["data"].clone())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_minimal_worker_works_jobs_from_the_embedded_queue_to_their_events() {
    let simulator = simulator().await;
    let worker = minimal_worker(&simulator).start();
    worker.wait_ready(seconds(30)).await;

    let purge = ["enqueue", "cdn.purge", "--id", "purged", "--payload", r#"{"paths":["/a","/b"]}"#];
    tool(&worker, &purge).await;
    let purged = end(&worker, "purged").await;
    assert_eq!(
        (&purged["outcome"], &purged["action"], &purged["requests"]),
        (&json!("succeeded"), &json!("cache_invalidated"), &json!(1)),
    );
    assert_eq!(purged["report"]["status"], 202);
    let sent = simulator.requests().into_iter().find(|request| request.path.ends_with("/cdn/purge")).unwrap();
    assert_eq!(sent.body, json!({ "paths": ["/a", "/b"] }));
    assert!(purged["report"]["requestId"].as_str().is_some_and(|id| !id.is_empty()), "{purged}");

    // The example's payload type does not have this member; the shipped worker has it.
    let unknown = r#"{"paths":["/a"],"allowPurgeAll":true}"#;
    tool(&worker, &["enqueue", "cdn.purge", "--id", "refused", "--payload", unknown]).await;
    let refused = end(&worker, "refused").await;
    assert_eq!((&refused["outcome"], &refused["error"]["code"]), (&json!("failed"), &json!("invalid_job")));
    assert_eq!(refused["error"]["violations"][0]["pointer"], "/payload/allowPurgeAll");
    assert_eq!(purge_requests(&simulator), 1, "an invalid job calls nothing");

    worker.terminate();
    assert_eq!(worker.wait(seconds(30)).await, 0);
    let audit = std::fs::read_to_string(worker.directory().join("genfleet-audit-purger.jsonl")).unwrap();
    let facts: Vec<Value> = audit.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of_purged = facts.iter().filter(|fact| fact["jobId"] == "purged").map(|fact| fact["fact"].as_str().unwrap());
    assert_eq!(of_purged.collect::<Vec<_>>(), ["intent", "effect", "outcome"]);
}
