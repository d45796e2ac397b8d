//! Scans that were ordered and have no verdict: how often they are polled, and the memory of the worker meanwhile.
//!
//! Between two polls a scan waits in the delay queues. The ceiling polls the same scans through the same delay queues,
//! so that its rate is the limit of the broker, or that of the poll interval.

use std::time::Duration;

use harness::json_properties;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    bench::{Bench, LONG, Running, Worker, ratio},
    figures::{Figures, figures},
    jobs::Jobs,
    recorded::Recorded,
    usage::{cpu_seconds, memory_mib},
};

/// Time of the measurement, several poll intervals.
const MEASURED: Duration = Duration::from_secs(20);
/// The way through the delay queues that takes 5 s, which is the poll interval.
const EXCHANGE: &str = "delay.02";
const KEY: &str = "0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.1.file.scan.resume";

impl Bench {
    pub async fn polls(&self, worker: Worker, scans: usize) -> Figures {
        self.stub.reset(Duration::ZERO);
        self.stub.let_scans_go_on(true);
        let running = match worker {
            Worker::Ceiling { .. } => self.start_polling(scans).await,
            Worker::Genfleet(_) => {
                self.prepare(Jobs::Scans, worker, scans).await;
                self.start(Jobs::Scans, worker)
            }
        };
        let pid = running.pid();
        timeout(LONG, self.polled(scans)).await.unwrap();
        let memory = memory_mib(pid, "VmRSS");
        let (began, polls, cpu) = (Instant::now(), self.stub.polls(), cpu_seconds(pid));
        sleep(MEASURED).await;
        let polls = usize::try_from(self.stub.polls() - polls).unwrap();
        let figures = figures([
            ("polls/s", ratio(polls, began.elapsed().as_secs_f64())),
            ("CPU s/1,000 polls", (cpu_seconds(pid) - cpu) / ratio(polls, 1000.0)),
            ("MiB when all are begun", memory),
            ("MiB 20 s later", memory_mib(pid, "VmRSS")),
            ("MiB at most", memory_mib(pid, "VmHWM")),
        ]);
        drop(running);
        self.stub.let_scans_go_on(false);
        self.remove_begun_scans().await;
        figures
    }

    /// Starts the ceiling on scans that have been ordered already.
    async fn start_polling(&self, scans: usize) -> Running {
        let exchange = format!("{}.{EXCHANGE}", self.prefix);
        let scan = |number| (json!({ "id": format!("job-{number:010}") }).to_string(), json_properties());
        self.amqp.publish_many(&exchange, KEY, (0..scans).map(scan)).await;
        let poll = Recorded {
            method: "GET".to_owned(),
            path: "/api/v2/files/file/scans/scan".to_owned(),
            if_match: None,
            body: String::new(),
            after_ms: 0,
        };
        let requests = self.folder.join("requests-poll.json");
        std::fs::write(&requests, serde_json::to_vec(&[poll]).unwrap()).unwrap();
        let mut command = self.command("ceiling");
        command.env("JOBS", format!("{}.resume.file.scan", self.prefix));
        command.env("RESULTS_EXCHANGE", exchange).env("RESULTS", KEY);
        command.env("REQUESTS", requests).env("TOGETHER", "1").env("IN_FLIGHT", "64").env("ALONE", "0..0");
        Running::of(command)
    }

    /// Waits until so many polls were sent. The scans that were ordered first may then have been polled twice.
    async fn polled(&self, scans: usize) {
        while self.stub.polls() < scans as u64 {
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until the delays of all scans are over, and removes them.
    async fn remove_begun_scans(&self) {
        sleep(Duration::from_secs(7)).await;
        for lane in ["jobs", "resume"] {
            self.amqp.purge(&format!("{}.{lane}.file.scan", self.prefix)).await;
        }
    }
}
