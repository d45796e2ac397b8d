//! `genfleet load` on both queues, against a worker and the simulator.

use harness::{Broker, Launch, Prefix, Process, eventually, fresh_directory, seconds};
use serde_json::Value;

use crate::stack::{purge_requests, simulator, worker};

fn load(broker: &Broker, prefix: &Prefix, arguments: &[&str]) -> Launch {
    Process::binary("genfleet")
        .args(["load", "--json"])
        .args(arguments.iter().copied())
        .env("GENFLEET_QUEUE_URL", broker.url())
        .env("GENFLEET_QUEUE_PREFIX", prefix)
}

async fn ended(process: &Process) -> (i32, Value) {
    let code = process.wait(seconds(180)).await;
    let line = process.stdout_lines().concat();
    (code, serde_json::from_str(&line).unwrap_or_else(|_| panic!("{code}: {line} {}", process.stderr())))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_job_is_followed_to_its_event_and_measured() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    let purger = worker("purger", broker, &prefix, &simulator).start();
    purger.wait_ready(seconds(30)).await;
    let arguments = ["cdn.purge", "--jobs", "5000", "--yes", "--sim-url", &simulator.base_url()];
    let (code, output) = ended(&load(broker, &prefix, &arguments).start()).await;
    assert_eq!(code, 0, "{output}");
    assert_eq!((&output["published"], &output["succeeded"]), (&5000.into(), &5000.into()), "{output}");
    assert_eq!(
        (&output["unfinished"], &output["unconfirmed"], &output["duplicates"]),
        (&0.into(), &0.into(), &0.into())
    );
    assert_eq!(simulator.purge_counts().len(), 5000, "each job purged a path of its own");
    let received = output["apiRequests"].as_u64().unwrap();
    assert!(received >= purge_requests(&simulator) as u64, "{output}");
    assert!(output["requestsPerJob"].as_f64().unwrap() >= 1.0 && output["requestsAreShared"] == true, "{output}");
    let latency = |rank: &str| output["latencyMs"][rank].as_u64().unwrap();
    assert!(latency("p50") <= latency("p90") && latency("p90") <= latency("p99") && latency("p99") <= latency("max"));
    let waited = |rank: &str| output["queuedMs"][rank].as_u64().unwrap();
    for rank in ["p50", "p90", "p99", "max"] {
        assert!(waited(rank) <= latency(rank), "a part is more than the whole: {output}");
    }
    assert_eq!(output["queuedRough"], false, "{output}");
    assert!(output["throughput"].as_f64().unwrap() > 0.0 && output["publishRate"].as_f64().unwrap() > 0.0, "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_nobody_works_are_reported_as_unfinished() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let arguments = ["cdn.purge", "--jobs", "3", "--yes", "--timeout", "500ms"];
    let (code, output) = ended(&load(broker, &prefix, &arguments).start()).await;
    assert_eq!((code, &output["published"], &output["unfinished"]), (1, &3.into(), &3.into()), "{output}");
    assert!(output["latencyMs"].is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_on_the_way_it_tells_what_it_has() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    let purger = worker("purger", broker, &prefix, &simulator).start();
    purger.wait_ready(seconds(30)).await;
    let process = load(broker, &prefix, &["cdn.purge", "--rate", "20", "--duration", "1h", "--yes"]).start();
    eventually(seconds(30), "some are done", async || simulator.purge_counts().len() > 5).await;
    process.signal("INT");
    let (code, output) = ended(&process).await;
    assert_eq!(code, 1, "{output}");
    let published = output["published"].as_u64().unwrap();
    assert!(
        published > 0 && output["complete"] == false && output["succeeded"].as_u64().unwrap() <= published,
        "{output}"
    );
    assert!(process.stderr().contains("stopped before the end"), "{}", process.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_restarts_in_the_middle_costs_no_event() {
    let Some(mut broker) = Broker::private().await else { return };
    let prefix = Prefix::on(&broker);
    let simulator = simulator().await;
    let purger = worker("purger", &broker, &prefix, &simulator).start();
    purger.wait_ready(seconds(30)).await;
    let process = load(&broker, &prefix, &["cdn.purge", "--jobs", "3000", "--rate", "300", "--yes"]).start();
    eventually(seconds(60), "a part of the jobs is done", async || simulator.purge_counts().len() > 500).await;
    broker.stop().await;
    broker.start().await;
    let (code, output) = ended(&process).await;
    assert_eq!((code, &output["published"], &output["unfinished"]), (0, &3000.into(), &0.into()), "{output}");
    assert!(process.stderr().contains("going on once the broker is back"), "{}", process.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_reported_by_code_and_a_file_is_used_in_turn() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    simulator.set_faults(vec!["status=400,body-contains=/refused".parse().unwrap()]);
    let purger = worker("purger", broker, &prefix, &simulator).start();
    purger.wait_ready(seconds(30)).await;
    let corpus =
        "{\"paths\":[\"/taken/{number}\"]}\n{\"kind\":\"cdn.purge\",\"payload\":{\"paths\":[\"/refused/{number}\"]}}\n";
    let launch = load(broker, &prefix, &["cdn.purge", "--jobs", "10", "--yes", "--file", "-"]).stdin(corpus);
    let (code, output) = ended(&launch.start()).await;
    assert_eq!((code, &output["succeeded"], &output["failed"]), (0, &5.into(), &5.into()), "{output}");
    assert_eq!(output["codes"]["rejected"], 5, "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_queue_is_loaded_beside_its_worker() {
    let folder = fresh_directory("load");
    let store = format!("sqlite:{}", folder.join("jobs.db").display());
    let up = Process::binary("genfleet")
        .args(["up", "cdn.purge", "--simulate", "--admin-addr", "127.0.0.1:0"])
        .env("GENFLEET_QUEUE_URL", &store)
        .start();
    up.wait_ready(seconds(30)).await;
    let process = Process::binary("genfleet")
        .args(["load", "cdn.purge", "--jobs", "500", "--yes"])
        .env("GENFLEET_QUEUE_URL", &store)
        .start();
    assert_eq!(process.wait(seconds(120)).await, 0, "{}", process.stderr());
    let output = process.stdout_lines().join("\n");
    for words in ["500 of cdn.purge published", "500 succeeded", "latency     p50", "counting a shared request"] {
        assert!(output.contains(words), "{words} in {output}");
    }
    drop(up);
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_without_a_yes_or_with_a_payload_that_is_none() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let unasked = load(broker, &prefix, &["cdn.purge"]).start();
    assert_eq!(unasked.wait(seconds(20)).await, 64);
    assert!(unasked.stderr().contains("carried out for real") && unasked.stderr().contains("--yes"));
    let wrong = load(broker, &prefix, &["cdn.purge", "--yes", "--payload", r#"{"paths":["no-slash"]}"#]).start();
    assert_eq!(wrong.wait(seconds(20)).await, 1);
    assert!(wrong.stderr().contains("/payload/paths/0"), "{}", wrong.stderr());
    let internal = load(broker, &prefix, &["webhook.deliver", "--yes"]).start();
    assert_eq!(internal.wait(seconds(20)).await, 64);
}
