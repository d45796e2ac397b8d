//! The example of `docs/ADDING-A-WORKER.md` is a complete worker: it takes jobs from the embedded queue, calls the API,
//! publishes events, keeps an audit and stops when asked.

use harness::seconds;
use serde_json::{Value, json};

use crate::{
    embedded::{self, end, tool},
    stack::{purge_requests, simulator},
};

#[tokio::test(flavor = "multi_thread")]
async fn the_minimal_worker_works_jobs_from_the_embedded_queue_to_their_events() {
    let simulator = simulator().await;
    let worker = embedded::worker("minimal-worker", &simulator).start();
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
