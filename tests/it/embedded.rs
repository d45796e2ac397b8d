//! A worker on the embedded queue, and the tool on its store.

use genfleet_simulator::Simulator;
use harness::{Launch, Process, eventually, seconds};
use serde_json::Value;

const QUEUE: [&str; 2] = ["--queue-url", "sqlite:jobs.db"];

/// Launches a worker with a store in its folder.
pub(crate) fn worker(binary: &str, simulator: &Simulator) -> Launch {
    Process::binary(binary)
        .args(QUEUE)
        .args(["--admin-addr", "127.0.0.1:0"])
        .env("GENESYS_BASE_URL", &simulator.base_url())
        .env("GENESYS_CLIENT_ID", "client")
        .env("GENESYS_CLIENT_SECRET", "hush")
}

/// Runs the tool on the store of `worker`, and returns its output.
pub(crate) async fn tool(worker: &Process, arguments: &[&str]) -> Vec<String> {
    let tool = Process::binary("genfleet").args(arguments.iter().copied()).args(QUEUE).directory(worker.directory());
    let tool = tool.start();
    assert_eq!(tool.wait(seconds(60)).await, 0, "{arguments:?}: {}", tool.stderr());
    tool.stdout_lines()
}

/// Waits for the final event of the job, and returns its data.
pub(crate) async fn end(worker: &Process, job: &str) -> Value {
    eventually(seconds(60), format!("{job} has ended"), async || {
        let events = tool(worker, &["events"]).await;
        let mut events = events.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
        events.find(|event| event["subject"] == job).map(|event| event["data"].clone())
    })
    .await
}
