//! Compares the purger with the minimal worker (`ceiling.rs`): the same broker, API and jobs, in rounds that
//! alternate. Run it with `tests/bench/run [ROUNDS [ROW…]]`. Prints a JSON line for each measurement, then a table of medians,
//! and makes no judgement.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark: whatever goes wrong ends it")]
#![expect(unreachable_pub, reason = "nothing uses this but itself")]

use std::{
    env,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use futures_util::StreamExt;
use harness::{Amqp, Broker, Prefix, json_properties};
use lapin::{
    options::{BasicConsumeOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use self::{
    stub::Stub,
    usage::{cpu_seconds, memory_mib},
};

mod stub;
mod usage;

/// Maximum time of a measurement.
const LONG: Duration = Duration::from_secs(180);
/// Rate and duration of the latency measurement.
const RATE: u32 = 50;
const SECONDS: u32 = 10;

/// A row of the table.
#[derive(Clone, Copy)]
struct Row {
    name: &'static str,
    worker: Worker,
    api: Duration,
    jobs: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Worker {
    /// `ceiling.rs`, with this number of jobs in a request.
    Ceiling { together: usize },
    /// The purger with these arguments.
    Purger(&'static [&'static str]),
}

const APART: Worker = Worker::Purger(&["--batch-linger", "0ms"]);
const SHARED: Worker = Worker::Purger(&[]);
const MS_0: Duration = Duration::ZERO;
const MS_20: Duration = Duration::from_millis(20);

const ROWS: [Row; 8] = [
    Row { name: "ceiling, one request a job", worker: Worker::Ceiling { together: 1 }, api: MS_0, jobs: 30_000 },
    Row { name: "Genfleet, one request a job", worker: APART, api: MS_0, jobs: 15_000 },
    Row { name: "ceiling, 100 jobs a request", worker: Worker::Ceiling { together: 100 }, api: MS_0, jobs: 60_000 },
    Row { name: "Genfleet, shared requests", worker: SHARED, api: MS_0, jobs: 30_000 },
    Row { name: "ceiling, one request a job", worker: Worker::Ceiling { together: 1 }, api: MS_20, jobs: 12_000 },
    Row { name: "Genfleet, one request a job", worker: APART, api: MS_20, jobs: 6_000 },
    Row { name: "ceiling, 100 jobs a request", worker: Worker::Ceiling { together: 100 }, api: MS_20, jobs: 60_000 },
    Row { name: "Genfleet, shared requests", worker: SHARED, api: MS_20, jobs: 30_000 },
];

/// The broker, the API and the folder for all measurements.
struct Bench {
    amqp: Amqp,
    amqp_url: String,
    prefix: Prefix,
    stub: Stub,
    folder: PathBuf,
}

/// A worker that is killed when its handle is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::main]
async fn main() {
    let mut arguments = env::args().skip(1).map(|written| written.parse::<usize>().unwrap());
    let (rounds, rows) = (arguments.next().unwrap_or(3), arguments.collect::<Vec<_>>());
    let is_wanted = |row: usize| rows.is_empty() || rows.contains(&row);
    let broker = Broker::shared().await;
    let bench = Bench {
        amqp: Amqp::connect(broker.url()).await,
        amqp_url: broker.url().to_owned(),
        prefix: Prefix::on(broker),
        stub: Stub::start().await,
        folder: env::temp_dir().join(format!("genfleet-bench-{}", std::process::id())),
    };
    std::fs::create_dir_all(&bench.folder).unwrap();
    bench.declare().await;
    let mut measured = vec![Vec::new(); ROWS.len() + 2];
    for _ in 0..rounds {
        for (at, row) in ROWS.iter().enumerate().filter(|(at, _)| is_wanted(*at)) {
            let line = bench.throughput(row).await;
            println!("{line}");
            measured[at].push(line);
        }
        for (at, worker) in [Worker::Ceiling { together: 1 }, SHARED].into_iter().enumerate() {
            if !is_wanted(ROWS.len() + at) {
                continue;
            }
            let line = bench.latency(worker).await;
            println!("{line}");
            measured[ROWS.len() + at].push(line);
        }
    }
    std::fs::remove_dir_all(&bench.folder).unwrap();
    tables(&measured);
}

fn median(lines: &[Value], field: &str) -> f64 {
    let mut figures: Vec<f64> = lines.iter().filter_map(|line| line[field].as_f64()).collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}

fn tables(measured: &[Vec<Value>]) {
    println!("\n| | API | jobs/s | of the ceiling | CPU s/1,000 jobs | requests/100 jobs | most at once | MiB |");
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    for (row, lines) in ROWS.iter().zip(measured).filter(|(_, lines)| !lines.is_empty()) {
        let ceiling = ROWS.iter().position(|other| other.api == row.api).unwrap();
        let rate = median(lines, "jobs_per_second");
        println!(
            "| {} | {} ms | {rate:.0} | {:.2} | {:.3} | {:.1} | {:.0} | {:.0} |",
            row.name,
            row.api.as_millis(),
            rate / median(&measured[ceiling], "jobs_per_second"),
            median(lines, "cpu_seconds_per_1000"),
            median(lines, "requests_per_100"),
            median(lines, "most_requests_at_once"),
            median(lines, "memory_mib"),
        );
    }
    println!("\n| at {RATE} jobs/s, API 0 ms | first result after start | p50 | p99 | MiB idle | MiB then |");
    println!("| --- | --- | --- | --- | --- | --- |");
    for (name, lines) in
        ["ceiling", "Genfleet"].into_iter().zip(&measured[ROWS.len()..]).filter(|(_, lines)| !lines.is_empty())
    {
        println!(
            "| {name} | {:.0} ms | {:.1} ms | {:.1} ms | {:.0} | {:.0} |",
            median(lines, "first_result_ms"),
            median(lines, "p50_ms"),
            median(lines, "p99_ms"),
            median(lines, "memory_idle_mib"),
            median(lines, "memory_mib"),
        );
    }
}

fn job(number: usize) -> String {
    let path = format!("/static/custom-apps/v2/tenant-{:05}/bundle-{number:08}.js", number % 997);
    json!({ "id": format!("job-{number:010}"), "payload": { "paths": [path] } }).to_string()
}

#[expect(clippy::cast_precision_loss, reason = "figures to read")]
fn ratio(count: usize, of: f64) -> f64 {
    count as f64 / of
}

impl Bench {
    /// The queues with jobs and with results.
    fn queues(&self, worker: Worker) -> (String, String) {
        match worker {
            Worker::Ceiling { .. } => {
                (format!("{}.ceiling.jobs", self.prefix), format!("{}.ceiling.results", self.prefix))
            }
            Worker::Purger(_) => (format!("{}.jobs.cdn.purge", self.prefix), format!("{}.events", self.prefix)),
        }
    }

    /// Declares the queues of the minimal worker as quorum queues, like those of the purger.
    async fn declare(&self) {
        let (jobs, results) = self.queues(Worker::Ceiling { together: 1 });
        let mut quorum = FieldTable::default();
        quorum.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        let options = QueueDeclareOptions { durable: true, ..Default::default() };
        for queue in [&jobs, &results] {
            self.amqp.channel().queue_declare(queue.as_str().into(), options, quorum.clone()).await.unwrap();
        }
        let _declaring = self.start(SHARED);
        self.amqp.wait_for_topology(&self.prefix, &["cdn.purge"]).await;
        sleep(Duration::from_secs(1)).await;
    }

    fn start(&self, worker: Worker) -> Running {
        let binaries = env::current_exe().unwrap();
        let binary = |name: &str| Command::new(binaries.parent().unwrap_or(Path::new(".")).join(name));
        let (jobs, results) = self.queues(worker);
        let mut command = match worker {
            Worker::Ceiling { together } => {
                let mut command = binary("ceiling");
                command.env("TOGETHER", together.to_string());
                command
            }
            Worker::Purger(arguments) => {
                let mut command = binary("purger");
                let audit = self.folder.join("audit.jsonl");
                command
                    .args(["--admin-addr", "127.0.0.1:0", "--log", "info", "--audit-log"])
                    .arg(audit)
                    .args(arguments);
                command
            }
        };
        let log = std::fs::File::create(self.folder.join("log")).unwrap();
        command
            .env("AMQP_URL", &self.amqp_url)
            .env("API_URL", self.stub.url())
            .env("JOBS", jobs)
            .env("RESULTS", results)
            .env("GENFLEET_QUEUE_URL", &self.amqp_url)
            .env("GENFLEET_QUEUE_PREFIX", &*self.prefix)
            .env("GENESYS_BASE_URL", self.stub.url())
            .env("GENESYS_CLIENT_ID", "client")
            .env("GENESYS_CLIENT_SECRET", "secret")
            .env("GENFLEET_REQUESTS_PER_MINUTE", "100000000")
            .env("GENFLEET_CLIENT_REQUESTS_PER_MINUTE", "100000000")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        Running(command.spawn().unwrap())
    }

    async fn publish(&self, worker: Worker, numbers: std::ops::Range<usize>) {
        match worker {
            Worker::Ceiling { .. } => {
                let jobs = numbers.map(|number| (job(number), json_properties()));
                self.amqp.publish_many("", &self.queues(worker).0, jobs).await;
            }
            Worker::Purger(_) => {
                let jobs = numbers.map(|number| (job(number), json_properties()));
                self.amqp.publish_jobs(&self.prefix, "cdn.purge", jobs).await;
            }
        }
    }

    /// Starts the worker when all jobs wait, and measures the time from a tenth of the results to the last.
    async fn throughput(&self, row: &Row) -> Value {
        let (jobs, results) = self.queues(row.worker);
        self.amqp.purge(&jobs).await;
        self.amqp.purge(&results).await;
        self.stub.reset(row.api);
        self.publish(row.worker, 0..row.jobs).await;
        sleep(Duration::from_secs(1)).await;
        let worker = self.start(row.worker);
        let pid = worker.0.id();
        let measured = timeout(LONG, async {
            let already = self.results(&results, row.jobs / 10).await;
            let (began, cpu) = (Instant::now(), cpu_seconds(pid));
            self.results(&results, row.jobs).await;
            (row.jobs - already, began.elapsed().as_secs_f64(), cpu_seconds(pid) - cpu)
        });
        let (done, seconds, cpu) = measured.await.unwrap();
        json!({
            "row": row.name,
            "api_ms": row.api.as_millis(),
            "jobs_per_second": ratio(done, seconds).round(),
            "cpu_seconds_per_1000": cpu / ratio(done, 1000.0),
            "requests_per_100": ratio(usize::try_from(self.stub.purges()).unwrap(), ratio(row.jobs, 100.0)),
            "most_requests_at_once": self.stub.most_under_way(),
            "memory_mib": memory_mib(pid, "VmHWM"),
        })
    }

    /// Waits until this number of results exist.
    async fn results(&self, queue: &str, wanted: usize) -> usize {
        let channel = self.amqp.connection().create_channel().await.unwrap();
        let passive = QueueDeclareOptions { passive: true, ..Default::default() };
        loop {
            let declared = channel.queue_declare(queue.into(), passive, FieldTable::default()).await.unwrap();
            let count = declared.message_count() as usize;
            if count >= wanted {
                return count;
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Measures the time to the first result, and then, at an even rate, the time from each publication to its result.
    async fn latency(&self, worker: Worker) -> Value {
        let (jobs, results) = self.queues(worker);
        self.amqp.purge(&jobs).await;
        self.amqp.purge(&results).await;
        self.stub.reset(MS_0);
        self.publish(worker, 0..1).await;
        let began = Instant::now();
        let running = self.start(worker);
        let pid = running.0.id();
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
                self.publish(worker, number..number + 1).await;
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
        json!({
            "row": if worker == SHARED { "Genfleet, latency" } else { "ceiling, latency" },
            "first_result_ms": first.as_secs_f64() * 1000.0,
            "p50_ms": took[count / 2],
            "p99_ms": took[count * 99 / 100],
            "memory_idle_mib": idle,
            "memory_mib": memory_mib(pid, "VmRSS"),
        })
    }
}
