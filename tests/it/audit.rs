//! The audit (SPEC 8): every change has its records, even if the process or the disk fails, and later changes to
//! the files are found.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use genfleet_simulator::Simulator;
use harness::{Amqp, Broker, Launch, Prefix, Process, eventually, json_properties, seconds};
use serde_json::{Value, json};

use crate::stack::{assert_all_succeeded, outcomes, publish_one_path_jobs, purge_job, simulator, worker};

/// A folder that exists as long as a test, for the files of several processes.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("genfleet-audits-{}", uuid::Uuid::new_v4()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        path
    }

    fn names(&self) -> BTreeSet<String> {
        fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// The existing audit files.
    fn files(&self) -> Vec<PathBuf> {
        audit_files(&self.0)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn audit_files(folder: &Path) -> Vec<PathBuf> {
    let of_audit = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.contains("audit") && name.ends_with(".jsonl")
    };
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(of_audit).collect()
}

/// Runs `genfleet audit verify` and returns its output.
async fn verify(files: &[PathBuf], events: Option<&Path>) -> (i32, Vec<String>) {
    let events = events.map(|path| ["--events".into(), path.as_os_str().to_owned()]);
    let files = files.iter().map(|path| path.as_os_str().to_owned());
    let arguments = ["audit".into(), "verify".into()].into_iter().chain(files).chain(events.into_iter().flatten());
    let process = Process::binary("genfleet").args(arguments).start();
    let code = process.wait(seconds(60)).await;
    (code, process.stdout_lines())
}

async fn assert_well(files: &[PathBuf], events: Option<&Path>) {
    let (code, result) = verify(files, events).await;
    assert_eq!((code, result), (0, vec![]));
}

/// Reads every fact in `files`, by job, without a line that is still being written.
fn facts(files: &[PathBuf]) -> BTreeMap<String, Vec<Value>> {
    let mut by_job: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for path in files {
        for line in fs::read_to_string(path).unwrap().lines() {
            let Ok(fact) = serde_json::from_str::<Value>(line) else { continue };
            by_job.entry(fact["jobId"].as_str().unwrap_or_default().to_owned()).or_default().push(fact);
        }
    }
    by_job
}

fn words(facts: &[Value]) -> Vec<&str> {
    facts.iter().map(|fact| fact["fact"].as_str().unwrap()).collect()
}

/// Asserts that every job has an intent, an effect and a successful outcome.
fn assert_whole<'a>(facts: &BTreeMap<String, Vec<Value>>, jobs: impl Iterator<Item = &'a String>) {
    for job in jobs {
        let of_job = facts.get(job).unwrap_or_else(|| panic!("{job} has no facts"));
        let has = |word: &str, member: &str, value: &str| {
            of_job.iter().any(|fact| fact["fact"] == word && fact["detail"][member] == value)
        };
        let whole = has("intent", "method", "POST")
            && has("effect", "result", "done")
            && has("outcome", "outcome", "succeeded");
        assert!(whole, "{job}: {of_job:#?}");
    }
}

/// Asserts that every purged path has the intent of a job: `/<name>/<n>` belongs to job `<name>-<n>`.
fn assert_every_effect_was_intended(files: &[PathBuf], simulator: &Simulator) {
    // The purged paths are read first, because their intents were written before.
    let purged = simulator.purge_counts();
    let facts = facts(files);
    for path in purged.keys() {
        let job = path[1..].replace('/', "-");
        let intended = facts.get(&job).is_some_and(|facts| facts.iter().any(|fact| fact["fact"] == "intent"));
        assert!(intended, "{path} was purged without an intent");
    }
}

fn lines_of(by_job: &BTreeMap<String, Vec<Value>>) -> String {
    by_job.values().flatten().fold(String::new(), |mut text, event| {
        writeln!(text, "{event}").unwrap();
        text
    })
}

fn purger(broker: &Broker, prefix: &Prefix, simulator: &Simulator, folder: &Folder) -> Launch {
    worker("purger", broker, prefix, simulator).directory(&folder.0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_all_changes_and_all_acknowledgements_until_there_is_room() {
    const JOBS: usize = 600;
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let (simulator, folder) = (simulator().await, Folder::new());
    // Space for the facts of only some jobs.
    let Some(launch) = purger(broker, &prefix, &simulator, &folder).room_for_files(250_000) else { return };
    let purger = launch.start();
    purger.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    publish_one_path_jobs(&amqp, &prefix, "full", JOBS).await;
    eventually(seconds(60), "the hold is on", async || {
        purger.metrics().await.get(r#"genfleet_gate_state{reason="audit"}"#) == Some(1.0)
    })
    .await;
    let (status, result) = purger.ready().await;
    assert_eq!(status, 503);
    assert!(result["reasons"].to_string().contains("audit log"), "{result}");
    // Jobs that were running when the disk became full have ended; new ones do not begin.
    let queue = format!("{prefix}.jobs.cdn.purge");
    publish_one_path_jobs(&amqp, &prefix, "later", 300).await;
    let still = async || (simulator.purge_counts().len(), amqp.count(&queue).await);
    let mut before = still().await;
    eventually(seconds(60), "nothing moves any more", async || {
        let now = still().await;
        // Two readings of the same values, which are not taken at the same time.
        let retried = purger.metrics().await;
        let same = now == before && retried.get(r#"genfleet_gate_state{reason="audit"}"#) == Some(1.0);
        before = now;
        same
    })
    .await;
    assert_every_effect_was_intended(&folder.files(), &simulator);
    assert!(simulator.purge_counts().len() < JOBS);
    assert!(
        simulator.purge_counts().keys().all(|path| path.starts_with("/full/")),
        "nothing that came later was begun"
    );
    let mut ended = BTreeMap::new();
    while let Some(message) = events.next_message(std::time::Duration::from_millis(300)).await {
        let event = message.json();
        ended.insert(event["subject"].as_str().unwrap().to_owned(), vec![event]);
    }
    assert!(ended.len() < JOBS);
    let so_far = folder.write("so-far.jsonl", lines_of(&ended));
    assert_well(&folder.files(), Some(&so_far)).await;

    let left = JOBS + 300 - ended.len();
    what_is_held_is_reported(&purger, &prefix, &amqp, left).await;
    purger.give_room();
    ended.extend(outcomes(&mut events, left, seconds(120)).await);
    assert_all_succeeded(&ended);
    assert!(ended.values().all(|events| events.len() == 1 && events[0]["data"]["attempts"] == 1), "none was burned");
    assert!(simulator.purge_counts().values().all(|times| *times == 1), "nothing was done twice");
    purger.wait_ready(seconds(30)).await;
    assert_eq!(purger.metrics().await.get(r#"genfleet_gate_state{reason="audit"}"#), Some(0.0));
    let all = folder.write("all.jsonl", lines_of(&ended));
    assert_well(&folder.files(), Some(&all)).await;
    assert_whole(&facts(&folder.files()), ended.keys());
    eventually(seconds(10), "nothing is held", async || {
        purger.metrics().await.count("genfleet_jobs_held", &[("kind", "cdn.purge")]) == 0
    })
    .await;
    for lane in ["jobs", "resume", "suspect", "dead"] {
        eventually(seconds(10), "nothing is left", async || {
            amqp.count(&format!("{prefix}.{lane}.cdn.purge")).await == 0
        })
        .await;
    }
}

/// Of the jobs that have not ended, the broker counts some as waiting; the process reports all others as held.
async fn what_is_held_is_reported(purger: &Process, prefix: &Prefix, amqp: &Amqp, left: usize) {
    let status = async |more: &[&str]| {
        let tool = Process::binary("genfleet")
            .args(["status", "--json"].iter().chain(more).copied())
            .env("GENFLEET_QUEUE_URL", Broker::shared().await.url())
            .env("GENFLEET_QUEUE_PREFIX", prefix)
            .start();
        let code = tool.wait(seconds(30)).await;
        (code, serde_json::from_str::<Value>(&tool.stdout_lines().concat()).unwrap())
    };
    eventually(seconds(30), "what is held is counted", async || {
        let mut waiting = 0;
        for lane in ["jobs", "resume"] {
            waiting += amqp.count(&format!("{prefix}.{lane}.cdn.purge")).await as usize;
        }
        let held = purger.metrics().await.count("genfleet_jobs_held", &[("kind", "cdn.purge")]);
        let (code, seen) = status(&[]).await;
        let purge = seen["kinds"].as_array().unwrap().iter().find(|kind| kind["kind"] == "cdn.purge").unwrap();
        let result = (held > 0, usize::try_from(held).unwrap() + waiting, purge["held"].as_u64(), code);
        if result == (true, left, Some(held), 0) {
            Ok(())
        } else {
            Err(format!("{result:?} of {left}, {waiting} wait: {purge}"))
        }
    })
    .await;
    let (code, seen) = status(&["--check"]).await;
    assert!(code == 1 && seen["problems"].to_string().contains("a hold is in force"), "{code}: {seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_with_a_full_disk_nothing_is_lost() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let (simulator, folder) = (simulator().await, Folder::new());
    let Some(launch) = purger(broker, &prefix, &simulator, &folder).room_for_files(100_000) else { return };
    let first = launch.start();
    first.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    publish_one_path_jobs(&amqp, &prefix, "killed", 400).await;
    eventually(seconds(60), "the hold is on", async || first.ready().await.1.to_string().contains("audit log")).await;
    first.kill9();
    let second = purger(broker, &prefix, &simulator, &folder).start();
    let by_job = outcomes(&mut events, 400, seconds(120)).await;
    assert_all_succeeded(&by_job);
    second.terminate();
    assert_eq!(second.wait(seconds(40)).await, 0);
    assert_every_effect_was_intended(&folder.files(), &simulator);
    let all = folder.write("all.jsonl", lines_of(&by_job));
    assert_well(&folder.files(), Some(&all)).await;
    assert_whole(&facts(&folder.files()), by_job.keys());
}

#[tokio::test(flavor = "multi_thread")]
async fn asked_to_stop_with_a_full_disk_it_stops_and_the_jobs_come_again() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let (simulator, folder) = (simulator().await, Folder::new());
    let Some(launch) = purger(broker, &prefix, &simulator, &folder).room_for_files(0) else { return };
    let first = launch.args(["--drain-timeout", "2s"]).start();
    first.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    publish_one_path_jobs(&amqp, &prefix, "stopped", 50).await;
    amqp.publish_job(&prefix, "cdn.purge", purge_job("invalid", &["no-slash"]), json_properties()).await;
    eventually(seconds(60), "the hold is on", async || first.ready().await.1.to_string().contains("audit log")).await;
    first.terminate();
    assert_eq!(first.wait(seconds(30)).await, 0);
    assert!(simulator.purge_counts().is_empty());
    assert!(events.next_message(std::time::Duration::from_millis(300)).await.is_none(), "no event was published");
    let second = purger(broker, &prefix, &simulator, &folder).start();
    let mut by_job = outcomes(&mut events, 51, seconds(60)).await;
    assert_eq!(by_job.remove("invalid").unwrap()[0]["data"]["error"]["code"], "invalid_job");
    assert_all_succeeded(&by_job);
    assert!(second.is_running());
    assert_eq!(amqp.count(&format!("{prefix}.dead.cdn.purge")).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_that_nobody_reads_is_reported_like_a_full_disk_and_keeps_no_process_from_ending() {
    const JOBS: usize = 300;
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    let worker = worker("purger", broker, &prefix, &simulator).env("GENFLEET_AUDIT_LOG", "-");
    let (launch, mut pipe) = worker.args(["--drain-timeout", "2s"]).piped();
    let purger = launch.start();
    purger.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    publish_one_path_jobs(&amqp, &prefix, "unread", JOBS).await;
    let hangs = async || purger.ready().await.1.to_string().contains("has not ended");
    eventually(seconds(60), "the hold is on", hangs).await;
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut pipe.by_ref().take(1_000_000), &mut std::io::sink());
        std::thread::park();
    });
    assert_all_succeeded(&outcomes(&mut events, JOBS, seconds(60)).await);
    purger.wait_ready(seconds(30)).await;
    // Only a part of the following output is read.
    publish_one_path_jobs(&amqp, &prefix, "again", 3000).await;
    eventually(seconds(60), "the hold is on", hangs).await;
    purger.terminate();
    assert_eq!(purger.wait(seconds(30)).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_again_and_again_under_load_the_files_verify_and_every_job_has_its_facts() {
    const JOBS: usize = 6_000;
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let (simulator, folder) = (simulator().await, Folder::new());
    let start = || purger(broker, &prefix, &simulator, &folder).args(["--audit-rotate", "500KiB"]).start();
    let mut running = start();
    running.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    publish_one_path_jobs(&amqp, &prefix, "load", JOBS).await;
    for part in 1..=3 {
        eventually(seconds(60), "a part of the jobs is done", async || {
            simulator.purge_counts().len() > JOBS / 5 * part
        })
        .await;
        running.kill9();
        running = start();
    }
    let by_job = outcomes(&mut events, JOBS, seconds(180)).await;
    assert_all_succeeded(&by_job);
    running.terminate();
    assert_eq!(running.wait(seconds(40)).await, 0);
    let all = folder.write("all.jsonl", lines_of(&by_job));
    let mut files = folder.files();
    assert!(files.len() > 3, "rotated: {files:?}");
    assert_well(&files, Some(&all)).await;
    files.reverse();
    assert_well(&files, Some(&all)).await;
    assert_whole(&facts(&files), by_job.keys());
    assert!(!folder.0.join("genfleet-audit-purger.jsonl.lock").exists());

    // Complete lines are removed from the end of the chain.
    let last = folder.0.join(folder.names().into_iter().rfind(|name| name.contains(".0")).unwrap());
    let text = fs::read_to_string(&last).unwrap();
    let kept = text.lines().count() / 2;
    fs::write(&last, text.lines().take(kept).fold(String::new(), |text, line| text + line + "\n")).unwrap();
    assert_well(&files, None).await;
    let (code, result) = verify(&files, Some(&all)).await;
    assert_eq!(code, 1);
    assert!(result[0].contains("all.jsonl:") && result[0].contains("is not in the files"), "{}", result[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_of_one_name_write_two_files() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let (simulator, folder) = (simulator().await, Folder::new());
    let start = || purger(broker, &prefix, &simulator, &folder).start();
    let first = start();
    first.wait_ready(seconds(30)).await;
    let second = start();
    second.wait_ready(seconds(30)).await;
    let result = second.logs().iter().any(|line| line.to_string().contains("genfleet-audit-purger-2.jsonl"));
    assert!(result, "{}", second.stderr());
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    let (mut by_job, mut round) = (BTreeMap::new(), 0);
    let written = |name: &str| fs::metadata(folder.0.join(name)).unwrap().len() > 0;
    while !(written("genfleet-audit-purger.jsonl") && written("genfleet-audit-purger-2.jsonl")) {
        assert!(round < 50, "one of them gets no job");
        publish_one_path_jobs(&amqp, &prefix, &format!("round{round}"), 200).await;
        by_job.extend(outcomes(&mut events, 200, seconds(60)).await);
        round += 1;
    }
    for process in [first, second] {
        process.terminate();
        assert_eq!(process.wait(seconds(30)).await, 0);
    }
    let all = folder.write("all.jsonl", lines_of(&by_job));
    assert_eq!(folder.files().len(), 2);
    assert_well(&folder.files(), Some(&all)).await;
    let processes: BTreeSet<_> =
        by_job.values().flatten().map(|event| event["data"]["audit"]["process"].to_string()).collect();
    assert_eq!(processes.len(), 2, "{processes:?}");
    assert!(!folder.0.join("genfleet-audit-purger-2.jsonl.lock").exists());
}

/// The example batch, its events and its audit.
struct Batch {
    folder: Folder,
    events: Vec<Value>,
}

impl Batch {
    async fn run() -> Self {
        let folder = Folder::new();
        let examples = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples");
        let jobs = ["jobs.jsonl", "jobs-with-mistakes.jsonl"].map(|name| fs::read(examples.join(name)).unwrap());
        fs::write(folder.0.join("jobs.jsonl"), jobs.concat()).unwrap();
        let limits = ["--sim-requests-per-minute", "60000", "--requests-per-minute", "60000"];
        let siem = ["--security-webhook-url", "https://siem.example/in/hush"];
        let arguments = [&["run", "--simulate", "--events", "events.jsonl", "jobs.jsonl"], &siem[..]].concat();
        let process = Process::binary("genfleet").args(arguments).args(limits).directory(&folder.0).start();
        assert_eq!(process.wait(seconds(60)).await, 2, "{}", process.stderr());
        let text = fs::read_to_string(folder.0.join("events.jsonl")).unwrap();
        let events = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        Self { folder, events }
    }

    fn audit(&self) -> PathBuf {
        self.folder.0.join("jobs.jsonl.genfleet-audit.jsonl")
    }

    fn events(&self) -> PathBuf {
        self.folder.0.join("events.jsonl")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_leaves_its_audit_beside_its_store_and_every_ending_is_in_it() {
    let batch = Batch::run().await;
    assert_well(&[batch.audit()], Some(&batch.events())).await;
    let facts = facts(&[batch.audit()]);
    for event in &batch.events {
        let (job, data) = (event["subject"].as_str().unwrap(), &event["data"]);
        let of_job = &facts[job];
        let outcome = of_job.last().unwrap();
        let stamp = json!({"process": outcome["process"], "seq": outcome["seq"], "hash": outcome["hash"]});
        assert_eq!(data["audit"], stamp, "{job}");
        assert_eq!(outcome["detail"]["outcome"], data["outcome"], "{job}");
        assert_eq!(outcome["detail"]["eventId"], event["id"], "{job}");
        assert_eq!(words(of_job).iter().filter(|word| **word == "outcome").count(), 1, "{job}");
        let (intents, effects) = (|word: &&&str| **word == "intent", |word: &&&str| **word == "effect");
        let words = words(of_job);
        assert_eq!(words.iter().filter(intents).count(), words.iter().filter(effects).count(), "{job}");
    }
    let expected = [
        ("branding-logo", "cdn_purge_executed", vec!["intent", "effect", "outcome"]),
        ("invalid-wildcard", "cdn_purge_executed", vec!["outcome"]),
        ("expired", "cdn_purge_executed", vec!["outcome"]),
        ("stream-conversations", "PUT_CONFIGURATION", vec!["intent", "effect", "outcome"]),
        // Its ETag is outdated, so it is sent twice.
        ("stream-audits", "PUT_CONFIGURATION", vec!["intent", "effect", "intent", "effect", "outcome"]),
        ("stream-mistakes", "CONFIGURATION_FAILURE", vec!["outcome"]),
        ("channel-web-shop", "CHANNEL_PROVISIONED", vec!["intent", "effect", "outcome"]),
        // Its interface already exists, so its only change is the synchronisation of its routing table.
        ("vni-lab", "vni_provisioning", vec!["intent", "effect", "outcome"]),
        ("vni-gateway-refused", "vni_provisioning", vec!["outcome"]),
        ("scan-clean", "scan_completed", vec!["intent", "effect", "outcome"]),
        ("invalid-kind", "job_unreadable", vec!["outcome"]),
    ];
    for (job, action, facts_of_job) in expected {
        assert_eq!(words(&facts[job]), facts_of_job, "{job}");
        assert_eq!(facts[job].last().unwrap()["action"], action, "{job}");
    }
    let own = facts[""].iter().all(|fact| fact["jobId"].is_null() && fact["kind"] == "file.scan");
    assert!(own && words(&facts[""]).contains(&"effect"), "the security webhook is no job's");
    let text = fs::read_to_string(batch.audit()).unwrap();
    for secret in ["hush", "/images/branding", "roleArn", "support-chat", "203.0.113.10", "simulated", "Bearer"] {
        assert!(!text.contains(secret), "{secret} is in the audit");
    }
    let hashes: BTreeSet<_> = facts["scan-clean"].iter().map(|fact| fact["payloadSha256"].to_string()).collect();
    assert_eq!(hashes.len(), 1, "the same in all facts of a job");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_to_the_file_is_named_line_by_line() {
    let batch = Batch::run().await;
    let original = fs::read_to_string(batch.audit()).unwrap();
    let lines: Vec<&str> = original.lines().collect();
    let name = batch.audit().display().to_string();
    let changed = |line: usize, from: &str, to: &str| {
        let mut lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
        assert!(lines[line - 1].contains(from));
        lines[line - 1] = lines[line - 1].replacen(from, to, 1);
        lines.join("\n") + "\n"
    };
    let without = |gone: usize| {
        let kept = lines.iter().enumerate().filter(|(index, _)| *index != gone - 1).map(|(_, line)| *line);
        kept.collect::<Vec<_>>().join("\n") + "\n"
    };
    let swapped = |one: usize| {
        let mut lines = lines.clone();
        lines.swap(one - 1, one);
        lines.join("\n") + "\n"
    };
    for (content, line, what) in [
        (changed(3, "\"worker\":\"", "\"worker\":\"x"), 3, "changed"),
        (changed(7, "\"seq\":7", "\"seq\":8"), 7, "changed"),
        (changed(5, "\"hash\":\"", "\"hash\":\"0"), 5, "changed"),
        (without(4), 4, "seq 4 is missing"),
        (without(1), 1, "seq 1 is missing"),
        (swapped(6), 7, "seq 6 is out of order"),
    ] {
        fs::write(batch.audit(), content).unwrap();
        let (code, result) = verify(&[batch.audit()], None).await;
        assert_eq!(code, 1);
        assert!(result[0].starts_with(&format!("{name}:{line}: ")) && result[0].contains(what), "{what}: {result:?}");
    }
    // Next to it are the files that a crash would leave.
    let torn = batch.folder.write("jobs.jsonl.genfleet-audit.jsonl.torn", "{\"action\"");
    fs::write(batch.audit(), &original).unwrap();
    assert_well(&[torn, batch.audit()], Some(&batch.events())).await;
    fs::write(batch.audit(), lines[..lines.len() - 2].join("\n") + "\n").unwrap();
    assert_well(&[batch.audit()], None).await;
    let (code, result) = verify(&[batch.audit()], Some(&batch.events())).await;
    assert_eq!(code, 1);
    assert!(
        result.iter().all(|line| line.contains("events.jsonl:") && line.contains("is not in the files")),
        "{result:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_facts_of_one_job_are_shown() {
    let batch = Batch::run().await;
    let file = batch.audit().into_os_string();
    let show = |arguments: &[&str]| {
        let arguments = [&["audit", "show"], arguments].concat();
        Process::binary("genfleet").args(arguments).args([file.clone()]).start()
    };
    let shown = show(&["branding-logo"]);
    assert_eq!(shown.wait(seconds(20)).await, 0, "{}", shown.stderr());
    let text = shown.stdout_lines().join("\n");
    for word in ["intent", "effect", "outcome", "cdn_purge_executed", "/api/v2/external/cdn/purge", "succeeded"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let shown = show(&["branding-logo", "--json"]);
    assert_eq!(shown.wait(seconds(20)).await, 0);
    let result: Vec<Value> = shown.stdout_lines().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        result.iter().map(|fact| fact["fact"]["fact"].as_str().unwrap()).collect::<Vec<_>>(),
        ["intent", "effect", "outcome"]
    );
    assert_eq!(show(&["nobody"]).wait(seconds(20)).await, 1);
    let elsewhere = Process::binary("genfleet").args(["audit", "show", "branding-logo"]).start();
    assert_eq!(elsewhere.wait(seconds(20)).await, 64, "no files here");
    let verified = Process::binary("genfleet").args(["audit", "verify", "--json"]).args([file.clone()]).start();
    assert_eq!(verified.wait(seconds(20)).await, 0);
    let result: Value = serde_json::from_str(&verified.stdout_lines()[0]).unwrap();
    assert_eq!((&result["problems"], &result["chains"]), (&json!([]), &json!(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_it_goes_can_be_said_and_is_checked() {
    let folder = Folder::new();
    folder.write("one.jsonl", r#"{"id":"one","kind":"cdn.purge","payload":{"paths":["/a"]}}"#);
    folder.write("hosts", "127.0.0.1 localhost\n");
    let run = |arguments: &[&str]| {
        let arguments = [&["run", "--simulate", "one.jsonl"], arguments].concat();
        Process::binary("genfleet").args(arguments).directory(&folder.0).start()
    };
    let off = run(&["--audit-log", "off"]);
    assert_eq!(off.wait(seconds(30)).await, 0, "{}", off.stderr());
    assert!(folder.files().is_empty());
    let event: Value = serde_json::from_str(&off.stdout_lines()[0]).unwrap();
    assert!(event["data"].get("audit").is_none());

    let stdout = run(&["--audit-log", "-"]);
    assert_eq!(stdout.wait(seconds(30)).await, 64, "events and facts in one stream");
    let stdout = run(&["--audit-log", "-", "--events", "events"]);
    assert_eq!(stdout.wait(seconds(30)).await, 0, "{}", stdout.stderr());
    let printed = folder.write("printed-audit.jsonl", stdout.stdout_lines().join("\n") + "\n");
    assert_well(&[printed], Some(&folder.0.join("events"))).await;
    assert_eq!(stdout.stdout_lines().len(), 3);

    let named = run(&["--audit-log", "mine-{process}-audit.jsonl"]);
    assert_eq!(named.wait(seconds(30)).await, 0, "{}", named.stderr());
    let event: Value = serde_json::from_str(&named.stdout_lines()[0]).unwrap();
    let process = event["data"]["audit"]["process"].as_str().unwrap();
    assert!(folder.names().contains(&format!("mine-{process}-audit.jsonl")), "{:?}", folder.names());

    let check = |arguments: &[&str]| {
        Process::binary("purger")
            .env("GENFLEET_QUEUE_URL", "amqp://127.0.0.1:1")
            .env("GENESYS_CLIENT_ID", "id")
            .env("GENESYS_CLIENT_SECRET", "hush")
            .args([&["--check-config"], arguments].concat())
            .directory(&folder.0)
            .start()
    };
    let before = folder.names();
    for (arguments, code, result) in [
        (vec![], 0, ""),
        (vec!["--audit-log", "no/such/folder.jsonl"], 64, "no/such/folder.jsonl cannot be written"),
        (vec!["--audit-log", "hosts"], 64, "no audit log"),
        (vec!["--audit-rotate", "256MB"], 64, "write 256MiB"),
    ] {
        let process = check(&arguments);
        assert_eq!(process.wait(seconds(20)).await, code, "{arguments:?}: {}", process.stderr());
        assert!(process.stderr().contains(result), "{arguments:?}: {}", process.stderr());
    }
    assert_eq!(folder.names(), before, "checking leaves nothing behind");
    let refused = run(&["--audit-log", "hosts"]);
    assert_eq!(refused.wait(seconds(20)).await, 64, "{}", refused.stderr());
    assert_eq!(fs::read_to_string(folder.0.join("hosts")).unwrap(), "127.0.0.1 localhost\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_whose_audit_cannot_be_written_changes_nothing_and_goes_on_with_one_that_can() {
    let folder = Folder::new();
    if std::os::unix::fs::symlink("/dev/full", folder.0.join("full.jsonl")).is_err() || !Path::new("/dev/full").exists()
    {
        return harness::skip("it needs /dev/full");
    }
    let jobs: Vec<String> = (0..200)
        .map(|n| {
            json!({"id": format!("job-{n}"), "kind": "cdn.purge", "payload": {"paths": [format!("/{n}")]}}).to_string()
        })
        .collect();
    folder.write("jobs.jsonl", jobs.join("\n"));
    let run = |arguments: &[&str]| {
        let arguments =
            [&["run", "--simulate", "jobs.jsonl", "--log", "warn", "--drain-timeout", "2s"], arguments].concat();
        Process::binary("genfleet").args(arguments).directory(&folder.0).start()
    };
    let full = run(&["--audit-log", "full.jsonl"]);
    eventually(seconds(30), "the hold is on", async || full.stderr().contains("nothing is changed")).await;
    eventually(seconds(30), "it says what holds it", async || full.stderr().contains("held: the audit log cannot be"))
        .await;
    full.terminate();
    assert_eq!(full.wait(seconds(30)).await, 1, "{}", full.stderr());
    assert!(full.stdout_lines().is_empty(), "nothing ended");
    let second = run(&[]);
    assert_eq!(second.wait(seconds(60)).await, 0, "{}", second.stderr());
    assert_eq!(second.stdout_lines().len(), 200);
    let events = folder.write("events", second.stdout_lines().join("\n"));
    let files = [folder.0.join("jobs.jsonl.genfleet-audit.jsonl")];
    assert_well(&files, Some(&events)).await;
    assert_whole(&facts(&files), (0..200).map(|n| format!("job-{n}")).collect::<Vec<_>>().iter());

    // An invalid line is recorded before anything is loaded.
    folder.write("jobs.jsonl", "nonsense\n");
    let full = run(&["--audit-log", "full.jsonl"]);
    assert_eq!(full.wait(seconds(30)).await, 1);
    assert!(full.stderr().contains("Free some disk space"), "{}", full.stderr());
}
