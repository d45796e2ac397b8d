//! Hostile and very large jobs: the memory of a worker stays bounded, and other jobs are not delayed.

use std::{sync::Arc, time::Duration};

use genfleet_simulator::Simulator;
use harness::{Amqp, Broker, Events, Prefix, Process, json_properties, seconds};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::stack::{outcomes, simulator, worker};

const MEGABYTE: usize = 1024 * 1024;
/// Additional memory for one body of a megabyte, or for four that are far too large.
const MOST_KB: u64 = 150 * 1024;
/// Additional memory for eight bodies of a megabyte at once.
const MOST_FOR_EIGHT_KB: u64 = 200 * 1024;

struct Rig {
    worker: Arc<Process>,
    amqp: Amqp,
    events: Events,
    prefix: Prefix,
    kind: &'static str,
    idle_kb: u64,
    _simulator: Simulator,
}

impl Rig {
    async fn new(binary: &str, kind: &'static str) -> Self {
        let broker = Broker::shared().await;
        let prefix = Prefix::on(broker);
        let simulator = simulator().await;
        let worker = worker(binary, broker, &prefix, &simulator).start();
        worker.wait_ready(seconds(60)).await;
        let amqp = Amqp::connect(broker.url()).await;
        let events = amqp.declare_events_queue(&prefix).await;
        let idle_kb = worker.rss_kb();
        Self { worker: worker.into(), amqp, events, prefix, kind, idle_kb, _simulator: simulator }
    }

    /// Publishes all of them at once; returns their events, and the maximum additional memory in kB.
    async fn costs(&mut self, bodies: &[(String, Vec<u8>)]) -> (Vec<Value>, u64) {
        self.worker.forget_peak();
        for (id, body) in bodies {
            let properties = json_properties().with_message_id(id.as_str().into());
            self.amqp.publish_job(&self.prefix, self.kind, body, properties).await;
        }
        let by_job = outcomes(&mut self.events, bodies.len(), seconds(60)).await;
        let events = bodies.iter().map(|(id, _)| by_job[id][0].clone()).collect();
        (events, self.worker.peak_rss_kb().saturating_sub(self.idle_kb))
    }

    /// The same with liveness checks; also returns the longest time of an answer.
    async fn costs_and_lives(&mut self, bodies: &[(String, Vec<u8>)]) -> (Vec<Value>, u64, Duration) {
        let worker = Arc::clone(&self.worker);
        let mut longest = Duration::ZERO;
        let asking = async {
            loop {
                let asked = Instant::now();
                assert_eq!(worker.get("/livez").await.unwrap().0, 200);
                longest = longest.max(asked.elapsed());
                sleep(Duration::from_millis(20)).await;
            }
        };
        let (events, cost) = tokio::select! {
            costs = self.costs(bodies) => costs,
            () = asking => unreachable!("it asks for ever"),
        };
        (events, cost, longest)
    }
}

/// Returns a megabyte of JSON: `begin`, then `part` as often as it fits, then `end`.
fn filled(begin: &str, part: &str, end: &str) -> Vec<u8> {
    let count = (MEGABYTE - begin.len() - end.len() + 1) / (part.len() + 1);
    let mut parts = part.to_owned();
    (1..count).for_each(|_| {
        parts.push(',');
        parts.push_str(part);
    });
    format!("{begin}{parts}{end}").into_bytes()
}

fn hostile() -> Vec<(String, Vec<u8>)> {
    let nested = "[".repeat(60) + &"]".repeat(60);
    let csp = format!("\"img-src{}\"", " ;".repeat(4_000).replace(';', "'"));
    // The maximum number, with five mistakes in each.
    let wrong = r#"{"sourceField":1,"targetField":2,"type":3,"path":4,"x":5}"#;
    let members: Vec<String> = (0..80_000).map(|n| format!("\"{n:x}\":[]")).collect();
    [
        ("numbers", filled(r#"{"id":"numbers","payload":{"paths":["#, "0", "]}}")),
        ("objects", filled(r#"{"id":"objects","payload":{"paths":[],"transformations":["#, "{}", "]}}")),
        ("nested", filled(r#"{"id":"nested","payload":{"sampleEvent":["#, &nested, "]}}")),
        ("deep", vec![b'['; MEGABYTE]),
        ("id", filled(r#"{"id":["#, "[]", "]}")),
        ("members", format!("{{\"id\":\"members\",\"payload\":{{{}}}}}", members.join(",")).into_bytes()),
        ("texts", filled(r#"{"id":"texts","payload":{"security":{"cspHeaders":["#, &csp, "]}}}")),
        ("entries", filled(r#"{"id":"entries","payload":{"filters":[{"conditions":["#, r#"{"x":1,"y":2}"#, "]}]}}")),
        (
            "wrong",
            format!(r#"{{"id":"wrong","payload":{{"transformations":[{}]}}}}"#, vec![wrong; 10_000].join(",")).into(),
        ),
    ]
    .map(|(id, body)| (id.to_owned(), body))
    .into()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_job_of_a_megabyte_takes_more_than_its_share_of_memory() {
    let mut rig = Rig::new("stream-configurator", "stream.configure").await;
    for job in hostile() {
        let (events, cost) = rig.costs(std::slice::from_ref(&job)).await;
        let error = &events[0]["data"]["error"];
        let code = error["code"].as_str().unwrap();
        assert!(["invalid_job", "too_large", "undecodable"].contains(&code), "{}: {error}", job.0);
        assert!(error["violations"].as_array().is_none_or(|output| output.len() <= 100), "{}", job.0);
        assert!(cost <= MOST_KB, "{}: {cost} kB", job.0);
    }
    let wrong = String::from_utf8(hostile().pop().unwrap().1).unwrap();
    let eight: Vec<_> =
        (0..8).map(|n| (format!("w{n}"), wrong.replacen("wrong", &format!("w{n}"), 1).into())).collect();
    let (_, cost, longest) = rig.costs_and_lives(&eight).await;
    assert!(cost <= MOST_FOR_EIGHT_KB, "eight at once: {cost} kB");
    assert!(longest < seconds(1), "{longest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_far_too_large_is_kept_as_it_came_and_not_copied_on_the_way() {
    let mut rig = Rig::new("purger", "cdn.purge").await;
    let four: Vec<(String, Vec<u8>)> = (0..4)
        .map(|n| {
            let begin = format!(r#"{{"id":"huge-{n}","payload":{{"paths":["/"#);
            (format!("huge-{n}"), [begin.into_bytes(), vec![b'x'; 20 * MEGABYTE]].concat())
        })
        .collect();
    let (events, cost) = rig.costs(&four).await;
    assert!(events.iter().all(|event| event["data"]["error"]["code"] == "too_large"), "{events:?}");
    assert!(cost <= MOST_KB, "{cost} kB");
    let dead = harness::eventually(seconds(30), "all are dead letters", async || {
        let dead = rig.amqp.get_all(&format!("{}.dead.cdn.purge", rig.prefix)).await;
        (dead.len() == 4).then_some(dead)
    })
    .await;
    for (id, body) in four {
        let letter = dead.iter().find(|one| one.properties.message_id().as_ref().is_some_and(|of| of.as_str() == id));
        assert!(letter.is_some_and(|letter| letter.body == body), "{id} is kept byte for byte");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_that_is_named_very_often_holds_up_nobody() {
    let mut rig = Rig::new("stream-configurator", "stream.configure").await;
    let mappings: Vec<Value> = (0..3_000).map(|n| json!({ "source": "big", "target": format!("t{n}") })).collect();
    let extracts: Vec<Value> = (0..1_500)
        .map(|n| json!({ "sourceField": "list", "targetField": format!("e{n}"), "type": "extract", "path": "[].a" }))
        .collect();
    let payload = json!({
        "sourceId": "s",
        "configuration": {
            "awsAccountId": "123456789012", "roleArn": "arn:aws:iam::123456789012:role/r", "region": "us-east-1",
        },
        "filters": [{ "eventType": "e", "conditions": [] }],
        "transformations": extracts,
        "attributeMappings": mappings,
        "sampleEvent": { "big": "x".repeat(300_000), "list": vec![json!({ "a": 1 }); 40_000] },
    });
    let six: Vec<_> = (0..6)
        .map(|n| (format!("big-{n}"), json!({ "id": format!("big-{n}"), "payload": payload }).to_string().into_bytes()))
        .collect();
    let began = Instant::now();
    let (events, cost, longest) = rig.costs_and_lives(&six).await;
    let output = |event: &Value| event["data"]["error"]["violations"][0]["pointer"].clone();
    assert!(events.iter().all(|event| output(event) == "/payload/sampleEvent"), "{events:?}");
    assert!(cost <= MOST_FOR_EIGHT_KB, "{cost} kB");
    assert!(longest < seconds(1), "{longest:?}");
    assert!(began.elapsed() < seconds(30), "{:?}", began.elapsed());
}
