//! Attacks by a producer who may only publish jobs: unusual properties, headers and bodies.
//! Each message ends alone, as an event or as a dead letter; other jobs succeed, and no session or process ends.

use std::collections::BTreeSet;

use harness::{Amqp, Broker, KINDS, Prefix, Process, eventually, json_properties, seconds};
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldArray, FieldTable, LongString},
};
use serde_json::json;

use crate::stack::{publish_one_path_jobs, purge_job, simulator, worker};

/// Number of valid jobs before each attack.
const NEIGHBOURS: usize = 5;

/// A message and its name, which is the job's id if the body can be read.
type Attack = (String, Vec<u8>, BasicProperties);

/// Valid jobs with unusual properties and headers.
fn around_a_good_job() -> Vec<Attack> {
    let text = |text: &str| AMQPValue::LongString(text.into());
    let with = |name: &str, value: AMQPValue| {
        let mut table = FieldTable::default();
        table.insert(name.into(), value);
        json_properties().with_headers(table)
    };
    let list = |keys: &[&str]| {
        AMQPValue::FieldArray(FieldArray::from(keys.iter().map(|key| text(key)).collect::<Vec<AMQPValue>>()))
    };
    let mut nested = text("the innermost");
    for _ in 0..12 {
        let mut table = FieldTable::default();
        table.insert("inside".into(), nested);
        nested = AMQPValue::FieldTable(table);
    }
    let properties = vec![
        ("id-of-emoji", json_properties().with_message_id("🦀".repeat(63).into())),
        ("id-of-a-path", json_properties().with_message_id("../../../etc/passwd".into())),
        ("id-of-a-terminal", json_properties().with_message_id("\u{1b}[2J\u{7}\r\n{\"level\":\"ERROR\"}".into())),
        ("end-of-time", json_properties().with_timestamp(u64::MAX)),
        ("before-time", json_properties().with_timestamp(0)),
        ("first-of-all", json_properties().with_priority(255)),
        ("not-persistent", json_properties().with_delivery_mode(1)),
        ("said-to-be-gzip", json_properties().with_content_encoding("gzip".into())),
        ("said-to-be-html", json_properties().with_content_type("text/html; charset=utf-16".into())),
        ("long-correlation", json_properties().with_correlation_id("c".repeat(255).into())),
        ("long-origin", json_properties().with_app_id("a".repeat(255).into()).with_type("t".repeat(255).into())),
        ("expired-on-arrival", json_properties().with_expiration("0".into())),
        ("often-delivered", with("x-delivery-count", AMQPValue::LongLongInt(99))),
        ("often-in-words", with("x-delivery-count", text("many"))),
        ("died-before", with("x-death", list(&["rejected"]))),
        ("died-of-itself", with("x-first-death-exchange", AMQPValue::Void)),
        ("acquired-often", with("x-acquired-count", AMQPValue::LongLongInt(-1))),
        ("carbon-copies", with("CC", list(&["file.scan", "nobody.knows", "cdn.purge.resume"]))),
        ("blind-copies", with("BCC", list(&["file.scan"]))),
        ("no-traceparent", with("traceparent", text("00-zz-zz-zz"))),
        ("long-traceparent", with("traceparent", text(&"0".repeat(30_000)))),
        ("traceparent-of-bytes", with("traceparent", AMQPValue::LongString(LongString::from(vec![0xff, 0, 0xfe])))),
        ("tracestate-of-lines", with("tracestate", text("a=b\r\nX-Injected: 1"))),
        ("nested", with("nested", nested)),
        ("long-name", with(&"n".repeat(255), AMQPValue::Boolean(true))),
        ("own-outcome", with("genfleet-reason", text("crash_loop"))),
        ("far-off", with("genfleet-not-before", text("9999-12-31T23:59:59Z"))),
        ("own-generation", with("genfleet-generation", AMQPValue::LongLongInt(i64::MAX))),
    ];
    let job = |(name, properties): (&str, BasicProperties)| {
        (name.to_owned(), purge_job(name, &[&format!("/{name}")]).into_bytes(), properties)
    };
    properties.into_iter().map(job).collect()
}

/// Bodies that are invalid, or unusual jobs.
fn bodies() -> Vec<Attack> {
    let utf16: Vec<u8> = purge_job("utf-16", &["/a"]).encode_utf16().flat_map(u16::to_le_bytes).collect();
    let bodies: Vec<(&str, Vec<u8>)> = vec![
        ("empty", vec![]),
        ("nothing-but-nul", vec![0; 1_000]),
        ("utf-16", [vec![0xff, 0xfe], utf16].concat()),
        ("torn", br#"{"id":"torn","payload":{"paths":["/a""#.to_vec()),
        ("half-a-character", br#"{"id":"half-a-character","payload":{"paths":["/\ud800"]}}"#.to_vec()),
        ("beyond-numbers", br#"{"id":"beyond-numbers","maxAttempts":1e999,"payload":{"paths":["/a"]}}"#.to_vec()),
        ("a-list", br#"[{"id":"a-list"}]"#.to_vec()),
        ("null", b"null".to_vec()),
        ("null-payload", br#"{"id":"null-payload","payload":null}"#.to_vec()),
        ("two-documents", [purge_job("two-documents", &["/a"]), purge_job("second", &["/b"])].concat().into()),
        ("id-of-nul", json!({"id": "a\u{0}b", "payload": {"paths": ["/a"]}}).to_string().into()),
        (
            "far-deadline",
            json!({"id": "far-deadline", "deadline": "+999999-01-01T00:00:00Z", "payload": {}}).to_string().into(),
        ),
        ("prototype", br#"{"id":"prototype","__proto__":{"payload":{"paths":["/a"]}}}"#.to_vec()),
    ];
    bodies
        .into_iter()
        .map(|(name, body)| (name.to_owned(), body, json_properties().with_message_id(name.into())))
        .collect()
}

/// The names of messages that have ended, from events and dead letters.
async fn ended(amqp: &Amqp, prefix: &Prefix, output: &BTreeSet<String>) -> BTreeSet<String> {
    let mut ended = output.clone();
    for message in amqp.get_all(&format!("{prefix}.dead.cdn.purge")).await {
        let id = message.properties.message_id().as_ref().map(ToString::to_string);
        let body = serde_json::from_slice::<serde_json::Value>(&message.body).unwrap_or_default();
        ended.extend(id);
        ended.extend(body["id"].as_str().map(str::to_owned));
    }
    ended
}

async fn sessions_rebuilt(processes: &[Process]) -> u64 {
    let mut rebuilt = 0;
    for process in processes {
        rebuilt += process.metrics().await.count("genfleet_broker_reconnects_total", &[]);
    }
    rebuilt
}

#[tokio::test(flavor = "multi_thread")]
async fn the_worst_messages_of_a_producer_end_alone_and_their_neighbours_succeed() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    let names = ["purger", "purger", "scan-monitor"];
    let processes: Vec<Process> = names.iter().map(|name| worker(name, broker, &prefix, &simulator).start()).collect();
    for process in &processes {
        process.wait_ready(seconds(30)).await;
    }
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    let rebuilt = sessions_rebuilt(&processes).await;
    let attacks = [around_a_good_job(), bodies()].concat();
    for (n, (name, body, properties)) in attacks.iter().enumerate() {
        publish_one_path_jobs(&amqp, &prefix, &format!("neighbour-of-{n}"), NEIGHBOURS).await;
        amqp.publish_job(&prefix, "cdn.purge", body, properties.clone()).await;
        assert!(processes.iter().all(Process::is_running), "a process did not outlive {name}");
    }
    let mut output = BTreeSet::new();
    let mut succeeded = BTreeSet::new();
    let wanted: BTreeSet<String> = attacks.iter().map(|(name, ..)| name.clone()).collect();
    let neighbours = attacks.len() * NEIGHBOURS;
    eventually(seconds(60), "all have ended", async || {
        while let Some(message) = events.next_message(seconds(0)).await {
            let event = message.json();
            let id = event["subject"].as_str().unwrap().to_owned();
            if event["data"]["outcome"] == "succeeded" {
                succeeded.insert(id.clone());
            }
            output.insert(id);
        }
        let left = wanted.difference(&ended(&amqp, &prefix, &output).await).cloned().collect::<Vec<_>>();
        let done = succeeded.iter().filter(|id| id.starts_with("neighbour-of-")).count();
        if left.is_empty() && done == neighbours { Ok(()) } else { Err(format!("{left:?}; {done} of {neighbours}")) }
    })
    .await;
    // A valid job runs with any properties.
    let good = around_a_good_job().into_iter().map(|(name, ..)| name).filter(|name| name != "expired-on-arrival");
    let failed: Vec<String> = good.filter(|name| !succeeded.contains(name)).collect();
    assert!(failed.is_empty(), "{failed:?}");
    assert!(processes.iter().all(Process::is_running));
    assert_eq!(sessions_rebuilt(&processes).await, rebuilt, "no session was lost");
    for command in [["dead", "list"], ["dead", "list --json"], ["status", "--json"]] {
        let arguments = command.iter().flat_map(|words| words.split(' '));
        let tool = Process::binary("genfleet").args(arguments).env("GENFLEET_QUEUE_URL", broker.url());
        let tool = tool.env("GENFLEET_QUEUE_PREFIX", &prefix).start();
        assert_eq!(tool.wait(seconds(30)).await, 0, "{command:?}: {}", tool.stderr());
        let printed = tool.stdout_lines().concat();
        assert!(!printed.contains('\u{1b}') && !printed.contains('\u{7}'), "{command:?} prints what a terminal obeys");
    }
    for kind in KINDS {
        let resume = amqp.try_count(&format!("{prefix}.resume.{kind}")).await;
        assert_eq!(resume.unwrap_or(0), 0, "{kind}");
    }
}
