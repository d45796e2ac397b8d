//! Problems in the environment of a process are reported in `/readyz`, `genfleet status`, the log and the metrics.

use genfleet_simulator::SimulatorOptions;
use harness::{Amqp, Broker, Prefix, Process, Receiver, eventually, seconds};
use lapin::{
    ExchangeKind,
    options::{ExchangeDeclareOptions, ExchangeDeleteOptions},
    types::FieldTable,
};
use serde_json::Value;

use crate::stack::{outcomes, publish_one_path_jobs, simulator, simulator_with, worker};

/// Returns the text of `/readyz`, and its status.
async fn ready(process: &Process) -> (u16, String) {
    let (status, body) = process.ready().await;
    (status, body.to_string())
}

async fn status(broker: &Broker, prefix: &Prefix) -> (i32, Value) {
    let process = Process::binary("genfleet")
        .args(["status", "--json", "--check"])
        .env("GENFLEET_QUEUE_URL", broker.url())
        .env("GENFLEET_QUEUE_PREFIX", prefix)
        .start();
    let code = process.wait(seconds(20)).await;
    (code, serde_json::from_str(&process.stdout_lines().concat()).unwrap_or_else(|_| panic!("{}", process.stderr())))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_says_what_the_requests_came_to() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let faults = vec!["status=503".parse().unwrap()];
    let simulator = simulator_with(SimulatorOptions { faults, ..SimulatorOptions::default() }).await;
    let purger = worker("purger", broker, &prefix, &simulator).args(["--batch-linger", "0ms"]).start();
    purger.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    publish_one_path_jobs(&amqp, &prefix, "outage", 40).await;
    eventually(seconds(30), "/readyz says why, and that the process is ready", async || {
        let (status, output) = ready(&purger).await;
        let so = status == 200 && output.contains("Genesys Cloud is not answering: 503 ×");
        if so { Ok(()) } else { Err(format!("{status} {output}")) }
    })
    .await;
    eventually(seconds(20), "status says why", async || {
        let (code, seen) = status(broker, &prefix).await;
        let why = seen["processes"][0]["shut"][0]["why"].as_str().unwrap_or_default().to_owned();
        let so = code == 1 && why.contains("503 ×") && seen["problems"].to_string().contains("503 ×");
        if so { Ok(()) } else { Err(seen.to_string()) }
    })
    .await;
    let opened =
        purger.logs().into_iter().find(|log| log["message"] == "Genesys Cloud is not answering: only probes are sent");
    assert!(opened.is_some_and(|log| log["causes"].as_str().unwrap().starts_with("503 ×")), "{}", purger.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_off_is_reported_everywhere() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let (simulator, api) = (simulator().await, Receiver::start().await);
    api.answer("202 Accepted\r\ndate: Mon, 01 Jan 2024 00:00:00 GMT");
    let purger = worker("purger", broker, &prefix, &simulator)
        .env("GENESYS_BASE_URL", &api.url())
        .env("GENESYS_TOKEN_URL", &format!("{}/oauth/token", simulator.base_url()))
        .start();
    purger.wait_ready(seconds(30)).await;
    assert!(purger.metrics().await.get("genfleet_clock_offset_seconds").unwrap().is_nan(), "nobody knows");
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    publish_one_path_jobs(&amqp, &prefix, "clock", 1).await;
    outcomes(&mut events, 1, seconds(30)).await;
    let ahead = purger.metrics().await.get("genfleet_clock_offset_seconds").unwrap();
    assert!(ahead > 86_400.0, "{ahead}");
    let (code, output) = ready(&purger).await;
    assert!(code == 200 && output.contains("s ahead of the API's"), "{code} {output}");
    assert!(purger.stderr().contains("s ahead of the API's: set it by NTP"), "{}", purger.stderr());
    eventually(seconds(20), "status says so", async || {
        let (code, seen) = status(broker, &prefix).await;
        let so = code == 1 && seen["problems"].to_string().contains("s ahead of the API's");
        if so { Ok(()) } else { Err(seen.to_string()) }
    })
    .await;
    // A job that expires may be affected by it.
    let late = r#"{"id":"late","deadline":"2024-01-01T00:05:00Z","payload":{"paths":["/late"]}}"#;
    amqp.publish_job(&prefix, "cdn.purge", late, harness::json_properties()).await;
    let event = &outcomes(&mut events, 1, seconds(30)).await["late"][0]["data"];
    assert_eq!(event["outcome"], "expired");
    assert!(event["error"]["message"].as_str().unwrap().contains("s ahead of the API's"), "{event}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_that_is_gone_is_declared_again_or_reported() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    let start = |mode: &str| {
        worker("purger", broker, &prefix, &simulator).args(["--queue-watchdog", "2s", "--topology", mode]).start()
    };
    let declaring = start("declare");
    declaring.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let dead = format!("{prefix}.dead");
    let delete = async || {
        amqp.channel().exchange_delete(dead.as_str().into(), ExchangeDeleteOptions::default()).await.unwrap();
    };
    delete().await;
    eventually(seconds(20), "it is declared again", async || {
        declaring.stderr().contains("a part of the topology was gone: it is declared again")
    })
    .await;
    // With the bindings, so that a failed job has a dead letter.
    let mut events = amqp.declare_events_queue(&prefix).await;
    amqp.publish_job(&prefix, "cdn.purge", r#"{"id":"bad","payload":{}}"#, harness::json_properties()).await;
    outcomes(&mut events, 1, seconds(30)).await;
    let shelf = format!("{dead}.cdn.purge");
    eventually(seconds(10), "its dead letter is there", async || amqp.count(&shelf).await == 1).await;
    declaring.terminate();
    assert_eq!(declaring.wait(seconds(30)).await, 0);

    let verifying = start("verify");
    verifying.wait_ready(seconds(30)).await;
    delete().await;
    eventually(seconds(20), "/readyz says what is gone", async || {
        let (status, output) = ready(&verifying).await;
        let so =
            status == 503 && output.contains(&format!("no exchange '{dead}'")) && output.contains("--topology declare");
        if so { Ok(()) } else { Err(format!("{status} {output}")) }
    })
    .await;
    let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
    amqp.channel().exchange_declare(dead.into(), ExchangeKind::Topic, durable, FieldTable::default()).await.unwrap();
    verifying.wait_ready(seconds(20)).await;
    let reconnects = verifying.metrics().await.sum("genfleet_broker_reconnects_total", &[]);
    assert!(reconnects.abs() < f64::EPSILON, "no session was lost over it: {reconnects}");
}
