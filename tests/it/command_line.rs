//! Settings: valid ones, refused ones with their messages, and secrets (SPEC 10, 11).

use harness::{Amqp, Broker, Prefix, Process, eventually, json_properties, seconds};

use crate::stack::{outcomes, purge_job, simulator, worker};

async fn ended(process: &Process) -> (i32, String) {
    let code = process.wait(seconds(20)).await;
    (code, process.stderr())
}

#[tokio::test(flavor = "multi_thread")]
async fn help_lists_every_setting_with_its_variable_and_default() {
    let process = Process::binary("purger").args(["--help"]).start();
    assert_eq!(process.wait(seconds(20)).await, 0);
    let help = process.stdout_lines().join("\n");
    for setting in [
        "--queue-url",
        "GENFLEET_QUEUE_URL",
        "--queue-prefix",
        "--topology",
        "--concurrency",
        "--attempt-timeout",
        "--drain-timeout",
        "--batch-linger",
        "GENFLEET_BATCH_LINGER",
        "20ms",
        "--genesys-environment",
        "GENESYS_ENVIRONMENT",
        "--genesys-base-url",
        "GENESYS_BASE_URL",
        "--requests-per-minute",
        "--admin-addr",
        "127.0.0.1:9464",
        "--log-format",
        "--check-config",
    ] {
        assert!(help.contains(setting), "{setting} is missing in\n{help}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_settings_exit_64_and_say_what_to_do() {
    let good = || {
        Process::binary("purger")
            .env("GENFLEET_QUEUE_URL", "amqp://127.0.0.1:1")
            .env("GENESYS_CLIENT_ID", "id")
            .env("GENESYS_CLIENT_SECRET", "hush")
    };
    let process = good().args(["--check-config"]).start();
    assert_eq!(ended(&process).await.0, 0, "{}", process.stderr());
    let long = "p".repeat(65);
    for (arguments, output) in [
        (vec!["--check-config", "--batch-linger", "5"], "write 20ms, 5s, 10m, 1h or 7d"),
        (vec!["--check-config", "--queue-url", "redis://host"], "amqp://"),
        (vec!["--check-config", "--queue-prefix", &long], "it takes 1 to 64"),
        (vec!["--check-config", "--queue-url", "amqp://user:hidden@host"], "GENFLEET_QUEUE_URL_FILE"),
        (vec!["--no-such-flag"], "--no-such-flag"),
        (vec!["--concurrency", "0"], "1 to 65535"),
        (vec!["--attempt-timeout", "0s"], "longer than zero"),
        (vec!["--queue-url", "amqp://user:hidden@one:5672,two:5672/v"], "GENFLEET_QUEUE_URL_FILE"),
        (vec!["amqp://user:hidden@host"], "GENFLEET_QUEUE_URL_FILE"),
        (vec!["--check-config", "--queue-ca-file", "no-such-file"], "no-such-file"),
    ] {
        let process = good().args(arguments.clone()).start();
        let (code, stderr) = ended(&process).await;
        assert_eq!(code, 64, "{arguments:?}: {stderr}");
        assert!(stderr.contains(output), "{arguments:?}: {stderr}");
        assert!(!stderr.contains("hidden"), "{stderr}");
    }
    let process = good().env("GENESYS_CLIENT_SECRET", "").args(["--check-config"]).start();
    let (code, stderr) = ended(&process).await;
    assert_eq!(code, 64, "an empty variable counts as not set");
    assert!(stderr.contains("GENESYS_CLIENT_SECRET"), "{stderr}");
    let process = good().env("GENFLEET_BATCH_LINGER", "").args(["--check-config"]).start();
    assert_eq!(ended(&process).await.0, 0, "{}", process.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_without_a_broker_waits_and_says_so() {
    let simulator = simulator().await;
    let process = Process::binary("purger")
        .args(["--admin-addr", "127.0.0.1:0"])
        .env("GENFLEET_QUEUE_URL", "amqp://user:hidden@127.0.0.1:1")
        .env("GENESYS_BASE_URL", &simulator.base_url())
        .env("GENESYS_CLIENT_ID", "id")
        .env("GENESYS_CLIENT_SECRET", "hush-hush")
        .start();
    eventually(seconds(20), "it is not ready", async || process.ready().await.0 == 503).await;
    let (_, output) = process.ready().await;
    assert!(!output["reasons"].as_array().unwrap().is_empty(), "{output}");
    assert_eq!(process.get("/livez").await.unwrap().0, 200);
    process.terminate();
    assert_eq!(process.wait(seconds(30)).await, 0);
    assert!(!process.stderr().contains("hidden") && !process.stderr().contains("hush-hush"));
}

#[tokio::test(flavor = "multi_thread")]
async fn enqueue_checks_and_confirms_and_the_events_can_be_read() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    let purger = worker("purger", broker, &prefix, &simulator).start();
    purger.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    let tool = |arguments: &[&str]| {
        Process::binary("genfleet")
            .args(arguments.iter().copied())
            .env("GENFLEET_QUEUE_URL", broker.url())
            .env("GENFLEET_QUEUE_PREFIX", &prefix)
            .start()
    };
    let follow = tool(&["events", "--follow"]);
    // It prints nothing before the first event, so jobs are published until it has printed one.
    let mut sent = 0;
    eventually(seconds(30), "it follows", async || {
        sent += 1;
        amqp.publish_job(&prefix, "cdn.purge", purge_job(&format!("seen-{sent}"), &["/seen"]), json_properties()).await;
        !follow.stdout_lines().is_empty()
    })
    .await;
    let enqueued = tool(&["enqueue", "cdn.purge", "--payload", r#"{"paths":["/by-hand"]}"#]);
    assert_eq!(enqueued.wait(seconds(20)).await, 0, "{}", enqueued.stderr());
    let id = enqueued.stdout_lines().remove(0);
    let by_job = outcomes(&mut events, sent + 1, seconds(20)).await;
    assert!(by_job.contains_key(&id));
    eventually(seconds(10), "the follower saw it", async || {
        follow.stdout_lines().iter().any(|line| line.contains(&id))
    })
    .await;

    let refused = tool(&["enqueue", "cdn.purge", "--payload", r#"{"paths":["no-slash"]}"#]);
    assert_eq!(refused.wait(seconds(20)).await, 1);
    assert!(refused.stderr().contains("/payload/paths/0"), "{}", refused.stderr());
    let unknown = tool(&["enqueue", "cdn.prune", "--payload", "{}"]);
    assert_eq!(unknown.wait(seconds(20)).await, 64);
    assert!(unknown.stderr().contains("cdn.purge"), "the kinds are named: {}", unknown.stderr());

    let shown = tool(&["events"]);
    assert_eq!(shown.wait(seconds(20)).await, 0, "{}", shown.stderr());
    assert!(shown.stdout_lines().iter().any(|line| line.contains(&id)));
    let shown_again = tool(&["events"]);
    assert_eq!(shown_again.wait(seconds(20)).await, 0);
    assert!(shown_again.stdout_lines().iter().any(|line| line.contains(&id)), "looking leaves it there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_is_reported_with_its_cause_and_what_to_do() {
    let folder = harness::fresh_directory("mistakes");
    std::fs::write(folder.join("genfleet.db"), "").unwrap();
    let purge = ["enqueue", "cdn.purge", "--id", "mine", "--payload", r#"{"paths":["/a"]}"#];
    let unsent = [&purge[..], &["--timeout", "1s"]].concat();
    for (arguments, variable, expected, words, not) in [
        (
            &["enqueue", "cdn.purg", "--payload", "{}"][..],
            None,
            64,
            &["did you mean cdn.purge?"][..],
            "webhook.deliver",
        ),
        (&["enqueue", "webhook.deliver", "--payload", "{}"], None, 64, &["webhook.deliver is internal"], "this build"),
        (&purge, None, 64, &["no queue", "here lies sqlite:genfleet.db"], "mine"),
        (&["status"], Some(("GENFLEET_TOPOLOGY", "x")), 64, &["that of the variable GENFLEET_TOPOLOGY"], "PREFIX"),
        (&["status", "--topology", "x"], Some(("GENFLEET_TOPOLOGY", "verify")), 64, &["--topology"], "variable"),
        (
            &unsent,
            Some(("GENFLEET_QUEUE_URL", "amqp://127.0.0.1:1")),
            1,
            &["job mine: nothing was sent", "no connection within 1s"],
            "may or may not",
        ),
    ] {
        let tool = Process::binary("genfleet").args(arguments.iter().copied()).directory(&folder);
        let tool = variable.into_iter().fold(tool, |tool, (name, value)| tool.env(name, value)).start();
        let (code, output) = ended(&tool).await;
        assert_eq!(code, expected, "{arguments:?}: {output}");
        assert!(words.iter().all(|word| output.contains(word)) && !output.contains(not), "{arguments:?}: {output}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_shown_with_its_report_and_what_the_audit_here_says_of_it() {
    const STORE: &str = "sqlite:shown.db";
    let up = Process::binary("genfleet")
        .args(["up", "--simulate", "--admin-addr", "127.0.0.1:0", "--queue-url", STORE])
        .start();
    up.wait_ready(seconds(30)).await;
    let tool = |arguments: &[&str]| {
        let tool = Process::binary("genfleet").args(arguments.iter().copied()).directory(up.directory());
        tool.args(["--queue-url", STORE]).start()
    };
    let enqueued = tool(&["enqueue", "cdn.purge", "--id", "release-42", "--payload", r#"{"paths":["/seen"]}"#]);
    assert_eq!(enqueued.wait(seconds(30)).await, 0, "{}", enqueued.stderr());
    eventually(seconds(30), "the report and the audit are shown", async || {
        let shown = tool(&["show", "release-42"]);
        shown.wait(seconds(30)).await;
        let text = shown.stdout_lines().join("\n");
        let parts = ["cdn.purge  succeeded", "report {", r#""paths":["/seen"]"#, "\naudit\n", "cdn_purge_executed"];
        if parts.iter().all(|part| text.contains(part)) { Ok(()) } else { Err(text) }
    })
    .await;
    up.terminate();
    assert_eq!(up.wait(seconds(30)).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn validate_names_every_violation_and_exits_1() {
    let process = Process::binary("genfleet")
        .args(["validate", "-"])
        .stdin("{\"kind\":\"cdn.purge\",\"payload\":{\"paths\":[\"/a\"]}}\n\n{\"kind\":\"cdn.purge\",\"payload\":{\"paths\":[\"a\"]},\"x\":1}\n")
        .start();
    assert_eq!(process.wait(seconds(20)).await, 1);
    let output = process.stdout_lines().join("\n");
    assert!(output.contains("-:3: /x:") && output.contains("-:3: /payload/paths/0:"), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_there_from_the_start_and_count() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    let purger = worker("purger", broker, &prefix, &simulator).start();
    purger.wait_ready(seconds(30)).await;
    let before = purger.metrics().await;
    for series in [
        r#"genfleet_jobs_total{kind="cdn.purge",outcome="succeeded",code=""}"#,
        r#"genfleet_dead_letters_total{kind="cdn.purge",reason="crash_loop"}"#,
        r#"genfleet_gate_state{reason="throttled"}"#,
        r#"genfleet_broker_connected{role="publish"}"#,
        r#"genfleet_broker_reconnects_total{role="consume"}"#,
        "genfleet_stale_acks_total",
        "process_resident_memory_bytes",
    ] {
        assert!(before.get(series).is_some(), "{series} is missing");
    }
    assert_eq!(before.count("genfleet_broker_connected", &[]), 2);
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    crate::stack::publish_one_path_jobs(&amqp, &prefix, "counted", 30).await;
    outcomes(&mut events, 30, seconds(20)).await;
    eventually(seconds(10), "they are counted", async || {
        let metrics = purger.metrics().await;
        metrics.count("genfleet_jobs_total", &[("outcome", "succeeded")]) == 30
            && metrics.count("genfleet_purge_paths_total", &[]) == 30
            && metrics.count("genfleet_events_published_total", &[]) == 30
            && metrics.sum("genfleet_api_requests_total", &[("status", "202")]) > 0.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn completions_are_there_for_every_shell_and_know_the_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let process = Process::binary("genfleet").args(["completions", shell]).start();
        assert_eq!(process.wait(seconds(20)).await, 0, "{}", process.stderr());
        let script = process.stdout_lines().join("\n");
        for known in ["redrive", "enqueue", "doctor", "load", "queue-prefix"] {
            assert!(script.contains(known), "{shell}: {known}");
        }
    }
    let process = Process::binary("genfleet").args(["completions", "tcsh"]).start();
    assert_eq!(process.wait(seconds(20)).await, 64);
    assert!(process.stderr().contains("bash"), "{}", process.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tool_says_what_it_is_and_what_was_meant() {
    let version = Process::binary("genfleet").args(["--version"]).start();
    assert_eq!(version.wait(seconds(20)).await, 0);
    assert_eq!(version.stdout_lines(), [format!("genfleet {}", env!("CARGO_PKG_VERSION"))]);
    let mistyped = Process::binary("genfleet").args(["evnts"]).start();
    assert_eq!(mistyped.wait(seconds(20)).await, 64);
    assert!(mistyped.stderr().contains("'events'"), "{}", mistyped.stderr());
    for command in ["run", "enqueue", "validate", "events", "show", "dead", "doctor", "load", "completions"] {
        let help = Process::binary("genfleet").args([command, "--help"]).start();
        assert_eq!(help.wait(seconds(20)).await, 0);
        assert!(help.stdout_lines().join("\n").contains("Examples:\n  genfleet "), "{command}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_cannot_be_is_refused_by_the_check_as_by_the_start() {
    let folder = harness::fresh_directory("stores");
    std::fs::write(folder.join("other.txt"), "some text").unwrap();
    for url in ["sqlite:", "sqlite::memory:", "sqlite:file:a.db", "sqlite:missing/a.db", "sqlite:other.txt"] {
        for arguments in [vec!["--check-config"], vec![]] {
            let purger = Process::binary("purger")
                .args([arguments.clone(), vec!["--queue-url", url, "--admin-addr", "127.0.0.1:0"]].concat())
                .env("GENESYS_CLIENT_ID", "id")
                .env("GENESYS_CLIENT_SECRET", "hush")
                .directory(&folder)
                .start();
            let (code, stderr) = ended(&purger).await;
            assert_eq!(code, 64, "{url} {arguments:?}: {stderr}");
            assert!(stderr.contains(": name a"), "{url} {arguments:?}: what to do: {stderr}");
        }
        let enqueue = ["enqueue", "cdn.purge", "--queue-url", url, "--payload", r#"{"paths":["/a"]}"#];
        let enqueue = Process::binary("genfleet").args(enqueue).directory(&folder).start();
        assert_eq!(enqueue.wait(seconds(20)).await, 64, "{url}: {}", enqueue.stderr());
        assert_eq!(enqueue.stdout_lines(), [] as [String; 0], "{url}: no id of a job that is nowhere");
    }
    let good = Process::binary("purger")
        .args(["--check-config", "--queue-url", "sqlite:new.db", "--audit-log", "off"])
        .env("GENESYS_CLIENT_ID", "id")
        .env("GENESYS_CLIENT_SECRET", "hush")
        .directory(&folder)
        .start();
    assert_eq!(ended(&good).await.0, 0, "{}", good.stderr());
    assert!(!folder.join("new.db").exists(), "a check makes nothing");
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_yes_in_a_variable_is_a_yes_however_it_is_written() {
    for (word, expected) in
        [("1", 0), ("yes", 0), ("on", 0), ("true", 0), ("0", 64), ("no", 64), ("false", 64), ("", 64)]
    {
        let up = Process::binary("genfleet").args(["up", "--check-config"]).env("GENFLEET_SIMULATE", word).start();
        let (code, stderr) = ended(&up).await;
        assert_eq!(code, expected, "{word:?}: {stderr}");
        assert!(code == 0 || stderr.contains("--simulate"), "{word:?}: no credentials, nothing else: {stderr}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn output_that_nobody_reads_ends_quietly_with_the_commands_own_exit_code() {
    let folder = harness::fresh_directory("unread");
    std::fs::write(folder.join("bad.jsonl"), "{}\n[]\n").unwrap();
    std::fs::write(folder.join("audit.jsonl"), "{}\n[]\n").unwrap();
    let queue = ["--queue-url", "sqlite:jobs.db"];
    let enqueue = [&["enqueue", "cdn.purge", "--payload", r#"{"paths":["/a"]}"#], &queue[..]].concat();
    for (arguments, expected) in [
        (enqueue, 0),
        (vec!["schema"], 0),
        (vec!["schema", "cdn.purge"], 0),
        (vec!["topology"], 0),
        (vec!["completions", "bash"], 0),
        (vec!["validate", "bad.jsonl"], 1),
        (vec!["validate", "--json", "bad.jsonl"], 1),
        (vec!["audit", "verify", "audit.jsonl"], 1),
        (vec!["audit", "verify", "--json", "audit.jsonl"], 1),
        ([&["dead", "list"], &queue[..]].concat(), 0),
        ([&["dead", "list", "--json"], &queue[..]].concat(), 0),
        ([&["dead", "redrive", "--dry-run"], &queue[..]].concat(), 0),
        ([&["dead", "redrive", "--yes"], &queue[..]].concat(), 0),
        ([&["show", "nobody", "--json"], &queue[..]].concat(), 1),
        (vec!["up", "--simulate", "--check-config"], 0),
    ] {
        let process = Process::binary("genfleet").args(arguments.clone()).directory(&folder).unread().start();
        let (code, stderr) = ended(&process).await;
        assert_eq!(code, expected, "{arguments:?}: {stderr}");
        assert!(!stderr.contains("panicked") && !stderr.to_lowercase().contains("pipe"), "{arguments:?}: {stderr}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}
