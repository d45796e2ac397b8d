//! The time that a job waited, from the time of enqueueing that its producer gives.

use harness::{Amqp, Broker, Prefix, json_properties, seconds};
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};
use serde_json::{Value, json};

use crate::{
    observed::now,
    stack::{outcomes, simulator, worker},
};

/// A minute and half a second ago.
const AGO: i64 = 60_500;

fn properties(timestamp: Option<u64>, enqueued_ms: Option<i64>) -> BasicProperties {
    let mut properties = json_properties();
    if let Some(timestamp) = timestamp {
        properties = properties.with_timestamp(timestamp);
    }
    let mut headers = FieldTable::default();
    if let Some(ms) = enqueued_ms {
        headers.insert("genfleet-enqueued-ms".into(), AMQPValue::LongLongInt(ms));
    }
    properties.with_headers(headers)
}

fn in_two_seconds() -> String {
    let now = genfleet_core::clock::Clock::now(&genfleet_core::clock::SystemClock);
    (now + std::time::Duration::from_secs(2)).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_is_known_to_the_millisecond_or_said_to_be_rough_or_not_known() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    let purger = worker("purger", broker, &prefix, &simulator).start();
    purger.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    let seconds_now = now();
    let enqueued = seconds_now.cast_signed() * 1000 - AGO;
    let second = u64::try_from(enqueued / 1000).unwrap();
    let jobs = [
        ("exact", properties(Some(second), Some(enqueued))),
        ("alone", properties(None, Some(enqueued))),
        ("begins-1970", properties(Some(0), Some(enqueued))),
        ("rough", properties(Some(second), None)),
        ("lied", properties(Some(second), Some(enqueued - 3_600_000))),
        ("future", properties(Some(second), Some(enqueued + 86_400_000))),
        ("zero", properties(Some(0), None)),
        ("zeros", properties(Some(0), Some(0))),
        ("milliseconds", properties(Some(seconds_now * 1000), None)),
        ("nothing", properties(None, None)),
    ];
    let count = jobs.len() + 1;
    let body = |id: &str| json!({ "id": id, "payload": { "paths": [format!("/{id}")] } });
    let sent = jobs.into_iter().map(|(id, properties)| (body(id).to_string(), properties));
    amqp.publish_jobs(&prefix, "cdn.purge", sent).await;
    // It is delayed, and the intended wait does not count.
    let mut delayed = body("delayed");
    delayed["notBefore"] = in_two_seconds().into();
    amqp.publish_job(&prefix, "cdn.purge", delayed.to_string(), properties(Some(second), Some(enqueued))).await;

    let by_job = outcomes(&mut events, count, seconds(60)).await;
    let output = |id: &str| &by_job[id][0]["data"];
    let about = |id: &str| {
        let ms = output(id)["queuedMs"].as_i64().unwrap_or_else(|| panic!("{id}: {}", output(id)));
        assert!((AGO..AGO + 30_000).contains(&ms), "{id} waited {ms} ms");
        output(id).get("queuedRough").cloned()
    };
    for id in ["exact", "alone", "begins-1970"] {
        assert_eq!(about(id), None, "{id}");
    }
    for id in ["rough", "lied", "future"] {
        assert_eq!(about(id), Some(Value::Bool(true)), "{id}");
    }
    let delayed = output("delayed")["queuedMs"].as_i64().unwrap();
    assert!((0..30_000).contains(&delayed), "it waited {delayed} ms after its notBefore");
    for id in ["zero", "zeros", "milliseconds", "nothing"] {
        assert_eq!(output(id)["queuedMs"], Value::Null, "{id}: {}", output(id));
    }
    let metrics = purger.metrics().await;
    assert_eq!(metrics.count("genfleet_job_queue_wait_seconds_count", &[]), 7, "what is not known is not counted");
    let sum = metrics.sum("genfleet_job_queue_wait_seconds_sum", &[]);
    assert!(sum < 6.0 * 90.0 + 30.0, "{sum} seconds");
}
