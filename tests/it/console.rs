//! The page at `/` of the admin port, in a browser: it shows the correct state, and sends requests only to its process.

use std::process::Command;

use harness::{Process, eventually, fresh_directory, seconds, skip};
use serde_json::{Value, json};

const QUEUE: [&str; 2] = ["--queue-url", "sqlite:console.db"];

/// Returns the page after it ran in a browser for some seconds. `None` if Chromium is not installed.
fn rendered(url: &str) -> Option<String> {
    let flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--virtual-time-budget=8000",
        "--dump-dom",
    ];
    let profile = fresh_directory("chromium");
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let output = names.into_iter().find_map(|name| {
        let profile = format!("--user-data-dir={}", profile.display());
        Command::new(name).args(flags).arg(profile).arg(url).output().ok()
    });
    let _ = std::fs::remove_dir_all(profile);
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// `genfleet up` with a simulator and two jobs for channels, although there is a licence for only one.
async fn with_one_failure() -> Process {
    let up = Process::binary("genfleet")
        .args(["up", "--simulate", "--license-limit", "1", "--admin-addr", "127.0.0.1:0"])
        .args(QUEUE)
        .start();
    up.wait_ready(seconds(30)).await;
    for _ in 0..2 {
        let payload = json!({"queueId": "3f2504e0-4f89-11d3-9a0c-0305e82c3301", "routingEmail": "a@example.com",
            "security": {"allowedDomains": ["example.com"]}});
        let payload = payload.to_string();
        let enqueued = Process::binary("genfleet")
            .args(["enqueue", "channel.provision", "--payload", &payload])
            .args(QUEUE)
            .directory(up.directory())
            .start();
        assert_eq!(enqueued.wait(seconds(30)).await, 0, "{}", enqueued.stderr());
    }
    up
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_the_kinds_the_state_and_the_last_failure_and_asks_nobody_else() {
    let up = with_one_failure().await;
    let failures: Vec<Value> = eventually(seconds(30), "a job has failed", async || {
        let failures: Vec<Value> = serde_json::from_str(&up.get("/failures").await.unwrap().1).unwrap();
        (!failures.is_empty()).then_some(failures)
    })
    .await;
    assert_eq!(failures.len(), 1);
    assert_eq!(
        (&failures[0]["code"], &failures[0]["kind"]),
        (&json!("license_limit_reached"), &json!("channel.provision"))
    );
    let (status, page) = up.get("/").await.unwrap();
    assert_eq!(status, 200);
    assert!(!page.contains("http://") && !page.contains("https://"), "the page names another server");

    let url = format!("http://{}/", up.admin_addr(seconds(1)).await);
    let Some(shown) = rendered(&url) else { return skip("it needs Chromium, and none is installed here") };
    for kind in ["cdn.purge", "stream.configure", "channel.provision", "vni.provision", "file.scan"] {
        assert!(shown.contains(&format!(r#"<th class="text" scope="row">{kind}</th>"#)), "{kind} is not in {shown}");
    }
    for printed in [
        r#"class="pill good" role="status">ready"#,
        r#"class="pill good">open"#,
        "genfleet up</td>",
        "of this client, 1 process",
        "of 3,000 a minute",
        "license_limit_reached",
        "version 0.1.0",
    ] {
        assert!(shown.contains(printed), "{printed} is not in {shown}");
    }
    let job = failures[0]["job"].as_str().unwrap();
    assert!(shown.contains(&format!(">{job}</td>")), "the failed job is not in {shown}");
    let fleet: Value = serde_json::from_str(&up.get("/fleet").await.unwrap().1).unwrap();
    let process = fleet["own"]["process"].as_str().unwrap();
    assert!(shown.contains(&format!(r#"<th class="text" scope="row">{process}"#)), "the process is not in {shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_that_is_shut_is_reported_with_the_reason_and_how_long() {
    let fault = "status=429,limit=client,retry-after=300";
    let up = Process::binary("genfleet")
        .args(["up", "--simulate", "--sim-fault", fault, "--admin-addr", "127.0.0.1:0"])
        .args(QUEUE)
        .start();
    up.wait_ready(seconds(30)).await;
    let enqueued = Process::binary("genfleet")
        .args(["enqueue", "cdn.purge", "--payload", r#"{"paths":["/a"]}"#])
        .args(QUEUE)
        .directory(up.directory())
        .start();
    assert_eq!(enqueued.wait(seconds(30)).await, 0, "{}", enqueued.stderr());
    eventually(seconds(30), "the gate is shut", async || {
        up.metrics().await.count("genfleet_gate_state", &[("reason", "throttled")]) == 1
    })
    .await;
    let url = format!("http://{}/", up.admin_addr(seconds(1)).await);
    let Some(shown) = rendered(&url) else { return skip("it needs Chromium, and none is installed here") };
    for printed in ["closed: throttled", "the API asked for a pause, for all tokens of the client, for another"] {
        assert!(shown.contains(printed), "{printed} is not in {shown}");
    }
}
