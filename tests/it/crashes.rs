//! A job that kills its process is recognised and set aside, and no other job is, whatever else fails.

use std::time::Duration;

use harness::{Amqp, Broker, Events, Prefix, Process, eventually, json_properties, seconds};
use tokio::time::Instant;

use crate::stack::{
    assert_all_succeeded, outcomes, publish_one_path_jobs, purge_job, random_moment, simulator, worker,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_poison_job_among_five_hundred_ends_as_a_crash_loop_and_they_succeed() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    let start = || worker("poison-purger", broker, &prefix, &simulator).start();
    let mut purger = start();
    purger.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    publish_one_path_jobs(&amqp, &prefix, "before", 250).await;
    amqp.publish_job(&prefix, "cdn.purge", purge_job("poison", &["/poison"]), json_properties()).await;
    publish_one_path_jobs(&amqp, &prefix, "after", 250).await;

    let mut deaths = 0;
    let mut by_job = std::collections::BTreeMap::new();
    let deadline = Instant::now() + seconds(120);
    while by_job.len() < 501 {
        assert!(Instant::now() < deadline, "{} of 501 jobs ended after {deaths} deaths", by_job.len());
        if purger.exit_code().is_some() || !purger.is_running() {
            deaths += 1;
            purger = start();
        }
        while let Some(message) = events.next_message(Duration::from_millis(200)).await {
            let event = message.json();
            by_job.insert(event["subject"].as_str().unwrap().to_owned(), event);
        }
    }
    let poison = by_job.remove("poison").unwrap();
    assert_eq!(poison["data"]["error"]["code"], "crash_loop");
    assert!(by_job.values().all(|event| event["data"]["outcome"] == "succeeded"));
    assert!((3..=8).contains(&deaths), "{deaths} deaths");
    let dead = amqp.get_all(&format!("{prefix}.dead.cdn.purge")).await;
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].header("genfleet-reason").as_deref(), Some("crash_loop"));
    eventually(seconds(10), "it goes on", async || purger.is_running()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_burns_the_attempt_and_not_the_process() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    let purger = worker("poison-purger", broker, &prefix, &simulator).args(["--retry-initial", "20ms"]).start();
    purger.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    let job = r#"{"id":"panics","maxAttempts":2,"payload":{"paths":["/panic"]}}"#;
    amqp.publish_job(&prefix, "cdn.purge", job, json_properties()).await;
    amqp.publish_job(&prefix, "cdn.purge", purge_job("good", &["/good"]), json_properties()).await;
    let by_job = outcomes(&mut events, 2, seconds(30)).await;
    let output = &by_job["panics"][0]["data"];
    assert_eq!(output["error"]["code"], "attempts_exhausted");
    assert_eq!(output["error"]["cause"], "panicked");
    assert_eq!(output["attempts"], 2);
    assert_eq!(by_job["good"][0]["data"]["outcome"], "succeeded");
    assert!(purger.is_running());
}

/// Alternately, twenty times: the worker is killed, the worker is stopped, the broker is restarted.
#[tokio::test(flavor = "multi_thread")]
async fn twenty_restarts_of_broker_and_worker_under_load_convict_nobody() {
    const ROUNDS: usize = 20;
    const JOBS_A_ROUND: usize = 400;
    let Some(mut broker) = Broker::private().await else { return };
    let prefix = Prefix::on(&broker);
    let simulator = simulator().await;
    let mut purger = worker("purger", &broker, &prefix, &simulator).start();
    purger.wait_ready(seconds(30)).await;
    let mut events = Events::reconnecting(broker.url(), &prefix).await;
    for round in 0..ROUNDS {
        let amqp = Amqp::connect(broker.url()).await;
        publish_one_path_jobs(&amqp, &prefix, &format!("round{round}"), JOBS_A_ROUND).await;
        let begun = format!("/round{round}/");
        eventually(seconds(60), "this round's jobs have begun", async || {
            simulator.purge_counts().keys().any(|path| path.starts_with(&begun))
        })
        .await;
        match round % 4 {
            0 | 2 => {
                purger.kill9();
                purger = worker("purger", &broker, &prefix, &simulator).start();
            }
            1 => {
                purger.terminate();
                assert_eq!(purger.wait(seconds(30)).await, 0);
                purger = worker("purger", &broker, &prefix, &simulator).start();
            }
            _ => {
                broker.stop().await;
                broker.start().await;
            }
        }
    }
    let by_job = outcomes(&mut events, ROUNDS * JOBS_A_ROUND, seconds(180)).await;
    assert_all_succeeded(&by_job);
    let amqp = Amqp::connect(broker.url()).await;
    assert_eq!(amqp.count(&format!("{prefix}.dead.cdn.purge")).await, 0);
}

/// The broker hands over no more than the prefetch before it is told that deliveries are settled: whatever a crash repeats is
/// among those, however many are settled together.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_at_random_under_full_load_loses_nothing_and_repeats_only_what_was_in_flight() {
    const JOBS: usize = 12_000;
    const KILLS: usize = 6;
    const IN_FLIGHT: usize = 256;
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    // Jobs that share requests end together, the others one by one.
    let start = |life: usize| -> Process {
        let linger = if life.is_multiple_of(2) { "5ms" } else { "0ms" };
        let in_flight = IN_FLIGHT.to_string();
        worker("purger", broker, &prefix, &simulator)
            .args(["--concurrency", &in_flight, "--batch-linger", linger])
            .start()
    };
    let mut process = start(0);
    process.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    publish_one_path_jobs(&amqp, &prefix, "load", JOBS).await;
    for life in 0..KILLS {
        let (least, more) = if life.is_multiple_of(2) { (3, 15) } else { (100, 400) };
        random_moment(&simulator, least, more).await;
        process.kill9();
        process = start(life + 1);
    }

    let mut by_job = outcomes(&mut events, JOBS, seconds(180)).await;
    // A job that ended may have a second message, which a process that stops leaves where it waits.
    for lane in ["jobs", "resume", "suspect"] {
        eventually(seconds(60), format!("nothing waits in {lane}"), async || {
            amqp.count(&format!("{prefix}.{lane}.cdn.purge")).await == 0
        })
        .await;
    }
    process.terminate();
    assert_eq!(process.wait(seconds(60)).await, 0);
    while let Some(message) = events.next_message(Duration::from_millis(500)).await {
        let event = message.json();
        by_job.entry(event["subject"].as_str().unwrap().to_owned()).or_default().push(event);
    }
    assert_all_succeeded(&by_job);
    let events: usize = by_job.values().map(Vec::len).sum();
    let paths = simulator.purge_counts();
    assert_eq!((by_job.len(), paths.len()), (JOBS, JOBS));
    let times: u64 = paths.values().sum();
    let (told_again, purged_again) = (events - JOBS, usize::try_from(times).unwrap() - JOBS);
    println!("{KILLS} kills: {told_again} events and {purged_again} paths repeated");
    assert!(told_again <= KILLS * IN_FLIGHT, "{told_again} events were repeated");
    assert!(purged_again <= KILLS * IN_FLIGHT, "{purged_again} paths were purged again");
    for lane in ["resume", "suspect", "dead"] {
        assert_eq!(amqp.count(&format!("{prefix}.{lane}.cdn.purge")).await, 0, "{lane}");
    }
}
