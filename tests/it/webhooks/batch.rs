//! Webhooks of `genfleet run`: a batch ends with its jobs, and loses no delivery.

use std::{fs, path::PathBuf};

use harness::{Launch, Process, Receiver, seconds};
use serde_json::Value;

use super::telling;

const JOBS: &str = r#"{"id":"good","kind":"cdn.purge","payload":{"paths":["/a"]}}
{"id":"bad","kind":"cdn.purge","payload":{"paths":["no-slash"]}}
{"id":"strange","kind":"cdn.prune","payload":{}}
"#;

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("genfleet-webhooks-{}", uuid::Uuid::new_v4()));
        fs::create_dir(&path).unwrap();
        fs::write(path.join("jobs.jsonl"), JOBS).unwrap();
        Self(path)
    }

    fn run(&self, arguments: &[&str]) -> Launch {
        let all = [&["run", "--simulate"], arguments, &["jobs.jsonl"]].concat();
        Process::binary("genfleet").args(all).directory(&self.0)
    }

    fn has_store(&self) -> bool {
        self.0.join("jobs.jsonl.genfleet").exists()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn ids(process: &Process) -> Vec<String> {
    let events = process.stdout_lines();
    let events = events.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
    events.map(|event| event["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_of_a_batch_is_delivered_before_it_ends() {
    let (folder, receiver) = (Folder::new(), Receiver::start().await);
    let run = telling(folder.run(&[]), &[&receiver]).start();
    assert_eq!(run.wait(seconds(60)).await, 2, "as without webhooks: {}", run.stderr());
    let taken = receiver.taken();
    assert_eq!(taken.len(), 3, "also that of the line whose kind cannot be read");
    assert!(ids(&run).iter().all(|id| taken.contains_key(id)));
    assert!(!folder.has_store());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_does_not_wait_for_a_dead_receiver_and_the_next_start_delivers() {
    let (folder, mut receiver) = (Folder::new(), Receiver::start().await);
    receiver.down().await;
    let first = telling(folder.run(&["--webhook-wait", "300ms"]), &[&receiver]).start();
    assert_eq!(first.wait(seconds(60)).await, 1, "{}", first.stderr());
    assert!(first.stderr().contains("3 webhooks are still to be delivered"), "{}", first.stderr());
    assert!(first.stderr().contains("3 of 3 jobs ended"), "{}", first.stderr());
    assert!(folder.has_store());

    receiver.up().await;
    let second = telling(folder.run(&[]), &[&receiver]).start();
    assert_eq!(second.wait(seconds(60)).await, 2, "{}", second.stderr());
    let taken = receiver.taken();
    assert!(ids(&first).iter().all(|id| taken.contains_key(id)), "earlier events are delivered now");
    assert!(second.stdout_lines().is_empty(), "and they are not repeated");
    assert!(!folder.has_store());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_fails_for_good_is_reported_and_is_no_job_of_the_batch() {
    let (folder, receiver) = (Folder::new(), Receiver::start().await);
    receiver.answer("410 Gone");
    let run = telling(folder.run(&["--json"]), &[&receiver]).start();
    assert_eq!(run.wait(seconds(60)).await, 2, "{}", run.stderr());
    assert_eq!(run.stdout_lines().iter().filter(|line| line.contains("genfleet.webhook.deliver.failed")).count(), 3);
    let summary = run.stderr();
    let summary: Value = serde_json::from_str(summary.lines().last().unwrap()).unwrap();
    assert_eq!((summary["jobs"].as_u64(), summary["ended"].as_u64()), (Some(3), Some(3)));
    assert_eq!(summary["webhooks"]["failed"], 3);
}
