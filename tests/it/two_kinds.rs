//! A binary of two kinds works both, or only those of `--kinds`, and reports the others.

use genfleet_simulator::Simulator;
use harness::{Launch, Process, seconds};
use serde_json::{Value, json};

use crate::{
    embedded::{self, end, tool},
    stack::simulator,
};

const GOOD: &str = "a0000000-0000-4000-8000-000000000001";
const WITHOUT: &str = "file.scan is not worked: name an engine with --engine (GENFLEET_ENGINE)";

fn two_kinds(simulator: &Simulator) -> Launch {
    embedded::worker("two-kinds", simulator)
}

async fn purge(worker: &Process, id: &str) {
    tool(worker, &["enqueue", "cdn.purge", "--id", id, "--payload", r#"{"paths":["/a"]}"#]).await;
}

async fn scan(worker: &Process, id: &str, file: &str) {
    let payload = json!({"fileId": file, "scanEngine": "standard", "quarantineAction": "auto_quarantine"});
    tool(worker, &["enqueue", "file.scan", "--id", id, "--payload", &payload.to_string()]).await;
}

/// The kinds that the process reports to work.
async fn worked(worker: &Process) -> Vec<String> {
    let (_, text) = worker.get("/metrics").await.unwrap();
    let kind = |line: &str| Some(line.strip_prefix("genfleet_jobs_in_flight{kind=\"")?.split('"').next()?.to_owned());
    let mut kinds: Vec<String> = text.lines().filter_map(kind).filter(|kind| kind != "webhook.deliver").collect();
    kinds.sort();
    kinds
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_a_binary_is_worked_and_one_without_its_setting_waits_and_is_reported() {
    let simulator = simulator().await;
    let folder = two_kinds(&simulator).start();
    folder.wait_ready(seconds(60)).await;
    assert!(folder.stderr().contains(WITHOUT), "{}", folder.stderr());
    assert_eq!(worked(&folder).await, ["cdn.purge"]);
    scan(&folder, "later", GOOD).await;
    purge(&folder, "now").await;
    assert_eq!(end(&folder, "now").await["report"], json!({"by": "first of /a"}));
    let waiting = tool(&folder, &["status", "--json"]).await.concat();
    let waiting: Value = serde_json::from_str(&waiting).unwrap();
    let scans = waiting["kinds"].as_array().unwrap().iter().find(|of_kind| of_kind["kind"] == "file.scan").unwrap();
    assert_eq!(scans["waiting"], 1, "nobody works it: {waiting}");
    folder.terminate();
    assert_eq!(folder.wait(seconds(60)).await, 0);

    let both = two_kinds(&simulator).args(["--engine", "clam"]).directory(folder.directory()).start();
    both.wait_ready(seconds(60)).await;
    assert_eq!(worked(&both).await, ["cdn.purge", "file.scan"]);
    assert_eq!(end(&both, "later").await["report"], json!({"by": format!("clam of {GOOD}")}));
    purge(&both, "again").await;
    assert_eq!(end(&both, "again").await["report"], json!({"by": "first of /a"}));
    scan(&both, "refused", "f0000000-0000-4000-8000-000000000001").await;
    assert_eq!(end(&both, "refused").await["error"]["violations"][0]["pointer"], "/payload/fileId", "its own rules");
    both.terminate();
    assert_eq!(both.wait(seconds(60)).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn kinds_narrows_and_one_that_cannot_be_worked_ends_with_64_and_the_remedy() {
    let simulator = simulator().await;
    for (kinds, settings, expected) in [
        ("vni.provision", vec![], "start vni-provisioner"),
        ("file.scan", vec![], WITHOUT),
        ("cdn.purge,file.scan", vec![], WITHOUT),
        ("cdn.prune", vec![], "did you mean cdn.purge?"),
        ("file.scan, vni.provision", vec!["--engine", "clam"], "name some of cdn.purge, file.scan"),
    ] {
        for mode in [vec!["--check-config"], vec![]] {
            let process = two_kinds(&simulator).env("GENFLEET_KINDS", kinds).args(settings.clone()).args(mode).start();
            assert_eq!(process.wait(seconds(60)).await, 64, "{kinds}: {}", process.stderr());
            assert!(process.stderr().contains(expected), "{kinds}: {}", process.stderr());
        }
    }
    let checked = async |settings: &[&str]| {
        let process = two_kinds(&simulator).args(settings.iter().copied()).args(["--check-config"]).start();
        assert_eq!(process.wait(seconds(60)).await, 0, "{settings:?}: {}", process.stderr());
        process.stdout_lines()
    };
    assert_eq!(checked(&[]).await, [WITHOUT, "the settings can work"]);
    assert_eq!(checked(&["--engine", "clam"]).await, ["the settings can work"]);
    assert_eq!(checked(&["--kinds", "cdn.purge"]).await, ["the settings can work"]);
    let narrowed = two_kinds(&simulator).args(["--engine", "clam", "--kinds", "file.scan"]).start();
    narrowed.wait_ready(seconds(60)).await;
    assert_eq!(worked(&narrowed).await, ["file.scan"]);
}
