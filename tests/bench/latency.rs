//! The time to the first result, and then, at an even rate, the time from each publication to its result.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::{options::BasicConsumeOptions, types::FieldTable};
use serde_json::Value;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::{
    bench::{Bench, LONG, Worker},
    figures::{Figures, figures},
    jobs::Jobs,
    usage::memory_mib,
};

/// Rate and duration.
const RATE: u32 = 50;
const SECONDS: u32 = 10;
const PURGES: Jobs = Jobs::Purges { paths: 1 };

impl Bench {
    pub async fn latency(&self, worker: Worker) -> Figures {
        let results = self.prepare(PURGES, worker, 1).await;
        self.stub.reset(Duration::ZERO);
        let began = Instant::now();
        let running = self.start(PURGES, worker);
        let pid = running.pid();
        let channel = self.amqp.connection().create_channel().await.unwrap();
        let (options, table) = (BasicConsumeOptions { no_ack: true, ..Default::default() }, FieldTable::default());
        let arrivals = channel.basic_consume(results.as_str().into(), "".into(), options, table).await.unwrap();
        let mut arrivals = arrivals.map(|result| {
            let result: Value = serde_json::from_slice(&result.unwrap().data).unwrap();
            let number = result["subject"].as_str().unwrap().rsplit('-').next().unwrap();
            number.parse::<usize>().unwrap()
        });
        timeout(LONG, arrivals.next()).await.unwrap().unwrap();
        let first = began.elapsed();
        sleep(Duration::from_secs(3)).await;
        let idle = memory_mib(pid, "VmRSS");
        let count = (RATE * SECONDS) as usize;
        let sending = async {
            let start = Instant::now();
            let mut sent = Vec::with_capacity(count);
            for number in 1..=count {
                sleep_until(start + Duration::from_secs(1) * u32::try_from(number).unwrap() / RATE).await;
                sent.push(Instant::now());
                self.publish(PURGES, worker, number..number + 1).await;
            }
            sent
        };
        let receiving = async {
            let mut received = Vec::with_capacity(count);
            while received.len() < count {
                let number = timeout(LONG, arrivals.next()).await.unwrap().unwrap();
                received.push((number, Instant::now()));
            }
            received
        };
        let (sent, received) = tokio::join!(sending, receiving);
        let mut took: Vec<f64> =
            received.iter().map(|(number, at)| (*at - sent[number - 1]).as_secs_f64() * 1000.0).collect();
        took.sort_by(f64::total_cmp);
        figures([
            ("first result after start, ms", first.as_secs_f64() * 1000.0),
            ("p50 ms", took[count / 2]),
            ("p99 ms", took[count * 99 / 100]),
            ("MiB idle", idle),
            ("MiB then", memory_mib(pid, "VmRSS")),
        ])
    }
}
