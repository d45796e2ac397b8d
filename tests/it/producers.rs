//! The producers of `deploy/examples/producers` with the published client libraries, on a broker.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use futures_util::StreamExt;
use harness::{Amqp, Broker, Prefix, assert_keeps_contract, eventually, seconds, skip};
use lapin::{
    BasicProperties, Consumer, ExchangeKind,
    options::{BasicConsumeOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::{
    deploy::deploy,
    rights,
    stack::{simulator, worker},
};

const PAYLOAD: &str = r#"{"paths": ["/index.html"]}"#;

#[derive(Clone, Copy, Debug)]
enum Language {
    Python,
    Node,
    Go,
}

const LANGUAGES: [Language; 3] = [Language::Python, Language::Node, Language::Go];

/// The end of a producer.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// An example producer.
#[derive(Clone, Debug)]
struct Producer {
    program: PathBuf,
    script: Option<&'static str>,
    folder: PathBuf,
}

/// The folder of Go's libraries on Debian.
const GO_LIBRARIES: &str = "/usr/share/gocode";

impl Language {
    /// Installs the library of an example once. `None` if that is not possible, which is reported.
    async fn producer(self) -> Option<Producer> {
        static PYTHON: OnceCell<Option<Producer>> = OnceCell::const_new();
        static NODE: OnceCell<Option<Producer>> = OnceCell::const_new();
        static GO: OnceCell<Option<Producer>> = OnceCell::const_new();
        let cell = match self {
            Self::Python => &PYTHON,
            Self::Node => &NODE,
            Self::Go => &GO,
        };
        let install = async || tokio::task::spawn_blocking(move || self.install()).await.unwrap();
        let producer = cell.get_or_init(install).await;
        if producer.is_none() {
            skip(&format!("the AMQP library for {self:?} cannot be installed here"));
        }
        producer.clone()
    }

    /// Installs the library as the example's README describes, next to the build.
    fn install(self) -> Option<Producer> {
        let executable = std::env::current_exe().unwrap();
        let folder = executable.ancestors().nth(3).unwrap().join(format!("tmp/producer-{self:?}"));
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/producers");
        fs::create_dir_all(&folder).unwrap();
        for file in fs::read_dir(&examples).unwrap().map(Result::unwrap).filter(|file| file.path().is_file()) {
            fs::copy(file.path(), folder.join(file.file_name())).unwrap();
        }
        let python = folder.join(".venv/bin/python");
        let has_library = match self {
            Self::Python => {
                let pip = ["-m", "pip", "install", "--disable-pip-version-check", "-r", "requirements.txt"];
                (python.exists() || succeeds(&folder, Path::new("python3"), &["-m", "venv", ".venv"]))
                    && succeeds(&folder, &python, &pip)
            }
            Self::Node => {
                let install = ["install", "--no-fund", "--no-audit", "--no-package-lock"];
                succeeds(&folder, Path::new("npm"), &install)
            }
            Self::Go if Path::new(GO_LIBRARIES).join("src/github.com/rabbitmq/amqp091-go").exists() => {
                let path = format!("GOPATH={GO_LIBRARIES}");
                succeeds(&folder, Path::new("env"), &["GO111MODULE=off", &path, "go", "build", "-o", "enqueue", "."])
            }
            Self::Go => succeeds(&folder, Path::new("go"), &["build", "-mod=mod", "-o", "enqueue", "."]),
        };
        let (program, script) = match self {
            Self::Python => (python, Some("enqueue.py")),
            Self::Node => (PathBuf::from("node"), Some("enqueue.mjs")),
            Self::Go => (folder.join("enqueue"), None),
        };
        has_library.then_some(Producer { program, script, folder })
    }
}

fn succeeds(folder: &Path, program: &Path, arguments: &[&str]) -> bool {
    let output = Command::new(program).args(arguments).current_dir(folder).stdin(Stdio::null()).output();
    output.is_ok_and(|output| output.status.success())
}

impl Producer {
    /// Runs the producer to its end. It stops by itself after `timeout`.
    async fn run(&self, url: &str, prefix: &str, timeout: Duration, arguments: &[&str]) -> Ran {
        let mut command = tokio::process::Command::new(&self.program);
        let command = command
            .args(self.script)
            .args(arguments)
            .current_dir(&self.folder)
            .env("GENFLEET_QUEUE_URL", url)
            .env("GENFLEET_QUEUE_PREFIX", prefix)
            .env("GENFLEET_TIMEOUT_SECONDS", timeout.as_secs().to_string())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let Output { status, stdout, stderr } = command.output().await.unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ran { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
    }
}

/// An exchange for jobs of the test, which acts as the worker.
struct Door {
    amqp: Amqp,
    prefix: Prefix,
}

impl Door {
    async fn on(broker: &Broker) -> Self {
        let (amqp, prefix) = (Amqp::connect(broker.url()).await, Prefix::on(broker));
        let (options, kind) = (ExchangeDeclareOptions::default(), ExchangeKind::Direct);
        let exchange = format!("{prefix}.jobs");
        amqp.channel().exchange_declare(exchange.into(), kind, options, FieldTable::default()).await.unwrap();
        Self { amqp, prefix }
    }

    /// Declares a queue for it, which is deleted with the test.
    async fn queue(&self, arguments: FieldTable) -> String {
        let name = format!("{}.jobs.cdn.purge", self.prefix);
        let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
        self.amqp.channel().queue_declare(name.as_str().into(), options, arguments).await.unwrap();
        let (exchange, options) = (format!("{}.jobs", self.prefix), QueueBindOptions::default());
        let binding = FieldTable::default();
        let bound =
            self.amqp.channel().queue_bind(name.as_str().into(), exchange.into(), "cdn.purge".into(), options, binding);
        bound.await.unwrap();
        name
    }

    async fn consume(&self) -> Consumer {
        let queue = self.queue(FieldTable::default()).await;
        let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        self.amqp.channel().basic_consume(queue.into(), "".into(), options, FieldTable::default()).await.unwrap()
    }

    async fn answer(&self, queue: &str, correlation_id: &str, event: &Value) {
        let properties = BasicProperties::default().with_correlation_id(correlation_id.into());
        self.amqp.publish_raw("", queue, event.to_string(), properties).await;
    }
}

/// Tests that all producers have to pass.
async fn keeps_the_contract(language: Language) {
    let Some(producer) = language.producer().await else { return };
    let door = Door::on(Broker::shared().await).await;
    let mut jobs = door.consume().await;
    let url = Broker::shared().await.url();
    let arguments = ["cdn.purge", PAYLOAD];
    let worker = async {
        let job = jobs.next().await.unwrap().unwrap();
        let text = |short: &Option<lapin::types::ShortString>| short.as_ref().unwrap().as_str().to_owned();
        let properties = &job.properties;
        assert_eq!(text(properties.content_type()), "application/json");
        assert_eq!(*properties.delivery_mode(), Some(2), "persistent");
        let sent = properties.timestamp().expect("a timestamp");
        assert!((1_700_000_000..20_000_000_000).contains(&sent), "in seconds: {sent}");
        let body: Value = serde_json::from_slice(&job.data).unwrap();
        let id = text(properties.message_id());
        assert_eq!(body, json!({"id": id, "kind": "cdn.purge", "payload": {"paths": ["/index.html"]}}));
        assert!(uuid::Uuid::try_parse(&id).is_ok(), "{id}");
        let (queue, correlation) = (text(properties.reply_to()), text(properties.correlation_id()));
        door.answer(&queue, "another", &json!({"data": {"outcome": "succeeded"}})).await;
        door.answer(&queue, &correlation, &json!({"data": {"outcome": "expired"}})).await;
    };
    let (ran, ()) = tokio::join!(producer.run(url, &door.prefix, seconds(60), &arguments), worker);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert_eq!(serde_json::from_str::<Value>(&ran.stdout).unwrap(), json!({"data": {"outcome": "expired"}}));
}

/// Tests that no producer mistakes for success.
async fn tells_trouble(language: Language) {
    let Some(producer) = language.producer().await else { return };
    let broker = Broker::shared().await;
    let door = Door::on(broker).await;
    let run =
        async |url: &str, prefix: &str, timeout| producer.run(url, prefix, timeout, &["cdn.purge", PAYLOAD]).await;
    let printed = |ran: &Ran, words: &str| {
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.stderr.contains(words) && ran.stdout.is_empty(), "{words}: {ran:?}");
        assert_eq!(ran.stderr.lines().count(), 1, "one line for a person: {ran:?}");
    };
    printed(&run(broker.url(), &door.prefix, seconds(60)).await, "came back");
    printed(&run(broker.url(), "no-such-prefix", seconds(60)).await, "no-such-prefix.jobs");
    printed(&run("amqp://127.0.0.1:1", &door.prefix, seconds(60)).await, "onnect");
    let mut full = FieldTable::default();
    full.insert("x-max-length".into(), AMQPValue::LongInt(0));
    full.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    door.queue(full).await;
    printed(&run(broker.url(), &door.prefix, seconds(60)).await, "refused the job");
    let deaf = Door::on(broker).await;
    let _jobs = deaf.consume().await;
    printed(&run(broker.url(), &deaf.prefix, seconds(1)).await, "no event within 1 s");
    let usage = producer.run(broker.url(), &door.prefix, seconds(60), &["cdn.purge", "{"]).await;
    assert_eq!(usage.code, Some(64), "{usage:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_producer_keeps_the_contract() {
    keeps_the_contract(Language::Python).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_producer_keeps_the_contract() {
    keeps_the_contract(Language::Node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_go_producer_keeps_the_contract() {
    keeps_the_contract(Language::Go).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_go_producer_tells_trouble() {
    tells_trouble(Language::Go).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_producer_tells_trouble() {
    tells_trouble(Language::Python).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_producer_tells_trouble() {
    tells_trouble(Language::Node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shipped_producer_user_runs_the_shipped_producers_and_is_answered_by_the_shipped_workers() {
    let Some(mut broker) = rights::defined_broker().await else { return };
    broker.ctl(&["import_definitions", deploy("rabbitmq/replies.json").to_str().unwrap()]).await;
    let url = rights::url(&broker, "genfleet-producer");
    let simulator = simulator().await;
    let unused = Prefix::on(&broker);
    let purger = worker("purger", &broker, &unused, &simulator).args(["--topology", "verify"]);
    let purger = rights::of(purger, &broker, "genfleet-worker").start();
    purger.wait_ready(seconds(60)).await;
    for language in LANGUAGES {
        let Some(producer) = language.producer().await else { continue };
        // Generated clients send members that are not set in this way.
        let payload = r#"{"paths": ["/index.html"], "allowPurgeAll": null}"#;
        let done = producer.run(&url, "genfleet", seconds(60), &["cdn.purge", payload]).await;
        assert_eq!(done.code, Some(0), "{done:?}");
        let event: Value = serde_json::from_str(&done.stdout).unwrap();
        assert_keeps_contract(&event);
        assert_eq!(event["data"]["report"]["paths"], json!(["/index.html"]), "{event}");
        let invalid = producer.run(&url, "genfleet", seconds(60), &["cdn.purge", "{}"]).await;
        assert_eq!(invalid.code, Some(2), "{invalid:?}");
        let event: Value = serde_json::from_str(&invalid.stdout).unwrap();
        assert_eq!(event["data"]["error"]["code"], "invalid_job", "{event}");
        let misspelt = producer.run(&url, "genfleet", seconds(60), &["cdn.purges", PAYLOAD]).await;
        assert_eq!(misspelt.code, Some(2), "{misspelt:?}");
        assert!(misspelt.stdout.contains("unknown_kind"), "{misspelt:?}");
    }
    purger.terminate();
    assert_eq!(purger.wait(seconds(60)).await, 0);
    // No worker runs for the next jobs; their producers wait when the broker is killed.
    for language in LANGUAGES {
        let Some(producer) = language.producer().await else { continue };
        let before = waiting(&broker).await;
        let run = tokio::spawn({
            let url = url.clone();
            async move { producer.run(&url, "genfleet", seconds(60), &["cdn.purge", PAYLOAD]).await }
        });
        eventually(seconds(60), "the job is on the queue", async || waiting(&broker).await > before).await;
        broker.kill().await;
        let ran = run.await.unwrap();
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{ran:?}");
        assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
        broker.start().await;
    }
}

async fn waiting(broker: &Broker) -> u32 {
    let amqp = Amqp::connect(&rights::url(broker, "guest")).await;
    amqp.count("genfleet.jobs.cdn.purge").await
}
