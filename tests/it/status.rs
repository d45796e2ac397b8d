//! `genfleet status` on both queues: waiting and running jobs, pauses and holds, live processes.

use genfleet_simulator::SimulatorOptions;
use harness::{Amqp, Broker, Prefix, Process, eventually, seconds};
use serde_json::{Value, json};

use crate::stack::{publish_one_path_jobs, simulator_with, worker};

const STORE: &str = "sqlite:status.db";

fn status(url: &str, prefix: &str, arguments: &[&str]) -> harness::Launch {
    Process::binary("genfleet")
        .args(["status"])
        .args(arguments.iter().copied())
        .env("GENFLEET_QUEUE_URL", url)
        .env("GENFLEET_QUEUE_PREFIX", prefix)
}

async fn output(launch: harness::Launch) -> (i32, String, String) {
    let tool = launch.start();
    let code = tool.wait(seconds(60)).await;
    (code, tool.stdout_lines().join("\n"), tool.stderr())
}

async fn json_of(url: &str, prefix: &str) -> Value {
    let (code, shown, error) = output(status(url, prefix, &["--json"])).await;
    assert_eq!(code, 0, "{error}");
    serde_json::from_str(&shown).unwrap_or_else(|error| panic!("{error}: {shown}"))
}

fn of_kind<'a>(seen: &'a Value, kind: &str) -> &'a Value {
    seen["kinds"].as_array().unwrap().iter().find(|each| each["kind"] == kind).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fleet_is_seen_with_what_waits_runs_and_holds_it_up() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let faults = vec!["status=429,limit=client,retry-after=120,body-contains=/shut/".parse().unwrap()];
    let simulator = simulator_with(SimulatorOptions { faults, ..SimulatorOptions::default() }).await;
    let start = || worker("purger", broker, &prefix, &simulator).start();
    let (one, other) = (start(), start());
    one.wait_ready(seconds(30)).await;
    other.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    publish_one_path_jobs(&amqp, &prefix, "done", 30).await;
    crate::stack::outcomes(&mut events, 30, seconds(60)).await;
    let seen = json_of(broker.url(), &prefix).await;
    assert_eq!((&seen["queue"], &seen["alive"], &seen["delayed"]), (&json!("rabbitmq"), &json!(2), &json!(0)));
    let verified = |seen: &Value| {
        let processes = seen["processes"].as_array().unwrap();
        processes.iter().map(|process| process["verified"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(verified(&seen), [json!(false), json!(false)], "without a secret nobody can be known");
    let known = status(broker.url(), &prefix, &["--json"]).env("GENESYS_CLIENT_ID", "client");
    let (_, shown, error) = output(known.env("GENESYS_CLIENT_SECRET", "hush")).await;
    assert_eq!(verified(&serde_json::from_str(&shown).unwrap()), [json!(true), json!(true)], "{error}");
    let purge = of_kind(&seen, "cdn.purge");
    assert_eq!((&purge["waiting"], &purge["dead"], &purge["endedLastMinute"]), (&json!(0), &json!(0), &json!(30)));
    assert_eq!((&purge["processes"], &of_kind(&seen, "file.scan")["processes"]), (&json!(2), &json!(0)));
    assert!(seen["clients"][0]["requestsLastMinute"].as_u64().unwrap() >= 1, "{seen}");
    assert_eq!((&purge["held"], &seen["problems"]), (&json!(0), &json!([])));
    let (code, shown, error) = output(status(broker.url(), &prefix, &["--check"])).await;
    assert_eq!(code, 0, "a sound fleet: {shown}{error}");

    publish_one_path_jobs(&amqp, &prefix, "shut", 40).await;
    eventually(seconds(30), "both are shut, and both say so", async || {
        let seen = json_of(broker.url(), &prefix).await;
        let shut = |process: &Value| process["shut"][0]["reason"] == "throttled";
        let all = seen["processes"].as_array().unwrap().iter().all(shut);
        if all && seen["alive"] == 2 { Ok(()) } else { Err(seen.to_string()) }
    })
    .await;
    let (code, shown, _) = output(status(broker.url(), &prefix, &["--check"])).await;
    assert!(code == 1 && shown.contains("a pause is in force at "), "{code}: {shown}");
    let (code, shown, _) = output(status(broker.url(), &prefix, &[])).await;
    assert_eq!(code, 0);
    for part in [
        "KIND ",
        "cdn.purge ",
        "2 processes are alive",
        "purger",
        "shut: throttled",
        "its limit is closed for another 1",
    ] {
        assert!(shown.contains(part), "{part:?} is not in\n{shown}");
    }
    assert!(!shown.contains('\u{1b}'), "no colours where there is no terminal");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_nobody_alive_what_waits_is_counted_and_missing_queues_are_reported() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let (code, _, error) = output(status(broker.url(), &prefix, &[])).await;
    assert!(code == 1 && error.contains(".jobs.cdn.purge") && error.contains("--queue-prefix"), "{code}: {error}");
    let enqueued = Process::binary("genfleet")
        .args(["enqueue", "cdn.purge", "--payload", r#"{"paths":["/waiting"]}"#])
        .env("GENFLEET_QUEUE_URL", broker.url())
        .env("GENFLEET_QUEUE_PREFIX", &prefix)
        .start();
    assert_eq!(enqueued.wait(seconds(60)).await, 0, "{}", enqueued.stderr());
    let (code, shown, _) = output(status(broker.url(), &prefix, &[])).await;
    assert!(code == 0 && shown.contains("no process is alive"), "{shown}");
    let (code, shown, _) = output(status(broker.url(), &prefix, &["--check"])).await;
    assert!(code == 1 && shown.contains("no process works cdn.purge: 1 job waits"), "{code}: {shown}");
    assert_eq!(of_kind(&json_of(broker.url(), &prefix).await, "cdn.purge")["waiting"], 1);
    let (code, _, error) = output(status("amqp://127.0.0.1:1", "any", &["--check"])).await;
    assert!(code == 1 && error.contains("hint:"), "{code}: {error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn under_an_alarm_the_counts_are_shown_and_nobody_is_said_to_be_dead() {
    const UNASKED: &str = "processes cannot be asked: the broker takes no publications (alarm)";
    let Some(broker) = Broker::private().await else { return };
    let prefix = Prefix::on(&broker);
    let simulator = simulator_with(SimulatorOptions::default()).await;
    let purger = worker("purger", &broker, &prefix, &simulator).start();
    purger.wait_ready(seconds(30)).await;
    broker.ctl(&["set_vm_memory_high_watermark", "absolute", "10MB"]).await;
    let (code, shown, error) = eventually(seconds(30), "the alarm is reported", async || {
        let output = output(status(broker.url(), &prefix, &[])).await;
        if output.1.contains(UNASKED) { Ok(output) } else { Err(format!("{output:?}")) }
    })
    .await;
    assert!(
        code == 0 && !shown.contains("no process is alive") && !shown.contains("no process works"),
        "{shown}{error}"
    );
    let row = |line: &str| line.split_whitespace().take(5).eq(["cdn.purge", "0", "-", "-", "0"]);
    assert!(shown.lines().any(row), "{shown}");
    let (code, shown, _) = output(status(broker.url(), &prefix, &["--check", "--json"])).await;
    let seen: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((code, &seen["problems"], &seen["processes"]), (1, &json!([UNASKED]), &Value::Null));

    let doctor = Process::binary("genfleet").args(["doctor", "cdn.purge"]).env("GENFLEET_QUEUE_URL", broker.url());
    let (code, shown, _) = output(doctor.env("GENFLEET_QUEUE_PREFIX", &prefix)).await;
    assert!(code == 1 && shown.contains("the broker takes no publications (an alarm"), "{code}: {shown}");

    let payload = r#"{"paths":["/a"]}"#;
    let enqueue = Process::binary("genfleet")
        .args(["enqueue", "cdn.purge", "--id", "unsure", "--timeout", "1s", "--payload", payload])
        .env("GENFLEET_QUEUE_URL", broker.url())
        .env("GENFLEET_QUEUE_PREFIX", &prefix);
    let (code, _, error) = output(enqueue).await;
    let is_reported = ["job unsure: not confirmed within 1s", "It may or may not be on the queue", "alarm"];
    assert!(code == 1 && is_reported.iter().all(|part| error.contains(part)), "{code}: {error}");

    let watching = status(broker.url(), &prefix, &["--watch", "200ms", "--json"]).start();
    eventually(seconds(20), "the watch tells it, too", async || {
        watching.stdout_lines().iter().any(|line| line.contains(UNASKED))
    })
    .await;
    broker.ctl(&["set_vm_memory_high_watermark", "absolute", "2GB"]).await;
    eventually(seconds(30), "the watch hears the process once it can be asked", async || {
        let last = watching.stdout_lines().pop().unwrap();
        let seen: Value = serde_json::from_str(&last).unwrap();
        if seen["alive"] == 1 { Ok(()) } else { Err(last) }
    })
    .await;
    watching.signal("INT");
    assert_eq!(watching.wait(seconds(20)).await, 0);
    let (code, shown, _) = output(status(broker.url(), &prefix, &[])).await;
    assert!(code == 0 && shown.contains("1 process is alive"), "{code}: {shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_the_embedded_queue_the_one_process_is_seen_until_it_is_gone() {
    let up = Process::binary("genfleet")
        .args(["up", "--simulate", "--sim-latency", "2s", "--admin-addr", "127.0.0.1:0", "--queue-url", STORE])
        .start();
    up.wait_ready(seconds(30)).await;
    let enqueue = async || {
        let tool = Process::binary("genfleet")
            .args(["enqueue", "cdn.purge", "--payload", r#"{"paths":["/a"]}"#, "--queue-url", STORE])
            .directory(up.directory())
            .start();
        assert_eq!(tool.wait(seconds(30)).await, 0, "{}", tool.stderr());
    };
    let seen = async || {
        let (code, shown, error) = output(status(STORE, "any", &["--json"]).directory(up.directory())).await;
        assert_eq!(code, 0, "{error}");
        serde_json::from_str::<Value>(&shown).unwrap()
    };
    enqueue().await;
    eventually(seconds(20), "it runs", async || {
        let seen = seen().await;
        let purge = of_kind(&seen, "cdn.purge");
        let runs = purge["running"] == 1 && purge["held"] == 1 && seen["alive"] == 1;
        if runs { Ok(()) } else { Err(seen.to_string()) }
    })
    .await;
    let now = seen().await;
    assert_eq!(now["processes"][0]["worker"], "genfleet up");
    assert_eq!(output(status(STORE, "any", &["--check"]).directory(up.directory())).await.0, 0, "{now}");
    let expecting = async || {
        let asked = status(STORE, "any", &["--expect", "file.scan"]).env("GENFLEET_EXPECT", "vni.provision");
        output(asked.directory(up.directory())).await
    };
    // The first notice of a process that starts names no kinds yet.
    eventually(seconds(20), "it works the kind", async || {
        let (code, shown, _) = expecting().await;
        if code == 0 { Ok(()) } else { Err(shown) }
    })
    .await;
    enqueue().await;
    eventually(seconds(20), "the process counts what it holds", async || {
        up.metrics().await.count("genfleet_jobs_held", &[("kind", "cdn.purge")]) >= 1
    })
    .await;
    up.kill9();
    enqueue().await;
    eventually(seconds(30), "nobody is alive", async || seen().await["alive"] == 0).await;
    let waiting = seen().await;
    let purge = of_kind(&waiting, "cdn.purge");
    assert_eq!((&purge["running"], &waiting["queue"]), (&json!(0), &json!("sqlite")));
    assert!(purge["waiting"].as_u64().unwrap() >= 1, "what waits can still be seen: {waiting}");
    let (code, shown, _) = output(status(STORE, "any", &[]).directory(up.directory())).await;
    assert!(code == 0 && shown.contains("no process is alive"), "{shown}");
    let (code, shown, _) = output(status(STORE, "any", &["--check"]).directory(up.directory())).await;
    assert!(code == 1 && shown.contains("no process works cdn.purge"), "{code}: {shown}");
    let (code, shown, _) = expecting().await;
    assert!(
        code == 1 && shown.contains("no process works file.scan, which is expected"),
        "no job of it waits: {shown}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_stops_takes_its_notice_with_it_and_a_store_that_is_not_there_is_none() {
    let up = Process::binary("genfleet")
        .args(["up", "--simulate", "--admin-addr", "127.0.0.1:0", "--queue-url", STORE])
        .start();
    up.wait_ready(seconds(30)).await;
    let notice = up.directory().join("status.db.notice");
    eventually(seconds(10), "the notice is there", async || notice.exists()).await;
    up.terminate();
    assert_eq!(up.wait(seconds(30)).await, 0);
    assert!(!notice.exists());
    let (code, _, error) = output(status("sqlite:nowhere.db", "any", &[]).directory(up.directory())).await;
    assert!(code == 64 && error.contains("nowhere.db"), "{code}: {error}");
    assert!(!up.directory().join("nowhere.db").exists(), "looking makes no store");
}

#[tokio::test(flavor = "multi_thread")]
async fn watched_it_is_shown_again_and_again_until_it_is_stopped() {
    let up = Process::binary("genfleet")
        .args(["up", "--simulate", "--admin-addr", "127.0.0.1:0", "--queue-url", STORE])
        .start();
    up.wait_ready(seconds(30)).await;
    let watching = status(STORE, "any", &["--watch", "100ms", "--json"]).directory(up.directory()).start();
    eventually(seconds(20), "it was shown three times", async || watching.stdout_lines().len() >= 3).await;
    watching.signal("INT");
    assert_eq!(watching.wait(seconds(20)).await, 0);
    for line in watching.stdout_lines() {
        let seen: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(seen["queue"], "sqlite");
    }
}
