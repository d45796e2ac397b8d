//! The example receivers, which verify deliveries with the published Standard Webhooks libraries.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use harness::{Amqp, Broker, Delivery, Prefix, Process, Receiver, eventually, json_properties, seconds, skip};
use tokio::sync::OnceCell;

use super::{SECRET, signing, taken, telling};
use crate::stack::{purge_job, simulator, worker};

const NEW_SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

static PYTHON: OnceCell<Option<PathBuf>> = OnceCell::const_new();
static NODE: OnceCell<Option<PathBuf>> = OnceCell::const_new();

/// A receiver of `deploy/examples` as a process.
struct Example {
    child: Child,
    url: String,
    log: PathBuf,
}

impl Example {
    async fn start(language: Language, secret: &str) -> Option<Self> {
        let folder = language.installed().await?;
        let log = folder.join(format!("{}.log", uuid::Uuid::new_v4()));
        let output = fs::File::create(&log).unwrap();
        let mut command = language.command(&folder);
        let command = command.current_dir(&folder).env("GENFLEET_WEBHOOK_SECRET", secret).env("PORT", "0");
        let command = command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        let child = command.spawn().unwrap();
        let url = eventually(seconds(30), "the example listens", async || {
            let said = fs::read_to_string(&log).unwrap();
            said.lines().find_map(|line| line.strip_prefix("listening on ")).map(str::to_owned).ok_or(said)
        })
        .await;
        Some(Self { child, url, log })
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Sends this delivery with another `body`, and returns the answer.
    async fn answers(&self, delivery: &Delivery, body: &[u8]) -> u16 {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let ours = delivery.headers.iter().filter(|(name, _)| name.starts_with("webhook-"));
        let request = ours.fold(client.post(&self.url), |request, (name, value)| request.header(name, value));
        request.body(body.to_vec()).send().await.unwrap().status().as_u16()
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.log);
    }
}

#[derive(Clone, Copy, Debug)]
enum Language {
    Python,
    Node,
}

impl Language {
    /// Installs the example's library once. `None` if that is not possible, which is reported.
    async fn installed(self) -> Option<PathBuf> {
        let (cell, name) = match self {
            Self::Python => (&PYTHON, "python"),
            Self::Node => (&NODE, "node"),
        };
        let install = async || tokio::task::spawn_blocking(move || self.install(name)).await.unwrap();
        let folder = cell.get_or_init(install).await;
        if folder.is_none() {
            skip(&format!("the Standard Webhooks library for {self:?} cannot be installed here"));
        }
        folder.clone()
    }

    /// Installs the library as the example's README describes, next to the build.
    fn install(self, name: &str) -> Option<PathBuf> {
        let executable = std::env::current_exe().unwrap();
        let folder = executable.ancestors().nth(3).unwrap().join(format!("tmp/webhook-receiver-{name}"));
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/receivers");
        fs::create_dir_all(&folder).unwrap();
        for file in fs::read_dir(&examples).unwrap().map(Result::unwrap).filter(|file| file.path().is_file()) {
            fs::copy(file.path(), folder.join(file.file_name())).unwrap();
        }
        let done = match self {
            Self::Python if folder.join(".venv/bin/python").exists() => true,
            Self::Python => succeeds(&folder, "python3", &["-m", "venv", ".venv"]),
            Self::Node => succeeds(&folder, "npm", &["install", "--no-fund", "--no-audit", "--no-package-lock"]),
        };
        let pip = ["-m", "pip", "install", "--disable-pip-version-check", "-r", "requirements.txt"];
        let has_library = match self {
            Self::Python => done && succeeds(&folder, ".venv/bin/python", &pip),
            Self::Node => done,
        };
        has_library.then_some(folder)
    }

    fn command(self, folder: &Path) -> Command {
        match self {
            Self::Python => {
                let mut command = Command::new(folder.join(".venv/bin/python"));
                command.arg("webhook_receiver.py");
                command
            }
            Self::Node => {
                let mut command = Command::new("node");
                command.arg("webhook_receiver.mjs");
                command
            }
        }
    }
}

fn succeeds(folder: &Path, program: &str, arguments: &[&str]) -> bool {
    let program = if program.contains('/') { folder.join(program) } else { program.into() };
    let output = Command::new(program).args(arguments).current_dir(folder).stdin(Stdio::null()).output();
    output.is_ok_and(|output| output.status.success())
}

/// Returns a delivery of a worker that signs with `secrets`, as a receiver got it.
async fn delivery(secrets: &str) -> Delivery {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    let receiver = Receiver::start().await;
    let launch = telling(worker("purger", broker, &prefix, &simulator), &[&receiver]);
    let purger = launch.env("GENFLEET_WEBHOOK_SECRET", secrets).start();
    purger.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let job = purge_job("job", &["/\u{e4}/\"quoted\"/\u{1F600}"]);
    amqp.publish_job(&prefix, "cdn.purge", job, json_properties()).await;
    taken(&receiver, 1).await.into_values().next().unwrap().swap_remove(0)
}

/// The worker signs with the old secret, with both, and with the new one; the examples verify with the old and the new.
async fn takes_ours_and_nothing_else(language: Language) {
    let Some(old) = Example::start(language, SECRET).await else { return };
    let Some(new) = Example::start(language, NEW_SECRET).await else { return };
    let Some(both) = Example::start(language, &format!("{NEW_SECRET} {SECRET}")).await else { return };
    for (secrets, by_old, by_new) in
        [(SECRET.to_owned(), 204, 401), (format!("{NEW_SECRET} {SECRET}"), 204, 204), (NEW_SECRET.to_owned(), 401, 204)]
    {
        let delivery = delivery(&secrets).await;
        assert_eq!(old.answers(&delivery, &delivery.body).await, by_old, "{secrets}: {}", old.said());
        assert_eq!(new.answers(&delivery, &delivery.body).await, by_new, "{secrets}: {}", new.said());
        assert_eq!(both.answers(&delivery, &delivery.body).await, 204, "{secrets}: {}", both.said());
        let mut changed = delivery.body.clone();
        let place = changed.len() / 2;
        changed[place] ^= 1;
        for example in [&old, &new, &both] {
            assert_eq!(example.answers(&delivery, &changed).await, 401, "a changed body: {}", example.said());
        }
        let stranger = Delivery { headers: BTreeMap::new(), ..delivery.clone() };
        assert_eq!(both.answers(&stranger, &delivery.body).await, 401, "an unsigned one");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_library_takes_our_deliveries_before_and_after_a_rotation_and_no_changed_body() {
    takes_ours_and_nothing_else(Language::Python).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_library_takes_our_deliveries_before_and_after_a_rotation_and_no_changed_body() {
    takes_ours_and_nothing_else(Language::Node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_tell_each_event_once_however_often_it_comes() {
    for language in [Language::Python, Language::Node] {
        let Some(example) = Example::start(language, SECRET).await else { return };
        let run = signing(Process::binary("genfleet"))
            .args(["run", "--simulate", "--webhook-url", &example.url, "-"])
            .stdin(r#"{"id":"once","kind":"cdn.purge","payload":{"paths":["/a"]}}"#)
            .start();
        assert_eq!(run.wait(seconds(60)).await, 0, "{}", run.stderr());
        let printed = example.said();
        let lines: Vec<_> = printed.lines().filter(|line| line.contains("genfleet.cdn.purge.succeeded")).collect();
        assert_eq!(lines.len(), 1, "{printed}");
        assert!(lines[0].contains("\"once\""), "{printed}");
        let delivery = delivery(SECRET).await;
        for _ in 0..2 {
            assert_eq!(example.answers(&delivery, &delivery.body).await, 204, "a repeat is taken, too");
        }
        let id = delivery.header("webhook-id");
        assert_eq!(example.said().lines().filter(|line| line.contains(id)).count(), 1, "but reported once");
    }
}
