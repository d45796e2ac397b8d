//! Purges on a broker: no job is lost, and few requests are sent.

use std::collections::BTreeMap;

use harness::{Amqp, Broker, Events, Prefix, eventually, seconds};

use crate::stack::{assert_all_succeeded, outcomes, publish_one_path_jobs, purge_requests, simulator, worker};

const JOBS: usize = 10_000;

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_one_path_jobs_share_at_most_a_hundred_and_fifty_requests() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    // Five times the default, so that pauses of a busy machine do not end the waiting for more paths.
    let purger = worker("purger", broker, &prefix, &simulator).args(["--batch-linger", "100ms"]).start();
    purger.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    publish_one_path_jobs(&amqp, &prefix, "one", JOBS).await;

    let by_job = outcomes(&mut events, JOBS, seconds(120)).await;
    assert_all_succeeded(&by_job);
    let requests = purge_requests(&simulator);
    assert!(requests <= 150, "{requests} purge requests");
    let paths = simulator.purge_counts();
    assert_eq!(paths.len(), JOBS);
    assert!(paths.values().all(|times| *times == 1), "no path was purged twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle_and_started_again_every_job_has_its_event() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    let first = worker("purger", broker, &prefix, &simulator).start();
    first.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    publish_one_path_jobs(&amqp, &prefix, "killed", JOBS).await;
    eventually(seconds(60), "a part of the jobs is done", async || simulator.purge_counts().len() > JOBS / 10).await;
    first.kill9();

    let second = worker("purger", broker, &prefix, &simulator).start();
    let by_job = outcomes(&mut events, JOBS, seconds(120)).await;
    assert_all_succeeded(&by_job);
    assert_eq!(simulator.purge_counts().len(), JOBS, "every path was purged");
    assert!(second.is_running());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_restart_in_the_middle_loses_nothing_and_ends_no_process() {
    let Some(mut broker) = Broker::private().await else { return };
    let prefix = Prefix::on(&broker);
    let simulator = simulator().await;
    let purger = worker("purger", &broker, &prefix, &simulator).start();
    purger.wait_ready(seconds(30)).await;
    let mut events = Events::reconnecting(broker.url(), &prefix).await;
    let amqp = Amqp::connect(broker.url()).await;
    publish_one_path_jobs(&amqp, &prefix, "restart", JOBS).await;
    eventually(seconds(60), "a part of the jobs is done", async || simulator.purge_counts().len() > JOBS / 10).await;
    broker.stop().await;
    eventually(seconds(20), "the worker says that the broker is away", async || purger.ready().await.0 == 503).await;
    broker.start().await;

    let by_job = outcomes(&mut events, JOBS, seconds(180)).await;
    assert_all_succeeded(&by_job);
    assert!(purger.is_running());
    purger.wait_ready(seconds(30)).await;
    let again: Vec<String> =
        simulator.purge_counts().into_iter().filter(|(_, times)| *times > 1).map(|(path, _)| path).collect();
    let twice = again.len();
    // Jobs whose acknowledgement the killed broker did not store are redelivered, end again, and are counted again.
    let mut ends = BTreeMap::<String, usize>::new();
    for log in purger.logs().iter().filter(|log| log["message"] == "job ended") {
        *ends.entry(log["span"]["id"].as_str().unwrap().replacen('-', "/", 1)).or_default() += 1;
    }
    let unended =
        again.iter().filter(|path| ends.get(path.trim_start_matches('/')).is_none_or(|ends| *ends < 2)).count();
    assert!(unended <= 100, "{unended} paths were purged again: at most the request whose answer was on its way");
    eventually(seconds(30), "each job is counted, and none twice that was not run twice", async || {
        let counted = purger.metrics().await.count("genfleet_jobs_total", &[("outcome", "succeeded")]);
        let most = (JOBS + twice) as u64;
        if (JOBS as u64..=most).contains(&counted) { Ok(()) } else { Err(format!("{counted} of {JOBS} to {most}")) }
    })
    .await;
    for lane in ["jobs", "resume", "suspect", "dead"] {
        assert_eq!(amqp_after(&broker).await.count(&format!("{prefix}.{lane}.cdn.purge")).await, 0, "{lane}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn asked_to_stop_under_load_it_exits_0_and_nothing_is_lost_or_doubled() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    let first = worker("purger", broker, &prefix, &simulator).args(["--drain-timeout", "10s"]).start();
    first.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    publish_one_path_jobs(&amqp, &prefix, "drain", JOBS).await;
    eventually(seconds(60), "a part of the jobs is done", async || simulator.purge_counts().len() > JOBS / 10).await;
    first.terminate();
    assert_eq!(first.wait(seconds(12)).await, 0);
    let before = simulator.purge_counts().len();
    assert!(before < JOBS, "it was stopped in the middle");

    let second = worker("purger", broker, &prefix, &simulator).start();
    let by_job = outcomes(&mut events, JOBS, seconds(120)).await;
    assert_all_succeeded(&by_job);
    assert!(by_job.values().all(|events| events.len() == 1), "one event a job");
    assert!(simulator.purge_counts().values().all(|times| *times == 1), "no path was purged twice");
    second.terminate();
    assert_eq!(second.wait(seconds(30)).await, 0);
}

async fn amqp_after(broker: &Broker) -> Amqp {
    Amqp::connect(broker.url()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_drain_time_is_over_a_job_goes_on_by_the_resume_queue_with_what_it_achieved() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    simulator.set_faults(vec!["latency=20s".parse().unwrap()]);
    let first = worker("purger", broker, &prefix, &simulator).args(["--drain-timeout", "2s"]).start();
    first.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    publish_one_path_jobs(&amqp, &prefix, "slow", 1).await;
    eventually(seconds(30), "its request is on its way", async || purge_requests(&simulator) == 1).await;
    first.terminate();
    assert_eq!(first.wait(seconds(20)).await, 0);

    assert_eq!(amqp.count(&format!("{prefix}.jobs.cdn.purge")).await, 0, "not given back as it came");
    let begun = amqp.get_all(&format!("{prefix}.resume.cdn.purge")).await;
    assert_eq!(begun.len(), 1);
    assert!(begun[0].header("genfleet-started-at").is_some());
    assert!(begun[0].header("genfleet-attempts").is_none(), "nothing was burned");
    let stderr = first.stderr();
    let is_reported = |line: &str| line.contains("audit") && !line.contains(r#""level":"INFO""#);
    assert!(!stderr.lines().any(is_reported), "{stderr}");

    simulator.set_faults(vec![]);
    let second = worker("purger", broker, &prefix, &simulator).start();
    let by_job = outcomes(&mut events, 1, seconds(60)).await;
    assert_all_succeeded(&by_job);
    assert!(second.is_running());
}
