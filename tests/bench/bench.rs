//! The broker, the API and the workers, and the measurement of a rate.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use harness::{Amqp, Broker, Prefix, json_properties};
use lapin::{
    options::QueueDeclareOptions,
    types::{AMQPValue, FieldTable},
};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    figures::{Figures, figures},
    jobs::Jobs,
    stub::Stub,
    usage::{cpu_seconds, memory_mib},
};

/// Maximum time of a measurement.
pub const LONG: Duration = Duration::from_secs(180);
const ALL: [Jobs; 5] = [Jobs::Purges { paths: 1 }, Jobs::Streams, Jobs::Channels, Jobs::Interfaces, Jobs::Scans];

/// Jobs, and who works them.
pub struct Load {
    pub jobs: Jobs,
    pub worker: Worker,
    /// Time that the API takes to answer.
    pub api: Duration,
    /// Number of jobs whose rate is measured.
    pub count: usize,
    /// Number of jobs that still wait after them.
    pub waiting: usize,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Worker {
    /// `ceiling.rs`, with this number of purge jobs in a request.
    Ceiling { together: usize },
    /// Genfleet with these arguments.
    Genfleet(&'static [&'static str]),
}

/// The broker, the API and the folder for all measurements.
pub struct Bench {
    pub amqp: Amqp,
    amqp_url: String,
    pub prefix: Prefix,
    pub stub: Stub,
    pub folder: PathBuf,
}

/// A worker that is killed when its handle is dropped.
pub struct Running(Child);

impl Running {
    pub fn of(mut command: Command) -> Self {
        Self(command.spawn().unwrap())
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures to read")]
pub fn ratio(count: usize, of: f64) -> f64 {
    count as f64 / of
}

impl Bench {
    pub async fn on(broker: &Broker) -> Self {
        let prefix = Prefix::on(broker);
        let folder = env::temp_dir().join(format!("genfleet-bench-{}-{}", std::process::id(), &*prefix));
        std::fs::create_dir_all(&folder).unwrap();
        let bench = Self {
            amqp: Amqp::connect(broker.url()).await,
            amqp_url: broker.url().to_owned(),
            prefix,
            stub: Stub::start().await,
            folder,
        };
        bench.declare().await;
        bench
    }

    /// The queues with jobs and with results.
    pub fn queues(&self, jobs: Jobs, worker: Worker) -> (String, String) {
        match worker {
            Worker::Ceiling { .. } => {
                (format!("{}.ceiling.jobs", self.prefix), format!("{}.ceiling.results", self.prefix))
            }
            Worker::Genfleet(_) => (format!("{}.jobs.{}", self.prefix, jobs.kind()), format!("{}.events", self.prefix)),
        }
    }

    /// Declares the queues of the minimal worker as quorum queues, like those of Genfleet.
    async fn declare(&self) {
        let (jobs, results) = self.queues(ALL[0], Worker::Ceiling { together: 1 });
        let mut quorum = FieldTable::default();
        quorum.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        let options = QueueDeclareOptions { durable: true, ..Default::default() };
        for queue in [&jobs, &results] {
            self.amqp.channel().queue_declare(queue.as_str().into(), options, quorum.clone()).await.unwrap();
        }
        for jobs in ALL {
            let _declaring = self.start(jobs, Worker::Genfleet(&[]));
            self.amqp.wait_for_consumer(&format!("{}.jobs.{}", self.prefix, jobs.kind())).await;
        }
        sleep(Duration::from_secs(1)).await;
    }

    pub fn start(&self, jobs: Jobs, worker: Worker) -> Running {
        let (queue, results) = self.queues(jobs, worker);
        match worker {
            Worker::Ceiling { together } => {
                let mut command = self.command("ceiling");
                command.env("JOBS", queue).env("RESULTS_EXCHANGE", "").env("RESULTS", results);
                command.env("TOGETHER", together.to_string());
                if !matches!(jobs, Jobs::Purges { .. }) {
                    let alone = jobs.alone();
                    command.env("REQUESTS", self.requests(jobs));
                    command.env("IN_FLIGHT", jobs.in_flight().to_string());
                    command.env("ALONE", format!("{}..{}", alone.start, alone.end));
                }
                Running::of(command)
            }
            Worker::Genfleet(arguments) => {
                let mut command = self.command(jobs.binary());
                command.args(["--admin-addr", "127.0.0.1:0", "--log", "info", "--audit-log"]);
                command.arg(self.folder.join(format!("audit-{}.jsonl", jobs.kind())));
                command.args(jobs.arguments()).args(arguments);
                Running::of(command)
            }
        }
    }

    /// Returns a binary with all variables that are the same for each worker.
    pub fn command(&self, binary: &str) -> Command {
        let binaries = env::current_exe().unwrap();
        let log = std::fs::File::create(self.folder.join(format!("{binary}.log"))).unwrap();
        let mut command = Command::new(binaries.parent().unwrap_or(Path::new(".")).join(binary));
        command
            .env("AMQP_URL", &self.amqp_url)
            .env("API_URL", self.stub.url())
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
        command
    }

    /// The file with the requests of a job.
    fn requests(&self, jobs: Jobs) -> PathBuf {
        self.folder.join(format!("requests-{}.json", jobs.kind()))
    }

    /// Has Genfleet work one job, and writes its requests to that file.
    async fn record(&self, jobs: Jobs) {
        let genfleet = Worker::Genfleet(&[]);
        let results = self.prepare(jobs, genfleet, 1).await;
        self.stub.reset(Duration::ZERO);
        self.stub.record();
        let running = self.start(jobs, genfleet);
        timeout(LONG, self.results(&results, 1, running.pid())).await.unwrap();
        std::fs::write(self.requests(jobs), serde_json::to_vec(&self.stub.recorded()).unwrap()).unwrap();
    }

    /// Empties the queues and publishes jobs. Returns the queue for the results.
    pub async fn prepare(&self, jobs: Jobs, worker: Worker, count: usize) -> String {
        let (queue, results) = self.queues(jobs, worker);
        let resume = format!("{}.resume.{}", self.prefix, jobs.kind());
        for queue in [&queue, &resume, &results] {
            self.amqp.purge(queue).await;
        }
        self.publish(jobs, worker, 0..count).await;
        results
    }

    pub async fn publish(&self, jobs: Jobs, worker: Worker, numbers: std::ops::Range<usize>) {
        let messages = numbers.map(|number| (jobs.body(number, self.stub.port()), json_properties()));
        match worker {
            Worker::Ceiling { .. } => self.amqp.publish_many("", &self.queues(jobs, worker).0, messages).await,
            Worker::Genfleet(_) => self.amqp.publish_jobs(&self.prefix, jobs.kind(), messages).await,
        }
    }

    /// Starts the worker when all jobs wait, and measures the time from a tenth of the results to the last.
    pub async fn rate(&self, load: &Load) -> Figures {
        let Load { jobs, worker, api, count, waiting } = *load;
        if !matches!(jobs, Jobs::Purges { .. }) && !self.requests(jobs).exists() {
            self.record(jobs).await;
        }
        let results = self.prepare(jobs, worker, count + waiting).await;
        sleep(Duration::from_secs(1)).await;
        self.stub.reset(api);
        let running = self.start(jobs, worker);
        let pid = running.pid();
        let (already, _) = timeout(LONG, self.results(&results, count / 10, pid)).await.unwrap();
        let (began, cpu) = (Instant::now(), cpu_seconds(pid));
        let (done, memory) = timeout(LONG, self.results(&results, count, pid)).await.unwrap();
        let (seconds, cpu) = (began.elapsed().as_secs_f64(), cpu_seconds(pid) - cpu);
        let requests = usize::try_from(self.stub.requests()).unwrap();
        let figures = figures([
            ("jobs/s", ratio(done - already, seconds)),
            ("CPU s/1,000 jobs", cpu / ratio(done - already, 1000.0)),
            ("requests/100 jobs", ratio(requests, ratio(done, 100.0))),
            ("most at once", ratio(usize::try_from(self.stub.most_under_way()).unwrap(), 1.0)),
            ("MiB", memory),
        ]);
        drop(running);
        self.amqp.purge(&self.queues(jobs, worker).0).await;
        figures
    }

    /// Waits until this number of results exist. Returns their number, and the maximum memory of the worker.
    async fn results(&self, queue: &str, wanted: usize, pid: u32) -> (usize, f64) {
        let channel = self.amqp.connection().create_channel().await.unwrap();
        let passive = QueueDeclareOptions { passive: true, ..Default::default() };
        loop {
            let declared = channel.queue_declare(queue.into(), passive, FieldTable::default()).await.unwrap();
            let count = declared.message_count() as usize;
            if count >= wanted {
                return (count, memory_mib(pid, "VmHWM"));
            }
            sleep(Duration::from_millis(10)).await;
        }
    }
}
