//! The same ledger for a batch on the embedded queue, whose process is killed repeatedly.

use std::path::{Path, PathBuf};

use genfleet_simulator::Simulator;
use harness::{Process, eventually, fresh_directory, seconds};

use super::{
    balance::{Faults, judge_ends},
    between,
    books::Ends,
    chance,
    crew::{CONCURRENCY, LOG, SETTINGS},
    diagnosis::{most_logged, of_job},
    is_full,
    jobs::{self, Job},
    slow_simulator,
};
use crate::stack::{UNLIMITED, random_moment};

const FILE: &str = "jobs.jsonl";
const STORE: &str = "jobs.jsonl.genfleet";
/// Maximum time from the last start to the end of the batch.
const AFTER_THE_LAST_START: u64 = 60;

/// The folder of all processes of the batch. It is kept if the test fails.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

fn start(folder: &Path, simulator: &Simulator) -> Process {
    Process::binary("genfleet")
        .args(["run", FILE, "--log-format", "json", "--concurrency", CONCURRENCY])
        .args(SETTINGS.iter().flat_map(|of_worker| of_worker.iter().copied()))
        .env("GENFLEET_LOG", LOG)
        .env("GENFLEET_TAKEOVER_WAIT", "0s")
        .env("GENFLEET_ADMIN_ADDR", "127.0.0.1:0")
        .env("GENESYS_BASE_URL", &simulator.base_url())
        .env("GENESYS_CLIENT_ID", "client")
        .env("GENESYS_CLIENT_SECRET", "hush")
        .env("GENFLEET_REQUESTS_PER_MINUTE", &UNLIMITED.to_string())
        .env("GENFLEET_CLIENT_REQUESTS_PER_MINUTE", &UNLIMITED.to_string())
        .directory(folder)
        .start()
}

/// Adds the output of an ended process. The last line may be incomplete after a kill.
fn enter(ends: &mut Ends, process: &Process) {
    process
        .stdout_lines()
        .iter()
        .filter_map(|line| serde_json::from_str(line).ok())
        .for_each(|event| ends.enter(event));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_killed_again_and_again_leaves_every_job_ended_once() {
    let (count, kills) = if is_full() { (1_500, 35) } else { (500, 24) };
    let (simulator, mut random) = (slow_simulator().await, chance());
    let folder = Folder(fresh_directory("ledger-batch"));
    let gateway = jobs::gateway();
    let all: Vec<Job> = (0..count).map(|n| jobs::job(n, gateway)).collect();
    let lines: Vec<String> = all.iter().map(Job::line).collect();
    std::fs::write(folder.0.join(FILE), lines.join("\n")).unwrap();
    let mut ends = Ends::default();
    ends.jobs.extend(all.into_iter().map(|job| (job.id.clone(), job)));
    let mut logs = Vec::new();
    for kill in 0..kills {
        let process = start(&folder.0, &simulator);
        // Alternately in the middle of the work and at any time, even before it began.
        if kill % 2 == 0 {
            random_moment(&simulator, 20, 30).await;
        } else {
            tokio::time::sleep(between(&mut random, 100..2_000)).await;
        }
        assert!(process.is_running(), "it ended before kill {kill}: {}", process.stderr());
        process.kill9();
        process.wait(seconds(10)).await;
        enter(&mut ends, &process);
        logs.push(process.stderr());
    }
    let before = ends.events.len();
    assert!(before < count, "it was killed in the middle");

    let last = start(&folder.0, &simulator);
    let limit = seconds(AFTER_THE_LAST_START);
    let ending = eventually(2 * limit, "the batch ends", async || last.exit_code());
    let code = tokio::time::timeout(limit, ending).await.ok();
    last.kill9();
    last.wait(seconds(10)).await;
    enter(&mut ends, &last);
    logs.push(last.stderr());
    let (mut wrong, mut figures) = (Vec::new(), vec![format!("{before} had ended before the last start")]);
    if code != Some(0) {
        wrong.push(format!("{AFTER_THE_LAST_START} s after its last start: exit code {code:?}"));
        wrong.push(of_missing(&ends, &logs, &simulator, &folder.0).await);
    }
    let faults = Faults { name: "batch killed", count: kills, processes: 1 };
    judge_ends(&ends, &simulator, faults, &mut wrong, &mut figures);
    println!("ledger: {faults}: {}", figures.join("; "));
    let printed = wrong.join("\n");
    assert!(wrong.is_empty(), "{faults}\n{printed}\n{}\nall is in {}", figures.join("\n"), folder.0.display());
}

/// Reports what is known of jobs that have not ended.
async fn of_missing(ends: &Ends, logs: &[String], simulator: &Simulator, folder: &Path) -> String {
    for (n, log) in logs.iter().enumerate() {
        let _ = std::fs::write(folder.join(format!("life.{n:02}.log")), log);
    }
    let missing = ends.missing();
    let ids: Vec<&str> = missing.iter().map(|job| job.id.as_str()).collect();
    let mut printed = vec![format!("{} jobs without an event: {ids:?}", missing.len())];
    for (job, lines) in most_logged(&missing, logs) {
        printed.push(of_job(job, &shown(&job.id, folder).await, &lines, simulator));
    }
    printed.join("\n")
}

/// Returns the tool's output about a job.
async fn shown(id: &str, folder: &Path) -> String {
    let tool = Process::binary("genfleet").args(["show", id, "--queue-url", &format!("sqlite:{STORE}")]);
    let tool = tool.directory(folder).start();
    tool.wait(seconds(30)).await;
    format!("{}\n{}", tool.stdout_lines().join("\n"), tool.stderr())
}
