//! An API that throttles, fails and loses answers: all jobs succeed, and no requests are sent during a pause.

use genfleet_simulator::{RecordedRequest, Simulator, SimulatorOptions};
use harness::{Amqp, Broker, Prefix, eventually, seconds};

use crate::stack::{Stack, assert_all_succeeded, outcomes, publish_one_path_jobs, purge_job, simulator_with, worker};

#[tokio::test(flavor = "multi_thread")]
async fn a_fifth_throttled_a_tenth_unavailable_a_twentieth_lost_and_everything_succeeds() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let faults = ["status=429,rate=0.2,retry-after=2", "status=503,rate=0.1", "lost,rate=0.05"];
    let faults = faults.iter().map(|rule| rule.parse().unwrap()).collect();
    let simulator = simulator_with(SimulatorOptions { faults, ..SimulatorOptions::default() }).await;
    let purger = worker("purger", broker, &prefix, &simulator).start();
    purger.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    publish_one_path_jobs(&amqp, &prefix, "faulty", 3_000).await;

    let by_job = outcomes(&mut events, 3_000, seconds(180)).await;
    assert_all_succeeded(&by_job);
    assert_eq!(amqp.count(&format!("{prefix}.dead.cdn.purge")).await, 0);
    assert_nothing_was_sent_while_shut(&simulator.requests(), 2);
}

/// Between a 429 and the end of its `Retry-After` no request arrives. A second is granted for requests in transit, on a
/// machine that is busy with other tests.
fn assert_nothing_was_sent_while_shut(requests: &[RecordedRequest], retry_after: u64) {
    let throttled: Vec<u64> =
        requests.iter().filter(|request| request.status == Some(429)).map(|request| request.at_us).collect();
    assert!(!throttled.is_empty(), "the test wants some 429");
    for at in throttled {
        let shut = at + 1_000_000..at + retry_after * 1_000_000;
        let early: Vec<_> =
            requests.iter().filter(|request| shut.contains(&request.at_us)).map(|request| request.at_us - at).collect();
        assert!(early.is_empty(), "sent while shut, µs after the 429: {early:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_credentials_are_bad_jobs_wait_and_nothing_is_burned() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let client = Some(("client".to_owned(), "right".to_owned()));
    let simulator = simulator_with(SimulatorOptions { client, ..SimulatorOptions::default() }).await;
    let folder = tempfile_with("wrong");
    let secret = folder.to_str().unwrap();
    let purger = worker("purger", broker, &prefix, &simulator)
        .env("GENESYS_CLIENT_SECRET", "")
        .env("GENESYS_CLIENT_SECRET_FILE", secret)
        .args(["--credentials-probe", "500ms"])
        .start();
    purger.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    publish_one_path_jobs(&amqp, &prefix, "waiting", 20).await;
    eventually(seconds(10), "the brake shows", async || purger.ready().await.0 == 503).await;
    assert!(events.next_message(seconds(1)).await.is_none(), "no job ended");
    std::fs::write(&folder, "").unwrap();
    eventually(seconds(10), "what is wrong now is reported", async || {
        purger.ready().await.1.to_string().contains("GENESYS_CLIENT_SECRET_FILE names")
    })
    .await;
    std::fs::write(&folder, "right\n").unwrap();
    eventually(seconds(10), "the rotated secret is seen", async || purger.ready().await.0 == 200).await;
    let by_job = outcomes(&mut events, 20, seconds(60)).await;
    assert_all_succeeded(&by_job);
    assert!(by_job.values().all(|events| events[0]["data"]["attempts"] == 1), "no attempt was burned");
    let _ = std::fs::remove_file(folder);
}

fn tempfile_with(content: &str) -> std::path::PathBuf {
    let path = std::env::temp_dir().join(format!("genfleet-secret-{}", uuid::Uuid::new_v4()));
    std::fs::write(&path, content).unwrap();
    path
}

/// Starts a purger with a simulator that has this fault.
async fn start_with(fault: &str) -> Stack {
    let faults = vec![fault.parse().unwrap()];
    let simulator = simulator_with(SimulatorOptions { faults, ..SimulatorOptions::default() }).await;
    let launch = |broker: &Broker, prefix: &Prefix, simulator: &Simulator| {
        worker("purger", broker, prefix, simulator).args(["--forbidden-probe", "1s"])
    };
    Stack::start(simulator, launch).await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_jobs_that_may_not_purge_five_fail_and_the_rest_wait() {
    let mut stack = start_with("status=403").await;
    publish_one_path_jobs(&stack.amqp, &stack.prefix, "forbidden", 60).await;
    let failed = stack.outcomes(5, seconds(20)).await;
    assert!(failed.values().all(|events| events[0]["data"]["error"]["code"] == "forbidden"));
    let output = failed.values().next().unwrap()[0]["data"]["error"]["message"].as_str().unwrap().to_owned();
    assert!(output.contains("purge:cdn:write"), "{output}");
    assert!(stack.events.next_message(seconds(3)).await.is_none(), "the rest waits");
    stack.simulator.set_faults(vec![]);
    let rest = stack.outcomes(55, seconds(60)).await;
    assert_all_succeeded(&rest);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_holds_no_job_is_ready_and_its_next_job_tries_what_was_forbidden() {
    let mut stack = start_with("status=403").await;
    publish_one_path_jobs(&stack.amqp, &stack.prefix, "forbidden", 5).await;
    stack.outcomes(5, seconds(20)).await;
    eventually(seconds(10), "it is not ready", async || stack.process.ready().await.0 == 503).await;
    eventually(seconds(30), "it is ready, since no job waits", async || {
        let (status, said) = stack.process.ready().await;
        let is_reported =
            said.to_string().contains("cdn.purge was forbidden on /api/v2/external/cdn/purge; the next job");
        if status == 200 && is_reported { Ok(()) } else { Err(format!("{status} {said}")) }
    })
    .await;
    stack.simulator.set_faults(vec![]);
    publish_one_path_jobs(&stack.amqp, &stack.prefix, "permitted", 20).await;
    assert_all_succeeded(&stack.outcomes(20, seconds(30)).await);
    assert!(!stack.process.ready().await.1.to_string().contains("forbidden"), "the hold is over");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_path_fails_its_own_job_and_no_other() {
    let mut stack = start_with("status=400,body-contains=/bad/").await;
    publish_one_path_jobs(&stack.amqp, &stack.prefix, "good", 150).await;
    stack.publish("cdn.purge", purge_job("guilty", &["/fine/1", "/bad/2", "/fine/3"])).await;
    publish_one_path_jobs(&stack.amqp, &stack.prefix, "alsogood", 150).await;
    let by_job = stack.outcomes(301, seconds(60)).await;
    for (job, events) in &by_job {
        let expected = if job == "guilty" { "failed" } else { "succeeded" };
        assert_eq!(events[0]["data"]["outcome"], expected, "{job}");
    }
    let error = &by_job["guilty"][0]["data"]["error"];
    assert_eq!(error["code"], "rejected");
    assert!(error["message"].as_str().unwrap().contains("/bad/2"), "{error}");
    assert!(stack.simulator.purge_counts().values().all(|times| *times == 1), "splitting purged nothing twice");
}
